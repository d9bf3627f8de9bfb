"""The packer and the codecs below the mosaic, with tifffile as the oracle; and the reader of facts."""

from __future__ import annotations

import io
import pickle
import sys

import numpy as np
import pytest
import tifffile

from fstx.errors import StorageError, UsageError
from fstx.layouts import geotiff, tiffcodecs
from fstx.layouts import tifftags as tt
from fstx.layouts.geotiff_read import read_geotiff_meta
from fstx.layouts.tiffcodecs import Codec

FLAT = np.arange(33 * 50, dtype="f4").reshape(33, 50)
DOWN = (500000.0, 10.0, 0.0, 5e6, 0.0, -20.0)


def form(array=FLAT, codec=None, **options):
    """A format for one array, tiles of 16."""
    return geotiff.TileFormat(
        dtype=geotiff.stored_dtype(array.dtype),
        axes=options.pop("axes", "yx"),
        bands=options.pop("bands", 1),
        tile=(16, 16),
        codec=codec or Codec("none", 0, 1),
        **options,
    )


def opened(buffers):
    """The buffers as one TIFF."""
    return tifffile.TiffFile(io.BytesIO(b"".join(bytes(b) for b in buffers)))


@pytest.mark.parametrize("name", list(tiffcodecs.TIFF_CODES))
@pytest.mark.parametrize("axes", ["yx", "yxb", "byx"])
def test_tifffile_reads_it(name, axes):
    """B10, B17: an independent reader finds the same values, and complains about nothing."""
    shape = {"yx": (33, 50), "yxb": (33, 50, 5), "byx": (5, 33, 50)}[axes]
    array = np.random.default_rng(1).integers(0, 9, shape).astype("i2")
    codec = tiffcodecs.parse_codec(name, None, name not in ("none", "packbits"), array.dtype)
    with opened(
        form(array, codec, axes=axes, bands=1 if axes == "yx" else 5).encode(array)
    ) as tiff:
        assert np.array_equal(tiff.asarray(), array)


def test_uncompressed_whole_tile_is_not_copied():
    """A29: a contiguous block that is one uncompressed tile is handed on in place."""
    block = np.ones((16, 16), "f4")
    _, pixels = form(block).encode(block)
    assert np.shares_memory(np.frombuffer(pixels, "f4"), block)


def test_bigtiff_where_needed(monkeypatch):
    """B11: the limit of classic TIFF decides, or the caller; a refusal is an error, no broken file."""
    with opened(form().encode(FLAT)) as tiff:
        assert not tiff.is_bigtiff
    monkeypatch.setattr(geotiff, "CLASSIC_LIMIT", 5000)
    with opened(form().encode(FLAT)) as tiff:
        assert tiff.is_bigtiff
        assert np.array_equal(tiff.asarray(), FLAT)
    with pytest.raises(StorageError, match="bigtiff=False"):
        form(bigtiff=False).encode(FLAT)


def test_raw_size():
    """B11: the size that the plan checks is the size that is written."""
    buffers = form().encode(FLAT)
    assert form().raw_size_bytes(33, 50) == sum(len(b) for b in buffers[1:])


def test_headers_stay_apart():
    """Cached headers of blocks of different size and place don't mix, however many there are."""
    shared = form(transform=DOWN)
    for _ in range(2):
        for rows in range(1, 80):
            array = np.full((rows, 3), rows, "f4")
            with opened(shared.encode(array, row=rows, col=2)) as tiff:
                assert np.array_equal(tiff.asarray(), array)
                assert read_geotiff_meta(tiff)["transform"] == (
                    500020.0,
                    10,
                    0,
                    5e6 - 20 * rows,
                    0,
                    -20,
                )


def test_pixel_values_are_not_touched_by_predictors():
    """A30: predictors work on copies."""
    array = np.ones((16, 16), "f4")
    form(array, Codec("zstd", 3, 3)).encode(array)
    assert (array == 1).all()


def test_without_imagecodecs(monkeypatch):
    """Deflate and none work on the standard library alone; others are refused naming the extra."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    tiffcodecs._imagecodecs.cache_clear()
    tiffcodecs._encoder.cache_clear()
    try:
        assert tiffcodecs.default_compression() == "deflate"
        codec = tiffcodecs.parse_codec("deflate", 9, None, FLAT.dtype)
        buffers = form(codec=codec).encode(FLAT)
        for name in ("zstd", "lzw", "packbits"):
            with pytest.raises(UsageError, match=r"fstx\[geo\]"):
                tiffcodecs.parse_codec(name, None, None, FLAT.dtype)
        with pytest.raises(UsageError, match=r"predictor=3 needs imagecodecs"):
            tiffcodecs.parse_codec("deflate", 9, 3, FLAT.dtype)
    finally:
        monkeypatch.undo()
        tiffcodecs._imagecodecs.cache_clear()
        tiffcodecs._encoder.cache_clear()
    with opened(buffers) as tiff:
        assert np.array_equal(tiff.asarray(), FLAT)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ((65000, 1, 3, b"\1\2\3"), b"\1\2\3"),
        ((65000, 2, None, "text"), "text"),
        ((65000, 3, 1, 7, True), 7),
        ((65000, 5, 1, (1, 3)), (1, 3)),
        ((65000, 7, 4, b"\0\1\2\3"), b"\0\1\2\3"),
        ((65000, 16, 1, 2**40), 2**40),
    ],
)
def test_extra_tags(entry, value):
    """B7: extra tags of every kind come back."""
    with opened(form(extra=tt.parse_extra_tags([entry])).encode(FLAT)) as tiff:
        got = tiff.pages.first.tags[65000].value
    assert got == value


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("epsg", [4326, 32633])
def test_reader_reads_gdal(tmp_path, point, epsg):
    """The reader gives what GDAL reports of GDAL's own file, half a pixel included (B6)."""
    import rasterio

    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=2, dtype="int16", nodata=-1, interleave="band",
        crs=f"EPSG:{epsg}", transform=rasterio.Affine(10, 0, 500000, 0, -20, 5e6),
    ) as data:  # fmt: skip
        data.update_tags(AREA_OR_POINT="Point" if point else "Area")
    wanted = {"crs": epsg, "transform": DOWN, "nodata": -1, "axis_order": "byx"}
    if point:
        wanted["raster_type"] = "point"
    assert read_geotiff_meta(path) == wanted


def test_reader_reads_ours():
    """The reader gives back what the packer was told, flipped axes and a WKT-only CRS too."""
    from fstx.layouts.georef import parse_crs

    crs = parse_crs(4979)
    up = (5.0, -2.0, 0.0, 7.0, 0.0, 3.0)
    with opened(form(crs=crs, transform=up, raster_type="point", nodata=0.5).encode(FLAT)) as tiff:
        got = read_geotiff_meta(tiff)
    assert got == {"crs": crs.text, "transform": up, "raster_type": "point", "nodata": 0.5}


def test_reader_of_a_plain_tiff():
    """A TIFF without georeferencing tells nothing."""
    file = io.BytesIO()
    tifffile.imwrite(file, FLAT)
    file.seek(0)
    assert read_geotiff_meta(file) == {}


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ([(34264, 12, 16, (1.0, 0.5, 0, 0, 0.5, -1.0, *[0] * 9, 1))], "rotated"),
        ([(33922, 12, 12, tuple(map(float, range(12))))], "ground control"),
        (
            [
                (33550, 12, 3, (1.0, 1.0, 0.0)),
                (33922, 12, 6, (0.0,) * 6),
                (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1)),
            ],
            "no EPSG code",
        ),
    ],
)
def test_reader_refuses(tags, says):
    """B9: what can't be carried over is refused, never dropped in silence."""
    file = io.BytesIO()
    tifffile.imwrite(file, FLAT, extratags=[(*tag, True) for tag in tags])
    file.seek(0)
    with pytest.raises(UsageError, match=says):
        read_geotiff_meta(file)


def test_nan_payloads_stay():
    """A30: with NaN as nodata, pixels keep their very bits."""
    array = np.full((16, 16), 0x7FC12345, "u4").view("f4")
    _, pixels = form(array, nodata=float("nan")).encode(array)
    assert bytes(pixels) == array.tobytes()


@pytest.mark.parametrize("big", [False, True])
def test_values_begin_on_words(big):
    """TIFF 6.0 section 2: values begin on word boundaries, which strict readers check."""
    shared = form(
        transform=DOWN, nodata=1, bigtiff=big, extra=tt.parse_extra_tags([(270, 2, None, "a" * 8)])
    )
    with opened(shared.encode(FLAT)) as tiff:
        assert {tag.valueoffset % 2 for tag in tiff.pages.first.tags} == {0}


def test_pickle_carries_no_cache():
    """E3: what is sent to workers stays small, however much was encoded before."""
    shared = form()
    fresh = len(pickle.dumps(shared))
    shared.encode(FLAT)
    assert len(pickle.dumps(shared)) == fresh
