"""The index of a mosaic: GDAL's VRT, spelled from what the plan knows. No tile is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from fstx.errors import UsageError
from fstx.layouts.georef import Crs, RasterType, Transform, number_text

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Mosaic:
    """Everything that the index says but the tiles' names."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    tile: tuple[int, int]
    bands: int
    data_type: str
    colors: tuple[str, ...]
    crs: Crs | None = None
    transform: Transform | None = None
    raster_type: RasterType = "area"
    nodata: int | float | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def check_text(value: str, what: str) -> str:
    """The same text, or UsageError where XML 1.0 has no spelling for one of its characters."""
    found = _FORBIDDEN.search(value)
    if found:
        raise UsageError(f"{what} has the character {found.group()!r}, which XML can't hold")
    return value


def parse_metadata(value: object) -> tuple[tuple[str, str], ...]:
    """Read a mapping of names to texts or numbers, kept in its order."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise UsageError(f"gdal_metadata= is a {type(value).__name__}; pass a dict of texts")
    items: list[tuple[str, str]] = []
    for key, item in value.items():
        if not isinstance(key, str) or not key:
            raise UsageError(f"gdal_metadata: the name {key!r} is not a text")
        if key == "AREA_OR_POINT":
            raise UsageError("gdal_metadata: AREA_OR_POINT is set by raster_type='area' or 'point'")
        if not isinstance(item, str | int | float):
            raise UsageError(f"gdal_metadata: {key!r} is a {type(item).__name__}; pass a text")
        items.append((check_text(key, "gdal_metadata"), check_text(str(item), "gdal_metadata")))
    return tuple(items)


def gdal_metadata_xml(items: Iterable[tuple[str, str]]) -> str:
    """The text of TIFF tag 42112. GDAL escapes values twice there, and reads them back so."""
    rows = [
        f"  <Item name={quoteattr(key)}>{escape(escape(value))}</Item>\n" for key, value in items
    ]
    return "<GDALMetadata>\n" + "".join(rows) + "</GDALMetadata>\n"


def index_xml(mosaic: Mosaic, names: Mapping[tuple[int, int], str]) -> bytes:
    """The VRT for tiles of these names, relative to the index; tiles in row-major order, every band."""
    lines = [f'<VRTDataset rasterXSize="{sum(mosaic.cols)}" rasterYSize="{sum(mosaic.rows)}">']
    if mosaic.crs is not None:
        lines.append(f"  <SRS>{escape(mosaic.crs.text)}</SRS>")
    if mosaic.transform is not None:
        numbers = ", ".join(number_text(number) for number in mosaic.transform)
        lines.append(f"  <GeoTransform>{numbers}</GeoTransform>")
    items = list(mosaic.metadata)
    if mosaic.raster_type == "point":
        items.insert(0, ("AREA_OR_POINT", "Point"))
    if items:
        lines.append("  <Metadata>")
        lines += [f"    <MDI key={quoteattr(k)}>{escape(v)}</MDI>" for k, v in items]
        lines.append("  </Metadata>")
    for band in range(1, mosaic.bands + 1):
        lines += _band(mosaic, names, band)
    lines.append("</VRTDataset>\n")
    return "\n".join(lines).encode("utf-8")


def _band(mosaic: Mosaic, names: Mapping[tuple[int, int], str], band: int) -> list[str]:
    high, wide = mosaic.tile
    lines = [f'  <VRTRasterBand dataType="{mosaic.data_type}" band="{band}">']
    if mosaic.nodata is not None:
        lines.append(f"    <NoDataValue>{number_text(mosaic.nodata)}</NoDataValue>")
    lines.append(f"    <ColorInterp>{mosaic.colors[band - 1]}</ColorInterp>")
    tops, lefts = _starts(mosaic.rows), _starts(mosaic.cols)
    for i, rows in enumerate(mosaic.rows):
        for j, cols in enumerate(mosaic.cols):
            size = f'xSize="{cols}" ySize="{rows}"'
            lines.append(
                "    <SimpleSource>\n"
                f'      <SourceFilename relativeToVRT="1">{escape(names[i, j])}</SourceFilename>\n'
                f"      <SourceBand>{band}</SourceBand>\n"
                f'      <SourceProperties RasterXSize="{cols}" RasterYSize="{rows}" '
                f'DataType="{mosaic.data_type}" BlockXSize="{wide}" BlockYSize="{high}" />\n'
                f'      <SrcRect xOff="0" yOff="0" {size} />\n'
                f'      <DstRect xOff="{lefts[j]}" yOff="{tops[i]}" {size} />\n'
                "    </SimpleSource>"
            )
    lines.append("  </VRTRasterBand>")
    return lines


def _starts(lengths: tuple[int, ...]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def color_names(photometric: int, bands: int, alpha: bool) -> tuple[str, ...]:
    """GDAL's colour interpretation of each band, as it reads it from the tiles."""
    first: tuple[Any, ...] = ("Red", "Green", "Blue") if photometric == 2 else ("Gray",)
    if alpha:
        first = (*first, "Alpha")
    return (*first, *["Undefined"] * (bands - len(first)))
