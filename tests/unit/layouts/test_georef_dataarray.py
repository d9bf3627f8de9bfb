"""What a labelled array tells of itself (B4, B5, B8, B9, B17)."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from fstx.errors import UsageError
from fstx.layouts.dataarray import describe, is_labelled


def raster(y, x, dtype="f4", **attrs):
    """A DataArray with these coordinates."""
    return xr.DataArray(
        np.zeros((len(y), len(x)), dtype), coords={"y": y, "x": x}, dims=("y", "x"), attrs=attrs
    )


def test_centres_become_corners():
    """B4: coordinates are centres, the transform names the outer corner; ascending y stays so."""
    down = describe(raster([95.0, 85, 75], [5.0, 15, 25, 35]))
    assert down["transform"] == (0.0, 10.0, 0.0, 100.0, 0.0, -10.0)
    up = describe(raster([75.0, 85, 95], [35.0, 25, 15, 5]))
    assert up["transform"] == (40.0, -10.0, 0.0, 70.0, 0.0, 10.0)


def test_coordinates_win_over_stale_attributes():
    """A sliced array keeps the attributes of the whole: its coordinates say where it lies."""
    array = raster([95.0, 85, 75], [5.0, 15, 25], transform=(10, 0, 0, 0, -10, 100))
    assert describe(array[1:, 1:])["transform"] == (10.0, 10.0, 0.0, 90.0, 0.0, -10.0)


def test_attributes_without_coordinates():
    """An attribute is in rasterio's order."""
    array = xr.DataArray(
        np.zeros((3, 4)), dims=("y", "x"), attrs={"transform": (10, 0, 5, 0, -20, 7)}
    )
    assert describe(array)["transform"] == (5.0, 10.0, 0.0, 7.0, 0.0, -20.0)


def test_one_row_takes_its_size_from_attributes():
    """Upstream's 1xN cases: an axis of one element needs a stated pixel size, else it is refused."""
    array = raster([50.0], [5.0, 15.0])
    with pytest.raises(UsageError, match="'y' has one coordinate"):
        describe(array)
    array.attrs["transform"] = (10, 0, 0, 0, -20, 999)
    assert describe(array)["transform"] == (0.0, 10.0, 0.0, 60.0, 0.0, -20.0)


@pytest.mark.parametrize(
    "x", [[0.0, 1.0, 3.0], [1.0, 1.0, 1.0], [0.0, np.nan, 2.0], np.array(["a", "b", "c"])]
)
def test_uneven_coordinates_refused(x):
    """B9: uneven, constant, non-finite and non-numeric coordinates are refused by name."""
    with pytest.raises(UsageError, match="coordinates of 'x'"):
        describe(raster([0.0, 1.0], x))


def test_float32_coordinates_accepted():
    """Rounding of float32 longitudes is no unevenness."""
    x = (np.arange(3600) * 0.1 - 180).astype("f4")
    got = describe(raster([1.0, 0.0], x))["transform"]
    assert got[1] == pytest.approx(0.1, rel=1e-5)


def test_plain_array_tells_no_place():
    """B3: without coordinates there is no georeferencing, and a CRS alone is not passed on."""
    array = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"), attrs={"crs": 4326})
    assert describe(array) == {"dims": ("y", "x")}


def test_axes_by_name():
    """B17: bands are where rows and columns are not; a transposed array is refused by its axes."""
    assert (
        describe(xr.DataArray(np.zeros((5, 6, 7)), dims=("time", "y", "x")))["axis_order"] == "byx"
    )
    assert (
        describe(xr.DataArray(np.zeros((5, 6, 7)), dims=("lat", "lon", "c")))["axis_order"] == "yxb"
    )
    with pytest.raises(UsageError, match=r"transpose to \(\.\.\., 'y', 'x'\)"):
        describe(xr.DataArray(np.zeros((5, 6)), dims=("x", "y")))
    with pytest.raises(UsageError, match="a, b, c"):
        describe(xr.DataArray(np.zeros((5, 6, 7)), dims=("a", "b", "c")))


@pytest.mark.parametrize(
    ("attrs", "dtype", "wanted"),
    [
        ({"nodata": -1}, "i2", -1),
        ({"_FillValue": 2**64 - 1}, "u8", 2**64 - 1),
        ({"nodatavals": (-9999.0, -9999.0)}, "f4", -9999.0),
        ({"missing_value": 0, "nodata": 0}, "u1", 0),
        ({"nodatavals": (float("nan"),)}, "u1", None),
    ],
)
def test_nodata_aliases(attrs, dtype, wanted):
    """B8: all names of nodata mean the same."""
    assert describe(raster([1.0, 0], [0.0, 1], dtype, **attrs)).get("nodata") == wanted


def test_nodata_contradiction():
    """B8: aliases that disagree are refused naming both."""
    with pytest.raises(UsageError, match="nodata is 1, but _FillValue is 2"):
        describe(raster([1.0, 0], [0.0, 1], "i2", nodata=1, _FillValue=2))


def test_crs_from_grid_mapping():
    """rioxarray's spatial_ref coordinate gives the CRS, without rioxarray."""
    array = raster([1.0, 0], [0.0, 1])
    array = array.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": "WKT!"}))
    assert describe(array)["crs"] == "WKT!"
    assert describe(raster([1.0, 0], [0.0, 1], crs="EPSG:4326"))["crs"] == "EPSG:4326"


def test_rich_attributes():
    """B7: raster type, metadata, tags and resolution travel with the array."""
    attrs = {
        "AREA_OR_POINT": "Point",
        "gdal_metadata": {"a": "b"},
        "x_resolution": 72,
        "y_resolution": 72,
    }
    got = describe(raster([1.0, 0], [0.0, 1], **attrs))
    assert got["raster_type"] == "point"
    assert got["gdal_metadata"] == {"a": "b"}
    assert got["resolution"] == (72, 72, None)


def test_is_labelled():
    """Plain arrays are not taken for labelled ones."""
    assert is_labelled(raster([1.0, 0], [0.0, 1]))
    assert not is_labelled(np.zeros((2, 2)))
