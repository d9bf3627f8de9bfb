"""A mosaic: GeoTIFF tiles in ``<stem>_tiles`` and a VRT index that is published last.

The first mosaic lies at ``<stem>_tiles/tile_<row>_<col>.tif``. One that replaces it goes to
``<stem>_tiles/<n>/``, n counted from 1, so that old and new tiles lie side by side and replacing the
index alone switches readers from all-old to all-new. The old ones go afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fstx.errors import PathError, StateError, UsageError
from fstx.layouts import georef, geotiff, rastergrid, tiffcodecs, vrtxml
from fstx.layouts import tifftags as tt
from fstx.layouts.dataarray import describe
from fstx.plan import ArraySpec, Grid, Host, Index, StatelessSink
from fstx.protocol import Stager, Transaction
from fstx.types import Mode, StagedObject

__all__ = ["ENTERED_BY_NAME", "OPTIONS", "OVERWRITE_MODE", "VrtPlan", "describe", "plan", "targets"]

ENTERED_BY_NAME = True
DOCUMENT: str | None = None
OVERWRITE_MODE: Mode = "update"

_REFUSED = {
    "tiled": (True, "tiles are what this layout is made of; for strips write one file by tifffile"),
    "cog": (False, "a mosaic of tiles is no cloud-optimised GeoTIFF"),
    "overview_levels": (None, "a mosaic is written without overviews; add them by gdaladdo"),
    "max_z_error": (0, "it belongs to lossy LERC; the codecs here are lossless"),
}
"""Options of other writers: the one value that changes nothing here, and why others are refused."""

OPTIONS: frozenset[str] = frozenset(
    {"crs", "transform", "raster_type", "nodata", "axis_order", "dims", "chunks", "tile_size"}
    | {"compression", "level", "predictor", "photometric", "bigtiff"}
    | {"gdal_metadata", "extra_tags", "resolution"}
    | set(_REFUSED)
)
"""Names of the options that `plan` takes."""

_TILE = re.compile(r"tile_\d+_\d+\.tif(?:\.aux\.xml|\.ovr|\.msk)?")
_GENERATION = re.compile(r"[1-9]\d*")
_SIDECARS = (".aux.xml", ".ovr", ".msk")
_RESOLUTION_UNITS = {None: 1, "none": 1, "inch": 2, "cm": 3, "centimeter": 3, 1: 1, 2: 2, 3: 3}


def plan(name: str, spec: ArraySpec, **options: object) -> VrtPlan:
    """Plan a mosaic; everything that can be refused is refused here, before any work.

    Parameters
    ----------
    name
        Name of the index, such as ``dem.vrt``.
    spec
        Shape (rows, columns), (rows, columns, bands) or (bands, rows, columns). bool becomes uint8 and
        float16 float32; other numbers stay as they are.
    **options
        ``crs``: EPSG number, ``"EPSG:n"``, WKT, or an object with ``to_wkt()``. ``transform``: 6 numbers
        in GDAL's order ``(x0, dx, 0, y0, 0, dy)`` or an ``Affine``; the outer corner of the first pixel,
        pixel sizes of either sign. ``raster_type``: ``"area"`` or ``"point"``. ``nodata``: a number of
        the array's type; NaN pixels become it. ``axis_order``: ``"yxb"`` or ``"byx"`` for 3 axes;
        without it, see `rastergrid.parse_axes`. ``dims``: names of the axes, for messages. ``chunks``:
        rows and columns of a tile file; default the array's own chunks, else ``tile_size``.
        ``tile_size``: side of the TIFF tiles within a file, a multiple of 16, default 256; smaller
        where all blocks are. ``compression``: none, deflate, lzw, packbits, zstd (default where
        installed); None is none. ``level``; ``predictor``: False, True, 2 or 3. ``photometric``.
        ``bigtiff``: None (where needed), True, False. ``gdal_metadata``: dict. ``extra_tags``:
        (code, type, count, value) of TIFF. ``resolution``: (x, y) or (x, y, unit).

    Raises
    ------
    UsageError
        An unknown option or a value that can't be kept; the message names it.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        known = ", ".join(sorted(OPTIONS - set(_REFUSED)))
        raise UsageError(f"vrt takes no option {unknown[0]!r}; it takes {known}")
    _refuse(options)
    stem = _stem(name)
    dims = options.get("dims")
    if dims is not None and (not isinstance(dims, Sequence) or len(dims) != len(spec.shape)):
        raise UsageError(f"dims={dims!r} does not name the {len(spec.shape)} axes of the array")
    axes = rastergrid.parse_axes(spec.shape, options.get("axis_order"), dims)
    stored = geotiff.stored_dtype(spec.dtype)
    tile_size = rastergrid.parse_tile_size(options.get("tile_size"))
    grid = rastergrid.block_grid(spec, axes, options.get("chunks"), tile_size)
    bands = {"yx": 1, "yxb": spec.shape[-1], "byx": spec.shape[0]}[axes]
    form, metadata = _tile_format(stored, axes, bands, grid, tile_size, options)
    return VrtPlan(name, stem, spec.dtype, grid, form, metadata)


def targets(name: str) -> tuple[str, ...]:
    """Index, tile directory, and what GDAL may have put beside the index."""
    return (name, f"{_stem(name)}_tiles", *(name + suffix for suffix in _SIDECARS))


def _refuse(options: dict[str, object]) -> None:
    for option, (harmless, reason) in _REFUSED.items():
        value = options.get(option, harmless)
        if (
            value != harmless
            and value is not None
            and not (option == "overview_levels" and value == [])
        ):
            raise UsageError(f"{option}={value!r}: {reason}")


def _stem(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(
            f"a mosaic needs a path, not a {type(name).__name__}: it is more than one file"
        )
    stem = name[:-4] if name.lower().endswith(".vrt") and len(name) > 4 else name
    if not name or "/" in name or "\\" in name or name in {".", ".."}:
        raise PathError(f"{name!r} is no file name for an index")
    vrtxml.check_text(name, f"the name {name!r}")
    return stem


def _tile_format(
    stored: np.dtype[np.generic],
    axes: geotiff.Axes,
    bands: int,
    grid: Grid,
    tile_size: int,
    options: dict[str, object],
) -> tuple[geotiff.TileFormat, tuple[tuple[str, str], ...]]:
    codec = tiffcodecs.parse_codec(
        options.get("compression", tiffcodecs.default_compression()),
        options.get("level"),
        options.get("predictor"),
        stored,
    )
    crs = georef.parse_crs(options.get("crs"))
    transform = georef.parse_transform(options.get("transform"))
    if crs is not None:
        vrtxml.check_text(crs.text, "crs")
        if transform is None:
            raise UsageError("crs= without transform=: pass where the raster lies, or coordinates")
    metadata = vrtxml.parse_metadata(options.get("gdal_metadata"))
    extra = [*tt.parse_extra_tags(options.get("extra_tags"))]
    extra += _resolution(options.get("resolution"))
    if metadata:
        extra.append(tt.text(tt.GDAL_METADATA, vrtxml.gdal_metadata_xml(metadata)))
    bigtiff = options.get("bigtiff")
    if bigtiff is not None and not isinstance(bigtiff, bool):
        raise UsageError(f"bigtiff={bigtiff!r}; pass None, True or False")
    form = geotiff.TileFormat(
        dtype=stored,
        axes=axes,
        bands=bands,
        tile=rastergrid.tiff_tile(grid, axes, tile_size),
        codec=codec,
        photometric=geotiff.parse_photometric(options.get("photometric"), stored, bands),
        crs=crs,
        transform=transform,
        raster_type=georef.parse_raster_type(options.get("raster_type")),
        nodata=georef.parse_nodata(options.get("nodata"), stored),
        bigtiff=bigtiff,
        extra=tuple(extra),
    )
    if bigtiff is False and codec.name == "none":
        row, col = rastergrid.spatial_axes(axes)
        if form.raw_size_bytes(max(grid[row]), max(grid[col])) > geotiff.CLASSIC_LIMIT:
            raise UsageError(
                "bigtiff=False, but an uncompressed tile is longer than 4 GiB; see chunks="
            )
    return form, metadata


def _resolution(value: object) -> list[tt.Tag]:
    if value is None:
        return []
    parts = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if (
        len(parts) not in (2, 3)
        or isinstance(parts[0], bool | str)
        or isinstance(parts[1], bool | str)
    ):
        raise UsageError(f"resolution={value!r}; pass (x, y) or (x, y, unit)")
    unit = parts[2] if len(parts) == 3 else None
    code = _RESOLUTION_UNITS.get(unit.lower() if isinstance(unit, str) else unit)
    if code is None:
        raise UsageError(f"resolution: the unit {unit!r} is none of 'none', 'inch', 'cm'")
    x, y = (tt.rational(tag, float(part)) for tag, part in zip((282, 283), parts, strict=False))
    return [x, y, tt.numbers(296, tt.SHORT, code)]


@dataclass(frozen=True)
class VrtPlan:
    """A mosaic, decided. `generation` counts replacements; 0 is the first mosaic."""

    name: str
    stem: str
    dtype: np.dtype[np.generic]
    grid: Grid
    form: geotiff.TileFormat
    metadata: tuple[tuple[str, str], ...] = ()
    generation: int = 0

    @property
    def tiles(self) -> str:
        """The directory of the tiles, all generations."""
        return f"{self.stem}_tiles"

    @property
    def sidecars(self) -> tuple[str, ...]:
        """What GDAL may have put beside the index; stale once the index is replaced."""
        return tuple(self.name + suffix for suffix in _SIDECARS)

    @property
    def names(self) -> tuple[str, ...]:
        return targets(self.name)

    @property
    def entry(self) -> str | None:
        return self.name

    @property
    def document(self) -> str | None:
        return None

    @property
    def overwrite_mode(self) -> Mode:
        return OVERWRITE_MODE

    @property
    def _sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        row, col = rastergrid.spatial_axes(self.form.axes)
        return self.grid[row], self.grid[col]

    def path(self, row: int, col: int) -> str:
        """Path of the tile in block row `row` and block column `col`."""
        rows, cols = self._sides
        width = max(2, len(str(max(len(rows), len(cols)) - 1)))
        below = f"{self.tiles}/{self.generation}" if self.generation else self.tiles
        return f"{below}/tile_{row:0{width}d}_{col:0{width}d}.tif"

    def superseded(self, existing: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Older generations' paths, and those of the newest one, out of existing paths.

        A generation is named by its directory where that holds nothing but tiles, else by its tiles:
        files that are not ours are never named. The present plan's own generation counts as well.
        """
        found: dict[int, list[str]] = {}
        mixed: set[int] = set()
        for path in existing:
            parts = path.split("/")
            if parts[0] != self.tiles or len(parts) < 2:
                continue
            below = len(parts) > 2 and bool(_GENERATION.fullmatch(parts[1]))
            number = int(parts[1]) if below else 0
            if len(parts) == 2 + below and _TILE.fullmatch(parts[-1]):
                found.setdefault(number, []).append(path)
            elif below:
                mixed.add(number)
        named = [
            (f"{self.tiles}/{n}",) if n and n not in mixed else tuple(sorted(found[n]))
            for n in sorted(found)
        ]
        older = tuple(path for paths in named[:-1] for path in paths)
        return older, named[-1] if named else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return ()

    def replacing(
        self, existing: Sequence[str], /, *, keep_previous: bool = False
    ) -> tuple[VrtPlan, tuple[str, ...]]:
        """The plan of the next generation, and what goes: sidecars, then superseded tiles by age.

        `keep_previous`: without the newest superseded generation, whose index readers may have open.
        """
        below = [path.split("/")[1:] for path in existing if path.startswith(self.tiles + "/")]
        taken = [int(p[0]) for p in below if len(p) > 1 and _GENERATION.fullmatch(p[0])]
        older, previous = self.superseded(existing)
        stale = tuple(path for path in self.sidecars if path in existing)
        following = replace(self, generation=max(taken, default=0) + 1 if below else 0)
        return following, (*stale, *older, *(() if keep_previous else previous))

    def write(self, stager: Stager, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Stage one tile. The error of a failed tile carries its path as a note."""
        row_axis, col_axis = rastergrid.spatial_axes(self.form.axes)
        row, col = index[row_axis], index[col_axis]
        path = self.path(row, col)
        expected = tuple(lengths[i] for lengths, i in zip(self.grid, index, strict=True))
        if block.shape != expected or block.dtype != self.dtype:
            raise UsageError(
                f"block {index} is {block.dtype} of shape {block.shape}, but the array announced "
                f"{self.dtype} of shape {expected}; check the dtype and chunks of what made it"
            )
        rows, cols = self._sides
        try:
            return (stager.stage(path, self.form.encode(block, sum(rows[:row]), sum(cols[:col]))),)
        except BaseException as error:
            error.add_note(f"while writing {path}")
            raise

    @property
    def units(self) -> Grid:
        """How many neighbouring blocks along each axis are finished together: each is a tile."""
        return tuple((1,) * len(lengths) for lengths in self.grid)

    def sink(self, stager: Stager, /) -> StatelessSink:
        """Tiles need no memory of each other."""
        return StatelessSink(self, stager)

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Adopt the tiles and stage the index. StateError where a tile is missing."""
        rows, cols = self._sides
        names = {(i, j): self.path(i, j) for i in range(len(rows)) for j in range(len(cols))}
        missing = set(names.values()) - {receipt.path for receipt in receipts}
        if missing:
            raise StateError(
                f"{len(missing)} of {len(names)} tiles were not written, the first is {min(missing)}"
            )
        tx.adopt(receipts)
        tx.stage(self.name, self.index(names), publisher=True)

    def index(self, names: dict[tuple[int, int], str]) -> bytes:
        """The bytes of the VRT for tiles of these names."""
        form = self.form
        rows, cols = self._sides
        alpha = geotiff.has_alpha(form.photometric, form.bands, form.dtype)
        mosaic = vrtxml.Mosaic(
            rows=rows,
            cols=cols,
            tile=form.tile,
            bands=form.bands,
            data_type=geotiff.gdal_type(form.dtype),
            colors=vrtxml.color_names(form.photometric, form.bands, alpha),
            crs=form.crs,
            transform=form.transform,
            raster_type=form.raster_type,
            nodata=form.nodata,
            metadata=self.metadata,
        )
        return vrtxml.index_xml(mosaic, names)
