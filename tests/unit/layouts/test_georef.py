"""Georeferencing: what is read, what is refused, and how GeoTIFF spells it."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from rasterio.transform import Affine

from fstx.errors import UsageError
from fstx.layouts import georef

UTM = (
    'PROJCS["made up",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.25722'
    '3563]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transvers'
    'e_Mercator"],PARAMETER["latitude_of_origin",3],PARAMETER["central_meridian",17],PARAM'
    'ETER["scale_factor",0.9996],PARAMETER["false_easting",1],PARAMETER["false_northing",2'
    '],UNIT["metre",1]]'
)


def test_transform_orders():
    """B2: 6 numbers are GDAL's, an affine matrix is taken by its letters, whole or as 9 numbers."""
    wanted = (100.0, 10.0, 0.0, 200.0, 0.0, -5.0)
    affine = Affine(10, 0, 100, 0, -5, 200)
    assert georef.parse_transform([100, 10, 0, 200, 0, -5]) == wanted
    assert georef.parse_transform(np.array(wanted)) == wanted
    assert georef.parse_transform(affine) == wanted
    assert georef.parse_transform(list(affine)) == wanted


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Affine(10, 0, 100, 0, -5, 200)[:6], "GDAL's order"),
        ((0, 1, 0.1, 0, 0, -1), "rotated or sheared"),
        (Affine.rotation(30), "rotated or sheared"),
        ((0, 0, 1, 0, 1, 0), "no size"),
        ((0, 1, 0, math.nan, 0, -1), "not finite"),
        ((0, 1, 0), "3 elements"),
        ("abcdef", "is a str"),
        ((0, 1, 0, "y", 0, -1), "no numbers"),
        (7, "is a int"),
    ],
)
def test_transform_refused(value, says):
    """B9: rotated, sheared, sizeless and senseless transforms are refused by name."""
    with pytest.raises(UsageError, match=f"(?s)transform=.*{says}"):
        georef.parse_transform(value)


def test_crs_forms():
    """B2, B7: number, text, WKT and objects give the same CRS; kinds are told apart."""
    from rasterio.crs import CRS

    by_number = georef.parse_crs(32633)
    assert by_number is not None
    assert (by_number.epsg, by_number.kind) == (32633, "projected")
    assert by_number.text.startswith("PROJCS[")
    assert georef.parse_crs("epsg:32633") == by_number
    assert georef.parse_crs(np.int64(32633)) == by_number
    assert georef.parse_crs(CRS.from_epsg(4326)).kind == "geographic"
    assert georef.parse_crs(CRS.from_epsg(32633)).epsg == 32633
    assert georef.parse_crs(UTM).epsg is None
    assert georef.parse_crs(4979).kind == "other"
    assert georef.parse_crs(None) is None


@pytest.mark.parametrize("value", [True, np.True_, 999999, "EPSG:99", "nonsense", 3.5, "", -1])
def test_crs_refused(value):
    """B9, A8: a bool and what can't be resolved are refused."""
    with pytest.raises(UsageError, match="crs="):
        georef.parse_crs(value)


def test_crs_without_pyproj(monkeypatch):
    """Without pyproj the common codes and WKT work, and the rest is refused with the way out."""
    monkeypatch.setitem(sys.modules, "pyproj", None)
    assert georef.parse_crs(4326) == georef.Crs("EPSG:4326", 4326, "geographic")
    assert georef.parse_crs("EPSG:32733") == georef.Crs("EPSG:32733", 32733, "projected")
    assert georef.parse_crs(UTM) == georef.Crs(UTM, None, "projected")
    named = UTM[:-1] + ',AUTHORITY["EPSG","12345"]]'
    assert georef.parse_crs(named).epsg == 12345
    for bad in (5514, "+proj=laea", 'PROJCS["x"'):
        with pytest.raises(UsageError, match="pyproj"):
            georef.parse_crs(bad)


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [
        (2**64 - 1, "u8", 2**64 - 1),
        (2**63 - 1, "i8", 2**63 - 1),
        (-(2**63), "i8", -(2**63)),
        (255.0, "u1", 255),
        (np.int16(-9999), "i2", -9999),
        (0.1, "f4", float(np.float32(0.1))),
        (-9999, "f8", -9999.0),
        (np.float32(1.5), "c8", 1.5),
        (np.array(3), "u1", 3),
        (-math.inf, "f4", -math.inf),
    ],
)
def test_nodata_kept(value, dtype, wanted):
    """B8: nodata is the value that pixels hold; 64-bit maxima survive exactly."""
    got = georef.parse_nodata(value, np.dtype(dtype))
    assert got == wanted
    assert type(got) is type(wanted)


def test_nodata_nan():
    """B8: NaN is a nodata value of floats."""
    assert math.isnan(georef.parse_nodata(math.nan, np.dtype("f4")))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(True, "u1"), ("0", "u1"), (256, "u1"), (-1, "u8"), (0.5, "i4"), (math.nan, "i4"), (1e300, "f4"),
     (1j, "c8"), ([0], "u1")],
)  # fmt: skip
def test_nodata_refused(value, dtype):
    """B9: bool, text and numbers that the pixels can't hold are refused."""
    with pytest.raises(UsageError, match="nodata="):
        georef.parse_nodata(value, np.dtype(dtype))


@pytest.mark.parametrize("value", ["pixel", 1, True])
def test_raster_type_refused(value):
    """B9: only area and point are known."""
    with pytest.raises(UsageError, match="raster_type="):
        georef.parse_raster_type(value)


@pytest.mark.parametrize(
    "value", [0.1, -9999.0, 1e300, -3.4028234663852886e38, 5e6, 1 / 3, 2**64 - 1]
)
def test_number_text_reads_back(value):
    """B2: numbers in the index read back equal."""
    assert type(value)(georef.number_text(value)) == value
