"""Mosaics as GDAL reads them: values, place and tags of the index and of every tile alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from support.geo import read, write_vrt

RNG = np.random.default_rng(3)
FLAT = RNG.standard_normal((70, 100)).astype("f4")
DOWN = (500000.0, 10.0, 0.0, 5e6, 0.0, -20.0)
CUSTOM = (
    'PROJCS["custom",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Lambert_Azimuthal_Equal_Area"],PARAMETER["latitude_of_center",12.5],'
    'PARAMETER["longitude_of_center",33],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)


def random(dtype, shape=(70, 100)):
    """Values over the whole range of a dtype."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return RNG.random(shape) > 0.5
    if kind in "iu":
        info = np.iinfo(dtype)
        return RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    real = RNG.standard_normal(shape)
    return (
        (real + 1j * RNG.standard_normal(shape)).astype(dtype)
        if kind == "c"
        else real.astype(dtype)
    )


def tile_paths(index):
    """Tiles in row-major order."""
    return sorted((index.parent / "dem_tiles").rglob("*.tif"))


@pytest.mark.parametrize(
    "transform",
    [DOWN, (5.0, 2, 0, 7, 0, 3), (5.0, -2, 0, 7, 0, -3), (5.0, -2, 0, 7, 0, 3)],
    ids=["down", "ascending-y", "descending-x", "both"],
)
@pytest.mark.parametrize("raster_type", ["area", "point"])
def test_value_at_every_coordinate(tmp_path, transform, raster_type):
    """B4, B5, B6: whatever the axes' directions, each pixel lies where the input says, in the index
    and in each tile alone, and area or point is said in both."""
    grid = ((20, 50), (33, 33, 34))
    index = write_vrt(tmp_path, FLAT, grid, crs=4326, transform=transform, raster_type=raster_type)
    x0, dx, _, y0, _, dy = transform
    values, facts = read(index)
    assert np.array_equal(values[0], FLAT)
    assert facts["transform"] == (dx, 0, x0, 0, dy, y0)
    assert (facts["tags"].get("AREA_OR_POINT") == "Point") == (raster_type == "point")
    for path in tile_paths(index):
        tile, own = read(path)
        a, _, c, _, e, f = own["transform"]
        assert (a, e) == (dx, dy)
        col, row = round((c - x0) / dx), round((f - y0) / dy)
        assert np.array_equal(tile[0], FLAT[row : row + tile.shape[1], col : col + tile.shape[2]])
        assert own["tags"]["AREA_OR_POINT"].lower() == raster_type
        assert own["crs"] == CRS.from_epsg(4326)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_georeferencing(tmp_path):
    """B3: tiles are placed by pixel offsets; nothing is georeferenced."""
    index = write_vrt(tmp_path, FLAT, tile_size=32)
    values, facts = read(index)
    assert np.array_equal(values[0], FLAT)
    assert facts["crs"] is None
    with warnings.catch_warnings(), rasterio.open(index) as data:
        warnings.simplefilter("error")
        assert data.transform.is_identity
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tile_paths(index)[0]) as data:
        assert data.crs is None


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [(d, d) for d in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "c8", "c16")]
    + [("?", "u1"), ("f2", "f4"), (">f4", "f4"), (">u2", "u2"), (">i8", "i8")],
)
@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "packbits", "zstd"])
def test_dtypes(tmp_path, dtype, wanted, compression):
    """B12: values survive in every dtype that GDAL has; bool and float16 are widened."""
    array = random(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    index = write_vrt(tmp_path, array, tile_size=64, transform=DOWN, compression=compression)
    values, facts = read(index)
    assert facts["dtypes"] == (np.dtype(wanted).name,)
    assert np.array_equal(values[0], array.astype(wanted))


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "packbits", "zstd", None])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
@pytest.mark.parametrize("predictor", [False, True])
def test_codecs(tmp_path, compression, dtype, predictor):
    """B10: every codec and predictor round-trips through GDAL, byte for byte."""
    if predictor and compression in ("none", "packbits", None):
        compression = "zstd"
    array = random(dtype)
    index = write_vrt(
        tmp_path, array, tile_size=48, transform=DOWN, compression=compression, predictor=predictor
    )
    values, _ = read(index)
    assert values[0].tobytes() == array.tobytes()
    _, facts = read(tile_paths(index)[0])
    assert (facts["compression"] or "NONE").lower() == (compression or "none")


@pytest.mark.parametrize("axes", ["yxb", "byx"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    "options", [{}, {"predictor": True, "chunks": 40}], ids=["plain", "predicted"]
)
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_bands(tmp_path, axes, bands, options, dtype):
    """B17: bands last and bands first are read back equal from the index and from the tiles."""
    array = random(dtype, (bands, 70, 100))
    source = np.ascontiguousarray(np.moveaxis(array, 0, 2)) if axes == "yxb" else array
    index = write_vrt(tmp_path, source, tile_size=32, transform=DOWN, axis_order=axes, **options)
    values, facts = read(index)
    assert np.array_equal(values, array)
    tile, own = read(tile_paths(index)[0])
    assert np.array_equal(tile, array[:, : tile.shape[1], : tile.shape[2]])
    assert facts["color"] == own["color"]
    if dtype == "u1" and bands in (3, 4):
        assert facts["color"] == ["red", "green", "blue", "alpha"][:bands]


def test_layout_of_values_in_memory(tmp_path):
    """H7: strided, reversed, Fortran-ordered and read-only input gives the same bytes as plain input."""
    plain = np.ascontiguousarray(FLAT)
    kinds = {
        "fortran": np.asfortranarray(FLAT),
        "reversed": np.ascontiguousarray(FLAT[::-1, ::-1])[::-1, ::-1],
        "strided": np.repeat(np.repeat(FLAT, 2, 0), 3, 1)[::2, ::3],
        "big-endian": FLAT.astype(">f4"),
    }
    wanted = write_vrt(tmp_path / "plain", plain, tile_size=32, compression="none")
    for name, array in kinds.items():
        array.flags.writeable = False
        index = write_vrt(tmp_path / name, array, tile_size=32, compression="none")
        for a, b in zip([wanted, *tile_paths(wanted)], [index, *tile_paths(index)], strict=True):
            assert a.read_bytes() == b.read_bytes(), name


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("i8", -(2**63)), ("u1", 255), ("f4", 0.1), ("i2", -9999), ("f8", -1e300)]
)
def test_nodata(tmp_path, dtype, nodata):
    """B8: the index and the tiles state the same nodata."""
    index = write_vrt(tmp_path, random(dtype), tile_size=64, transform=DOWN, nodata=nodata)
    wanted = float(np.float32(nodata)) if dtype == "f4" else nodata
    assert read(index)[1]["nodata"] == wanted
    assert read(tile_paths(index)[0])[1]["nodata"] == wanted


@pytest.mark.parametrize(("dtype", "nodata"), [("u8", 2**64 - 1), ("i8", 2**63 - 1)])
def test_nodata_of_64_bits(tmp_path, dtype, nodata, caplog):
    """B8: maxima survive exactly. rasterio hands nodata on as a double and logs GDAL's exact value."""
    index = write_vrt(tmp_path, random(dtype), tile_size=64, transform=DOWN, nodata=nodata)
    for path in (index, tile_paths(index)[0]):
        caplog.clear()
        read(path)
        assert f"true nodata value = {nodata}." in caplog.text


def test_nan_becomes_nodata(tmp_path):
    """A30: NaN becomes nodata where one is set, and stays NaN else."""
    array = FLAT.copy()
    array[::7, ::5] = np.nan
    filled, _ = read(write_vrt(tmp_path / "a", array, tile_size=64, transform=DOWN, nodata=-9999))
    assert np.array_equal(filled[0], np.where(np.isnan(array), np.float32(-9999), array))
    kept, _ = read(write_vrt(tmp_path / "b", array, tile_size=64, transform=DOWN))
    assert np.array_equal(kept[0], array, equal_nan=True)
    also, facts = read(
        write_vrt(tmp_path / "c", array, tile_size=64, transform=DOWN, nodata=np.nan)
    )
    assert np.array_equal(also[0], array, equal_nan=True)
    assert np.isnan(facts["nodata"])


@pytest.mark.parametrize("crs", [32633, "EPSG:4326", 5514, 4979, CUSTOM])
def test_crs_of_index_and_tiles(tmp_path, crs):
    """B7: the index and each tile alone carry the CRS, also one that has no EPSG code."""
    index = write_vrt(tmp_path, FLAT, tile_size=64, crs=crs, transform=DOWN)
    wanted = CRS.from_user_input(crs)
    assert read(index)[1]["crs"] == wanted
    for path in tile_paths(index):
        assert read(path)[1]["crs"] == wanted


def test_tile_equals_one_tif(tmp_path):
    """B7: a tile carries metadata, resolution, extra tags, nodata and photometric as a single TIFF that
    GDAL wrote with the same facts."""
    import tifffile

    index = write_vrt(
        tmp_path,
        FLAT,
        tile_size=64,
        crs=32633,
        transform=DOWN,
        nodata=-9999,
        raster_type="point",
        photometric="miniswhite",
        gdal_metadata={"who": "a & b < c > 'd'"},
        resolution=(72, 96.5, "inch"),
        extra_tags=[(270, 2, None, "what it shows"), (65000, 12, 2, (1.5, 2.5))],
    )
    profile = {"driver": "GTiff", "height": 70, "width": 100, "count": 1, "dtype": "float32"}
    with rasterio.open(
        tmp_path / "one.tif", "w", **profile, crs="EPSG:32633", nodata=-9999, photometric="miniswhite",
        transform=rasterio.Affine(10, 0, 5e5, 0, -20, 5e6),
    ) as data:  # fmt: skip
        data.write(FLAT, 1)
        data.update_tags(
            AREA_OR_POINT="Point", who="a & b < c > 'd'", TIFFTAG_XRESOLUTION=72, TIFFTAG_YRESOLUTION=96.5,
            TIFFTAG_RESOLUTIONUNIT=2, TIFFTAG_IMAGEDESCRIPTION="what it shows",
        )  # fmt: skip
    _, one = read(tmp_path / "one.tif")
    _, tile = read(tile_paths(index)[0])
    for fact in ("crs", "transform", "nodata", "dtypes", "tags", "color"):
        assert tile[fact] == one[fact], fact
    with tifffile.TiffFile(tile_paths(index)[0]) as opened:
        assert opened.pages.first.tags[65000].value == (1.5, 2.5)
        assert not opened.is_bigtiff
    assert read(index)[1]["tags"]["who"] == "a & b < c > 'd'"


def test_bigtiff_on_request(tmp_path):
    """B11: BigTIFF when asked for, read by GDAL with the same facts."""
    import tifffile

    options = {"tile_size": 32, "chunks": 70, "crs": CUSTOM, "transform": DOWN, "nodata": -1}
    small = write_vrt(tmp_path / "s", FLAT, **options)
    big = write_vrt(tmp_path / "b", FLAT, **options, bigtiff=True)
    for path, alike in zip(tile_paths(big), tile_paths(small), strict=True):
        with tifffile.TiffFile(path) as opened:
            assert opened.is_bigtiff
        (tile, facts), (other, others) = read(path), read(alike)
        assert np.array_equal(tile, other)
        assert facts == others


def test_escaped_names_open(tmp_path):
    """B13: GDAL finds the tiles of an index whose name needs escapes."""
    index = write_vrt(tmp_path, FLAT, name="a & b's <1>.vrt", transform=DOWN)
    assert np.array_equal(read(index)[0][0], FLAT)


def test_replacement_is_read_by_the_new_index(tmp_path):
    """A26: old tiles in place, new ones beside: the old index reads old values, the new one new ones."""
    from fstx.layouts import vrt
    from support.geo import run, spec_of

    old = write_vrt(tmp_path, FLAT, tile_size=64, transform=DOWN)
    assert np.array_equal(read(old)[0][0], FLAT)
    existing = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    plan, gone = vrt.plan("dem.vrt", spec_of(FLAT), tile_size=64, transform=DOWN).replacing(
        existing
    )
    run(plan, FLAT + 1).dump(tmp_path)
    assert np.array_equal(read(old)[0][0], FLAT + 1)
    for path in gone:
        (tmp_path / path).unlink()
    assert np.array_equal(read(old)[0][0], FLAT + 1)
