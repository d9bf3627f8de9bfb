"""The plan of a mosaic: names, grid, refusals, replacement. No GDAL."""

from __future__ import annotations

import pickle
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fstx.errors import PathError, StateError, UsageError
from fstx.layouts import choose, vrt
from fstx.plan import ArraySpec
from support.dictstager import DictTransaction
from support.geo import run, spec_of, write_vrt

FLAT = np.arange(40 * 50, dtype="f4").reshape(40, 50)
PLACED = {"crs": 32633, "transform": (500000, 10, 0, 5e6, 0, -10)}


def planned(shape=(40, 50), dtype="f4", grid=None, name="dem.vrt", **options):
    """A plan without an array."""
    return vrt.plan(name, ArraySpec(shape, np.dtype(dtype), grid), **options)


def test_names_and_paths():
    """A1, B1: one index, one directory beside it, and names with at least two digits."""
    plan = planned(tile_size=16)
    assert plan.names[:2] == ("dem.vrt", "dem_tiles")
    assert plan.entry == "dem.vrt"
    assert plan.overwrite_mode == "update"
    tx = run(plan, FLAT)
    tiles = [f"dem_tiles/tile_{i:02d}_{j:02d}.tif" for i in range(3) for j in range(4)]
    assert sorted(tx.adopted) == ["dem.vrt", *tiles]


def test_names_grow_with_the_grid():
    """B1: the width is that of the largest index of either axis."""
    assert planned((16, 16 * 100), tile_size=16).path(0, 99) == "dem_tiles/tile_00_99.tif"
    assert planned((16, 16 * 101), tile_size=16).path(0, 7) == "dem_tiles/tile_000_007.tif"


def test_index_is_staged_last_as_publisher():
    """A3: the index is staged after every tile and marked as the publisher; tiles are not."""
    tx = run(planned(tile_size=16), FLAT)
    assert tx.order[-1] == "dem.vrt"
    assert [r.path for r in tx.adopted.values() if r.publisher] == ["dem.vrt"]


def test_missing_tile_refused():
    """A3: no index is made for tiles that were not written."""
    plan, tx = planned(tile_size=16), DictTransaction()
    receipt = plan.write(tx.stager(), (0, 0), FLAT[:16, :16])
    with pytest.raises(StateError, match=r"11 of 12 tiles.*tile_00_01"):
        plan.finish(tx, receipt)
    assert not tx.adopted


def test_grid_of_chunks_and_of_tiles():
    """A28: own chunks are the tiles, irregular ones too; else the tile size with cut edges."""
    assert planned(tile_size=32).grid == ((32, 8), (32, 18))
    own = ((10, 30), (7, 40, 3))
    assert planned(grid=own).grid == own
    assert planned(grid=own, chunks=(20, 25)).grid == ((20, 20), (25, 25))
    assert planned(chunks=32, tile_size=16).grid == ((32, 8), (32, 18))
    assert planned(chunks=(-1, (20, 30))).grid == ((40,), (20, 30))
    assert planned(grid=((0, 40), (50, 0))).grid == ((40,), (50,))
    assert planned((2, 40, 50), grid=((1, 1), (40,), (50,))).grid == ((2,), (40,), (50,))
    assert planned((40, 50, 3), chunks=(20, 50)).grid == ((20, 20), (50,), (3,))


def test_axes_of_three_dimensions():
    """B17: bands are inferred where the shape tells them, else the option is named."""
    assert planned((40, 50, 3)).form.axes == "yxb"
    assert planned((4, 40, 50)).form.axes == "byx"
    assert planned((12, 40, 50), axis_order="byx").form.bands == 12
    for shape in ((3, 40, 3), (12, 40, 50)):
        with pytest.raises(UsageError, match="axis_order='yxb' or 'byx'"):
            planned(shape)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nodata": True}, "nodata="),
        ({"nodata": "none"}, "nodata="),
        ({"crs": True, "transform": (0, 1, 0, 0, 0, -1)}, "crs="),
        ({"crs": "EPSG:1", "transform": (0, 1, 0, 0, 0, -1)}, "crs="),
        ({"crs": 4326}, "without transform="),
        ({"compression": "zip"}, "compression='zip'.*known"),
        ({"compression": 5}, "compression=5"),
        ({"compression": "deflate", "level": 10}, "level=10"),
        ({"compression": "zstd", "level": 0}, "level=0"),
        ({"compression": "zstd", "level": True}, "level=True"),
        ({"compression": "zstd", "level": "9"}, "level='9'"),
        ({"compression": "lzw", "level": 1}, "level=1"),
        ({"compression": None, "predictor": 2}, "predictor=2"),
        ({"predictor": 2}, "predictor=2"),
        ({"predictor": 4}, "predictor=4"),
        ({"max_z_error": -1}, "max_z_error=-1"),
        ({"max_z_error": 0.1}, "max_z_error=0.1"),
        ({"tile_size": 0}, "tile_size=0"),
        ({"tile_size": -16}, "tile_size=-16"),
        ({"tile_size": 100}, "tile_size=100"),
        ({"tile_size": True}, "tile_size=True"),
        ({"tiled": False}, "tiled=False"),
        ({"cog": True}, "cog=True"),
        ({"overview_levels": [2, 4]}, "overview_levels="),
        ({"chunks": 0}, "chunks: 0"),
        ({"chunks": (16, (20, 20))}, r"chunks: \(20, 20\)"),
        ({"chunks": "auto"}, "chunks='auto'"),
        ({"chunks": (1, 2, 3)}, "chunks="),
        ({"transform": (0, 1, 0.5, 0, 0, -1)}, "transform="),
        ({"raster_type": "x"}, "raster_type="),
        ({"axis_order": "yxb"}, "axis_order="),
        ({"dims": ("y",)}, "dims="),
        ({"bigtiff": 1}, "bigtiff="),
        ({"photometric": "cmyk"}, "photometric="),
        ({"photometric": "rgb"}, "needs 3 real bands"),
        ({"resolution": 72}, "resolution="),
        ({"resolution": (72, 72, "mile")}, "resolution: the unit 'mile'"),
        ({"resolution": (-1, 1)}, "resolution: -1"),
        ({"gdal_metadata": "x"}, "gdal_metadata="),
        ({"gdal_metadata": {"a": "\0"}}, "gdal_metadata has the character"),
        ({"gdal_metadata": {"AREA_OR_POINT": "Point"}}, "raster_type="),
        ({"extra_tags": [(256, 4, 1, 7)]}, "extra_tags: tag 256"),
        ({"extra_tags": [(65000, 3, 1, "x")]}, "extra_tags: tag 65000"),
        ({"extra_tags": [(65000, 3, 2, (1,))]}, "has 1 values, not 2"),
        ({"extra_tags": [(65000, 99, 1, 1)]}, "extra_tags"),
        ({"compresion": "zstd"}, "no option 'compresion'"),
    ],
)  # fmt: skip
def test_bad_options_refused(options, says):
    """B9: every bad option is refused by name while planning, before anything could be staged."""
    with pytest.raises(UsageError, match=says):
        planned(**options)


def test_harmless_values_of_foreign_options():
    """B9: what changes nothing is taken."""
    plan = planned(tiled=True, cog=False, overview_levels=None, max_z_error=0)
    assert plan == planned()


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((), "f4", "2 or 3 axes"),
        ((5,), "f4", "2 or 3 axes"),
        ((2, 3, 4, 5), "f4", "2 or 3 axes.*axis 3"),
        ((0, 5), "f4", "axis 0 of the array is empty"),
        ((5, 5, 0), "f4", "axis 2 of the array is empty"),
        ((5, 5), "O", "dtype object"),
        ((5, 5), "M8[s]", "dtype datetime64"),
        ((5, 5), "U3", "dtype <U3"),
        ((5, 5), "g", "dtype"),
        ((5, 5), [("a", "f4")], "dtype"),
    ],
)
def test_bad_arrays_refused(shape, dtype, says):
    """B9: wrong axes, empty axes and dtypes that are no pixels are refused."""
    with pytest.raises(UsageError, match=says):
        planned(shape, dtype)


def test_unknown_chunks_refused():
    """B9: chunks of unknown length can't be a tile grid."""
    with pytest.raises(UsageError, match="don't add up"):
        planned(grid=((float("nan"),), (50,)))


@pytest.mark.parametrize("name", ["a/b.vrt", "..", "", "a\\b.vrt"])
def test_bad_names_refused(name):
    """The name is one file name."""
    with pytest.raises(PathError):
        planned(name=name)


def test_file_like_target_refused():
    """B9: a mosaic can't go into one open file."""
    with pytest.raises(UsageError, match="BytesIO"):
        planned(name=__import__("io").BytesIO())


def test_block_that_breaks_its_promise():
    """A block of another shape or dtype than announced is refused, never written askew."""
    plan, tx = planned(tile_size=32), DictTransaction()
    for block in (FLAT[:16, :32], FLAT[:32, :32].astype("f8")):
        with pytest.raises(UsageError, match=r"block \(0, 0\)"):
            plan.write(tx, (0, 0), block)
    assert not tx.staged


def test_failed_tile_names_itself():
    """A13: the error of a tile keeps its own type and carries the path as a note."""

    class Full:
        def stage(self, path, data, /, *, publisher=False):
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space") as caught:
        planned(tile_size=32).write(Full(), (1, 1), FLAT[32:, 32:])
    assert caught.value.__notes__ == ["while writing dem_tiles/tile_01_01.tif"]


def test_written_twice_is_identical():
    """B15, A27: equal input gives equal bytes, also through a pickled plan and another memory order."""
    plan = planned(tile_size=16, nodata=-1, **PLACED, gdal_metadata={"b": "2", "a": "1"})
    first = run(plan, FLAT)
    again = run(pickle.loads(pickle.dumps(plan)), np.asfortranarray(FLAT))
    assert {p: first.read(p) for p in first.paths()} == {p: again.read(p) for p in again.paths()}


def test_caller_keeps_his_buffer():
    """A30: NaN becomes nodata in a copy; a read-only input works and stays as it was."""
    array = FLAT.copy()
    array[3, 3] = np.nan
    kept = array.copy()
    array.flags.writeable = False
    run(planned(nodata=-1), array)
    assert np.array_equal(array, kept, equal_nan=True)


def test_index_text(tmp_path):
    """B2, B1: the index says size, SRS, transform, type, nodata, and one source per tile in order."""
    path = write_vrt(tmp_path, FLAT, tile_size=32, nodata=-1, **PLACED)
    root = ET.parse(path).getroot()
    assert root.attrib == {"rasterXSize": "50", "rasterYSize": "40"}
    assert root.findtext("SRS").startswith("PROJCS[")
    assert root.findtext("GeoTransform") == "500000, 10, 0, 5000000, 0, -10"
    band = root.find("VRTRasterBand")
    assert band.get("dataType") == "Float32"
    assert band.findtext("NoDataValue") == "-1"
    sources = band.findall("SimpleSource")
    names = [source.find("SourceFilename") for source in sources]
    assert [name.text for name in names] == [
        f"dem_tiles/tile_0{i}_0{j}.tif" for i in range(2) for j in range(2)
    ]
    assert {name.get("relativeToVRT") for name in names} == {"1"}
    assert sources[3].find("DstRect").attrib == {
        "xOff": "32",
        "yOff": "32",
        "xSize": "18",
        "ySize": "8",
    }
    assert sources[3].find("SrcRect").attrib == {
        "xOff": "0",
        "yOff": "0",
        "xSize": "18",
        "ySize": "8",
    }
    assert [source.findtext("SourceBand") for source in sources] == ["1"] * 4


def test_index_without_georeferencing(tmp_path):
    """B3: no SRS and no GeoTransform where nothing was said."""
    root = ET.parse(write_vrt(tmp_path, FLAT)).getroot()
    assert root.find("SRS") is None
    assert root.find("GeoTransform") is None


def test_no_text_adds_an_element(tmp_path):
    """B13: hostile names, CRS and metadata come back as text."""
    evil = "a&b<c>\"d'</SourceFilename><x/>".replace("/", "")
    wkt = (
        'ENGCRS["<SRS>&\'",EDATUM["d"],CS[Cartesian,2],'
        'AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    )
    metadata = {"k\"<&'": "</MDI><evil/>"}
    path = write_vrt(
        tmp_path,
        FLAT,
        name=evil + ".vrt",
        gdal_metadata=metadata,
        crs=wkt,
        transform=(0, 1, 0, 0, 0, -1),
    )
    root = ET.parse(path).getroot()
    assert (
        root.find("VRTRasterBand/SimpleSource/SourceFilename").text
        == f"{evil}_tiles/tile_00_00.tif"
    )
    assert "<SRS>&'" in root.findtext("SRS")
    assert [(m.get("key"), m.text) for m in root.iter("MDI")] == list(metadata.items())
    assert root.find(".//evil") is None
    assert root.find(".//x") is None


def test_first_replacement_counts_one():
    """A26: a replacement goes beside the old tiles, and all that it supersedes is named."""
    first = planned(tile_size=32)
    existing = [*run(first, FLAT).paths(), "dem.vrt.aux.xml", "dem_tiles/notes.txt"]
    plan, gone = first.replacing(existing)
    assert plan.path(0, 0) == "dem_tiles/1/tile_00_00.tif"
    assert plan.entry == "dem.vrt"
    assert plan.names == first.names
    tiles = [f"dem_tiles/tile_0{i}_0{j}.tif" for i in range(2) for j in range(2)]
    assert gone == ("dem.vrt.aux.xml", *tiles)
    assert b"dem_tiles/1/tile_00_00.tif" in run(plan, FLAT).read("dem.vrt")


def test_later_replacements_and_grace():
    """A26: generations count on; the newest superseded one is told apart for a grace period."""
    plan = planned()
    existing = ["dem.vrt", "dem_tiles/1/tile_00_00.tif", "dem_tiles/10/tile_00_00.tif",
                "dem_tiles/tile_00_00.tif", "dem_tiles/tile_00_00.tif.aux.xml"]  # fmt: skip
    following, gone = plan.replacing(existing)
    assert following.generation == 11
    older, previous = plan.superseded(existing)
    assert previous == ("dem_tiles/10",)
    assert older == ("dem_tiles/tile_00_00.tif", "dem_tiles/tile_00_00.tif.aux.xml", "dem_tiles/1")
    assert gone == (*older, *previous)


def test_foreign_files_are_never_named():
    """A26: what is not ours stays: strange names, and directories that hold more than tiles."""
    existing = ["dem_tiles/3/tile_00_00.tif", "dem_tiles/3/mine.txt", "dem_tiles/2024/report.pdf",
                "dem_tiles/readme", "dem_tiles/x/tile_00_00.tif", "other_tiles/1/tile_00_00.tif"]  # fmt: skip
    plan, gone = planned().replacing(existing)
    assert gone == ("dem_tiles/3/tile_00_00.tif",)
    assert plan.generation == 2025


def test_replacing_nothing_is_the_first():
    """B15, B16: without old tiles the names are the first ones; stale sidecars go all the same."""
    plan, gone = planned().replacing(["dem.vrt.aux.xml", "dem.vrt.ovr"])
    assert plan == planned()
    assert gone == ("dem.vrt.aux.xml", "dem.vrt.ovr")
    assert set(gone) <= set(plan.names)


def test_every_path_lies_below_a_name():
    """A33: paths are relative, beside the URL's own name, wherever that is."""
    tx = run(planned(tile_size=16), FLAT)
    assert {path.split("/")[0] for path in tx.adopted} == {"dem.vrt", "dem_tiles"}


def test_choose():
    """The registry finds a layout by suffix or name, and says what it knows else."""
    assert choose("a.vrt") is vrt
    assert choose("A.VRT") is vrt
    assert choose("a.bin", "vrt") is vrt
    with pytest.raises(UsageError, match=r"'a\.tif'.*\.vrt.*layout="):
        choose("a.tif")
    with pytest.raises(UsageError, match="layout='tif'"):
        choose("a.vrt", "tif")


def test_spec_is_enough():
    """A29: a plan needs shape and dtype only, so a huge raster costs nothing to plan."""
    plan = planned((10**6, 10**6), "u1", chunks=65536)
    assert len(plan.grid[0]) == 16
    assert spec_of(FLAT).dtype == FLAT.dtype
