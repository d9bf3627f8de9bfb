"""The command line in this process: arguments, sources, reports, exit codes."""

from __future__ import annotations

import builtins
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import fstx
from fstx.cli import main
from fstx.cli.exits import exit_code, guarded, in_flags, sentence
from fstx.cli.readers import LAZY_FROM_BYTES, kind_of, opened
from fstx.cli.report import size_text

DATA = np.arange(60 * 80, dtype=np.int16).reshape(60, 80)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "a.npy"
    np.save(path, DATA)
    return str(path)


def _main(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_write_says_what_it_wrote(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects the main command: files are there, equal, and the report names them."""
    target = tmp_path / "out" / "b.zarr"
    code, out, err = _main(capsys, "write", source, str(target), "--chunks", "32,32")
    assert code == 0
    assert err == ""
    assert f"wrote 60 x 80 int16 to {target}/" in out
    assert re.search(r"7 files, .* kB, \d+\.\d\d s", out)
    assert "survives loss of power" in out
    assert np.array_equal(np.asarray(zarr.open_array(target, mode="r")), DATA)
    assert not list(tmp_path.rglob(".fstx"))


def test_write_json_is_one_object(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects scripts: standard output holds one JSON object and nothing else."""
    target = str(tmp_path / "b.npy")
    code, out, _ = _main(capsys, "write", source, target, "--json", "--durability", "none")
    told = json.loads(out)
    assert code == 0
    assert told["ok"]
    assert told["written"] == [target]
    assert told["shape"] == [60, 80]
    assert told["durability"] == "none"
    assert "DURABLE" not in told["capabilities"]
    assert {"ATOMIC_SET", "RECOVERABLE"} <= set(told["capabilities"])


def test_existing_target_is_3_and_stays(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects what is there: without --overwrite exit code 3, one line, the old content kept."""
    target = tmp_path / "b.npy"
    np.save(target, DATA + 1)
    code, out, err = _main(capsys, "write", source, str(target))
    assert code == 3
    assert out == ""
    assert err.count("\n") == 1
    assert "--overwrite" in err
    assert np.array_equal(np.load(target), DATA + 1)
    assert _main(capsys, "write", source, str(target), "--overwrite")[0] == 0
    assert np.array_equal(np.load(target), DATA)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--chunks", "a,b"], "--chunks"),
        (["--layout", "cog"], "--layout 'cog'"),
        (["--transform", "1,2"], "--transform"),
        (["--nodata", "x"], "--nodata"),
        (["--option", "novalue"], "--option"),
        (["--max-workers", "0"], "--max-workers"),
        (["--durability", "some"], "--durability 'some'"),
        (["--require", "MAGIC"], "MAGIC"),
        (["--require", "SNAPSHOTS"], "SNAPSHOTS"),
        (["--compression", "rar"], "rar"),
        (["--option", "nonsense=1"], "nonsense"),
        (["--name", "x"], "--name"),
    ],
)
def test_bad_arguments_are_2_and_named(
    arguments: list[str],
    named: str,
    source: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Protects against half-understood calls: exit code 2, the argument named, nothing written."""
    code, _, err = _main(capsys, "write", source, str(tmp_path / "b.zarr"), *arguments)
    assert code == 2
    assert named in err
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy"]


def test_error_as_json(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects scripts that read errors: the same code and message as JSON."""
    code, out, _ = _main(capsys, "write", source, str(tmp_path / "b.xyz"), "--json")
    told = json.loads(out)
    assert code == told["exit_code"] == 2
    assert not told["ok"]
    assert told["error"] == "UsageError"


def test_unknown_command_and_missing_argument_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the exit code of calls that can't be parsed."""
    assert _main(capsys, "nonsense")[0] == 2
    assert _main(capsys, "write")[0] == 2
    assert _main(capsys, "--version")[0] == 0


def test_absent_storage_is_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects users of object stores: a scheme without a backend is refused by name."""
    code, _, err = _main(capsys, "write", source, "swift://bucket/b.npy")
    assert code == 2
    assert "swift://" in err


def test_odd_targets_are_named(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects against odd URLs: empty, below a file, in a place that can't be made."""
    assert "URL is empty" in _main(capsys, "write", source, "")[2]
    code, _, err = _main(capsys, "write", source, source + "/b.npy")
    assert code == 2
    assert f"{source} is not a directory" in err
    assert _main(capsys, "write", source, "/proc/absent/b.npy")[0] == 1
    assert np.array_equal(np.load(source), DATA)
    code, out, _ = _main(capsys, "write", source, "memory://m/b.npy")
    assert (code, "gone with this process" in out) == (0, True)


def test_debug_shows_the_traceback(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects diagnosis: --debug adds the traceback, the last line stays."""
    code, _, err = _main(capsys, "write", source, str(tmp_path / "b.xyz"), "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("fstx: ")


def test_missing_extra_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects a plain install: without typer the command says what to install, and returns 2."""
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "fstx.cli.app":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["--version"]) == 2
    assert "pip install 'fstx[cli]'" in capsys.readouterr().err


def test_guarantee_recover_outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the three commands that only ask: they answer and leave nothing."""
    code, out, _ = _main(capsys, "guarantee", str(tmp_path / "b.vrt"))
    assert code == 0
    assert out.startswith(f"{tmp_path}/b.vrt: strategy ")
    assert re.search(r"yes +ATOMIC_SET", out)
    told = json.loads(_main(capsys, "guarantee", str(tmp_path / "b"), "--json")[1])
    assert told["mode"] == "update"
    assert {p["capability"] for p in told["promises"]} == {c.value for c in fstx.Capability}
    assert all(p["reason"] for p in told["promises"])
    code, out, _ = _main(capsys, "recover", str(tmp_path))
    assert (code, "nothing to recover" in out) == (0, True)
    assert _main(capsys, "outcome", str(tmp_path / "b"), "job-1")[:2] == (0, "unknown\n")
    assert list(tmp_path.iterdir()) == []


def test_id_is_done_once(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects retried jobs: the second run with an id does nothing and says so."""
    target = str(tmp_path / "b.npy")
    assert _main(capsys, "write", source, target, "--id", "job-1")[0] == 0
    code, out, _ = _main(capsys, "write", source, target, "--id", "job-1")
    assert code == 0
    assert "committed before" in out
    assert _main(capsys, "outcome", target, "job-1")[1] == "committed\n"


def test_npz_chooses_or_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects against the wrong array: the only raster is taken, of several one must be named."""
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    np.savez(one, values=DATA, version=np.array(3))
    np.savez(two, a=DATA, b=DATA + 1)
    with opened(str(one)) as loaded:
        assert np.array_equal(loaded.array, DATA)
    code, _, err = _main(capsys, "write", str(two), str(tmp_path / "o.npy"))
    assert code == 2
    assert "--name" in err
    assert "a (60, 80), b (60, 80)" in err
    with opened(str(two), "b") as loaded:
        assert np.array_equal(loaded.array, DATA + 1)


def test_npz_georeferencing(tmp_path: Path) -> None:
    """Protects where a raster lies: edges become a transform with the first row in the north."""
    path = tmp_path / "a.npz"
    np.savez(path, z=DATA, xmin=10.0, xmax=18.0, ymin=40.0, ymax=46.0)
    with opened(str(path)) as loaded:
        assert loaded.options["crs"] == "EPSG:4326"
        assert np.allclose(loaded.options["transform"], (10, 0.1, 0, 46, 0, -0.1))
        assert "EPSG:4326" in loaded.notes[0]
    np.savez(path, z=DATA, bounds=[4e5, 5e6, 4e5 + 800, 5e6 + 600], epsg=32633, nodata=-1)
    with opened(str(path)) as loaded:
        assert loaded.options == {
            "transform": (4e5, 10.0, 0.0, 5e6 + 600, 0.0, -10.0),
            "crs": 32633,
            "nodata": -1,
        }


def test_geotiff_keeps_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects CRS, transform and nodata from a tile through the command line into a new mosaic."""
    rasterio = pytest.importorskip("rasterio")
    first = tmp_path / "first.vrt"
    place = (500000.0, 30.0, 0.0, 4600000.0, 0.0, -30.0)
    fstx.write(DATA, first, crs="EPSG:32633", transform=place, nodata=-9, tile_size=80)
    tile = next((tmp_path / "first_tiles").rglob("*.tif"))
    second = tmp_path / "second.vrt"
    assert _main(capsys, "write", str(tile), str(second))[0] == 0
    with rasterio.open(second) as read:
        assert read.crs.to_epsg() == 32633
        assert read.transform.to_gdal() == place
        assert read.nodata == -9
        assert np.array_equal(read.read(1), DATA)


def test_unreadable_crs_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the way out that the message names: a GeoTIFF with a CRS of its own keys, written by --crs."""
    rasterio = pytest.importorskip("rasterio")
    own = "+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84 +units=m"
    place = {"transform": rasterio.Affine(100, 0, 5000, 0, -100, 9000), "crs": own}
    path = tmp_path / "own.tif"
    shape = {"height": 60, "width": 80, "count": 1, "dtype": "int16"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(DATA, 1)
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "a.vrt"))
    assert code == 2
    assert "crs" in err
    assert _main(capsys, "write", str(path), str(tmp_path / "a.vrt"), "--crs", own)[0] == 0
    with rasterio.open(tmp_path / "a.vrt") as read:
        assert read.transform == place["transform"]
        assert "Lambert" in read.crs.to_wkt()
        assert np.array_equal(read.read(1), DATA)


def test_large_tiff_is_read_by_blocks(tmp_path: Path) -> None:
    """Protects memory: a TIFF of 64 MB and more becomes a dask array, which reads equal."""
    path = tmp_path / "large.tif"
    values = np.arange(LAZY_FROM_BYTES // 2, dtype=np.uint16).reshape(-1, 4096)
    tifffile.imwrite(path, values, tile=(1024, 1024))
    with opened(str(path)) as loaded:
        assert hasattr(loaded.array, "dask")
        assert np.array_equal(loaded.array[1000:1100].compute(), values[1000:1100])


def test_npy_is_mapped_not_read(source: str, tmp_path: Path) -> None:
    """Protects memory: .npy is memory-mapped; one without values is read as well."""
    with opened(source) as loaded:
        assert isinstance(loaded.array, np.memmap)
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    with opened(str(tmp_path / "none.npy")) as loaded:
        assert loaded.array.shape == (0, 3)


def test_zarr_source_is_lazy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects memory and what the store says of itself: blocks by dask; attributes are kept."""
    first, second = tmp_path / "a.zarr", tmp_path / "b.zarr"
    fstx.write(DATA, first, chunks=(16, 16), attributes={"unit": "m"}, dimension_names=("y", "x"))
    with opened(str(first)) as loaded:
        assert hasattr(loaded.array, "dask")
    assert _main(capsys, "write", str(first), str(second))[0] == 0
    written = zarr.open_array(second, mode="r")
    assert dict(written.attrs) == {"unit": "m"}
    assert written.chunks == (16, 16)
    assert np.array_equal(np.asarray(written), DATA)


def test_zarr_group_asks_for_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects against the wrong array of a group."""
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    for name in ("u", "v"):
        group.create_array(name, data=DATA)
    code, _, err = _main(capsys, "write", str(tmp_path / "g.zarr"), str(tmp_path / "o.npy"))
    assert code == 2
    assert "u (60, 80), v (60, 80)" in err
    assert _main(
        capsys, "write", str(tmp_path / "g.zarr"), str(tmp_path / "o.npy"), "--name", "v"
    )[0] == 0  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "o.npy"), DATA)


def test_image_becomes_rows_columns_bands(tmp_path: Path) -> None:
    """Protects images: palettes are resolved, bands come last."""
    rgb = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(rgb).quantize(4).save(tmp_path / "p.png")
    with opened(str(tmp_path / "a.png")) as loaded:
        assert np.array_equal(loaded.array, rgb)
        assert loaded.options == {"axis_order": "yxb"}
    with opened(str(tmp_path / "p.png")) as loaded:
        assert loaded.array.shape == (20, 30, 3)


@pytest.mark.parametrize(
    "name", ["text.md", "cut.npy", "cut.npz", "cut.tif", "cut.png", "objects.npy"]
)
def test_damaged_sources_are_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects against tracebacks and half-read input: a source that can't be read is named."""
    path = tmp_path / name
    starts = {".md": b"words", ".npy": b"\x93NUMPY\x01\0v\0{", ".npz": b"PK\x03\x04abc"}
    starts |= {".tif": b"II*\0\x08\0\0\0", ".png": b"\x89PNG\r\n\x1a\n"}
    path.write_bytes(starts[path.suffix])
    if name == "objects.npy":
        np.save(path, np.array([{}], dtype=object))
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "o.npy"))
    assert code == 2, err
    assert str(path) in err
    assert not (tmp_path / "o.npy").exists()


def test_kinds_are_told_by_content(tmp_path: Path, source: str) -> None:
    """Protects files with odd suffixes; directories and URLs that can't be sources are refused."""
    odd = tmp_path / "array.bin"
    odd.write_bytes(Path(source).read_bytes())
    assert kind_of(str(odd)) == "npy"
    assert kind_of("memory://x.zarr") == "zarr"
    for wrong in (str(tmp_path), str(tmp_path / "absent"), "https://host/a.tif"):
        with pytest.raises(fstx.UsageError, match="SRC"):
            kind_of(wrong)


def test_exit_codes_by_what_to_do_next() -> None:
    """Protects the documented exit codes: each error has the one of its kind."""
    assert exit_code(fstx.CapabilityError("x")) == 2
    assert exit_code(fstx.ConflictError("x")) == exit_code(fstx.TargetBusyError("x")) == 3
    assert exit_code(fstx.InDoubtError("x")) == exit_code(fstx.RecoveryError("x")) == 4
    assert exit_code(fstx.StorageError("x")) == exit_code(fstx.FencedError("x")) == 1
    assert exit_code(ValueError("x")) == 1
    assert exit_code(KeyboardInterrupt()) == 130
    error = ValueError("a\nb")
    error.add_note("while writing t")
    assert sentence(error).startswith("ValueError: a b; while writing t; nothing was published")


def test_sizes_are_readable() -> None:
    """Protects the report: units change where they should."""
    texts = [size_text(n) for n in (0, 999, 1000, 999_949, 999_950, 1_500_000, 2_000_000_000)]
    assert texts == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 MB", "2.0 GB"]


@pytest.mark.parametrize("suffix", ["vrt", "zarr"])
def test_strips_become_square_blocks(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects against one file per strip: a large striped TIFF is written in blocks of 1024 x 1024."""
    monkeypatch.setattr("fstx.cli.tiff.LAZY_FROM_BYTES", 1)
    path, target = tmp_path / "s.tif", tmp_path / f"o.{suffix}"
    values = np.arange(1100 * 1200, dtype=np.uint32).reshape(1100, 1200)
    tifffile.imwrite(path, values, rowsperstrip=3, compression="zlib")
    with opened(str(path)) as loaded:
        assert loaded.array.chunks == ((1024, 76), (1024, 176))
    assert _main(capsys, "write", str(path), str(target))[0] == 0
    if suffix == "vrt":
        assert len(list((tmp_path / "o_tiles").rglob("*.tif"))) == 4
        tile = tifffile.imread(tmp_path / "o_tiles" / "tile_01_01.tif")
        assert np.array_equal(tile, values[1024:, 1024:])
    else:
        written = zarr.open_array(target, mode="r")
        assert written.chunks == (1024, 1024)
        assert np.array_equal(np.asarray(written), values)


def test_blocks_keep_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects colours: bands of a large TIFF stay together, planes stay apart, and values equal."""
    monkeypatch.setattr("fstx.cli.tiff.LAZY_FROM_BYTES", 1)
    values = np.random.default_rng(2).integers(0, 255, (40, 1030, 3), dtype=np.uint8)
    for planar, data in (("contig", values), ("separate", np.moveaxis(values, -1, 0))):
        path = tmp_path / f"{planar}.tif"
        tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar, rowsperstrip=7)
        with opened(str(path)) as loaded:
            assert loaded.array.shape == data.shape
            assert np.array_equal(loaded.array.compute(), data)


def test_what_zarr_says_and_is_lost_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects against silent loss: attributes, fill value and names without a place are in one note."""
    first, plain = tmp_path / "a.zarr", tmp_path / "p.zarr"
    says = {"attributes": {"unit": "m"}, "fill_value": -9, "dimension_names": ("y", "x")}
    fstx.write(DATA, first, chunks=(16, 16), **says)
    fstx.write(DATA, plain, chunks=(16, 16))
    for suffix in ("vrt", "npy"):
        code, _, err = _main(capsys, "write", str(first), str(tmp_path / f"o.{suffix}"))
        assert code == 0
        assert f"no place for attributes, fill value, dimension names of {first}" in err
    code, _, err = _main(capsys, "write", str(plain), str(tmp_path / "p.npy"))
    assert (code, err) == (0, "")


def test_palette_of_a_tiff_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects against silent loss: the numbers of a palette TIFF are kept, the loss of colours is said."""
    path = tmp_path / "p.tif"
    values = (DATA % 7).astype(np.uint8)
    colours = np.random.default_rng(3).integers(0, 65535, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, values, photometric="palette", colormap=colours)
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "o.npy"))
    assert code == 0
    assert "colour table" in err
    assert np.array_equal(np.load(tmp_path / "o.npy"), values)


def _placed_tiff(path: Path, *tags: tuple[int, int, int, tuple[float, ...], bool]) -> bytes:
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
    tifffile.imwrite(path, DATA, extratags=[*tags, (34735, 3, len(keys), keys, True)])
    return path.read_bytes()


UPRIGHT = ((33550, 12, 3, (30.0, 30.0, 0.0), True), (33922, 12, 6, (0, 0, 0, 5e5, 4e6, 0), True))
ROTATED = (34264, 12, 16, (7, 7, 0, 5e5, 7, -7, 0, 4e6, *[0] * 7, 1), True)


@pytest.mark.parametrize("code", [33550, 33922, 34735])
def test_unreadable_place_is_2(
    code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects against rasters that lose their place: a geo tag that can't be read is an error, one line."""
    path = tmp_path / "d.tif"
    whole = bytearray(_placed_tiff(path, *UPRIGHT))
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.tags[code].offset + 8
    whole[at : at + 4] = (10**8).to_bytes(4, "little")
    path.write_bytes(whole)
    for suffix in ("vrt", "npy"):
        done, out, err = _main(capsys, "write", str(path), str(tmp_path / f"o.{suffix}"))
        assert (done, out) == (2, "")
        assert err.count("\n") == 1
        assert f"tag {code}" in err
    given = ("--transform", "0,1,0,0,0,-1", "--crs", "EPSG:32633")
    assert _main(capsys, "write", str(path), str(tmp_path / "o.vrt"), *given)[0] == 0


def test_pixels_cut_off_are_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Protects against half a raster: a TIFF without its last pixels is an error, in one line, no log."""
    path = tmp_path / "c.tif"
    tifffile.imwrite(path, DATA)
    path.write_bytes(path.read_bytes()[:-100])
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "o.npy"))
    assert code == 2
    assert f"SRC {path}" in err
    assert err.count("\n") == 1
    assert not caplog.records


def test_rotated_tiff_has_ways_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects rotated rasters: refused by name as a mosaic, copied where no place is kept, or overridden."""
    path = tmp_path / "r.tif"
    _placed_tiff(path, ROTATED)
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "a.vrt"))
    assert code == 2
    assert "rotated" in err
    assert "--transform" in err
    for target in ("a.npy", "a.zarr"):
        code, _, err = _main(capsys, "write", str(path), str(tmp_path / target))
        assert code == 0, err
        assert "rotated" in err
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "b.vrt"), "--crs", "none")
    assert code == 0, err
    assert "rotated" in err
    for n, place in enumerate(("0,1,0,0,0,-1", "none")):
        target = str(tmp_path / f"c{n}.vrt")
        code, _, err = _main(capsys, "write", str(path), target, "--transform", place)
        assert code == 0, err
        assert ("GeoTransform" in Path(target).read_text()) == (place != "none")
        assert ("32633" in Path(target).read_text()) == (place != "none")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"crs": np.array(["EPSG:4326", "EPSG:3857"])}, "'crs' has 2 elements"),
        ({"crs": np.array(b"\xff\xfe")}, "'crs' is b"),
        ({"epsg": np.array(1.5)}, "'epsg' is 1.5"),
        ({"crs": np.array("no such")}, "'crs' of SRC"),
        ({"transform": np.array(list("abcdef"))}, "'transform' holds"),
    ],
)
def test_npz_keys_are_named(
    keys: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects who must mend an .npz: file and key are named, exit code 2; --crs overrides a bad CRS."""
    path, target = tmp_path / "a.npz", str(tmp_path / "o.vrt")
    place = {"transform": (5e5, 30.0, 0, 4e6, 0, -30.0)}
    np.savez(path, z=DATA, **(place | keys))
    code, _, err = _main(capsys, "write", str(path), target)
    assert code == 2
    assert named in err
    assert str(path) in err
    if "transform" not in keys:
        assert _main(capsys, "write", str(path), target, "--crs", "EPSG:32633")[0] == 0


def test_npz_bytes_vectors_and_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects .npz of other programs: a CRS in bytes, a small raster beside a vector, an empty file."""
    path = tmp_path / "a.npz"
    place = (5e5, 30.0, 0, 4e6, 0, -30.0)
    np.savez(path, z=DATA[:3, :4], x=np.arange(99), transform=place, crs=b"EPSG:32633")
    with opened(str(path)) as loaded:
        assert loaded.array.shape == (3, 4)
        assert loaded.options["crs"] == "EPSG:32633"
    np.savez(path)
    code, _, err = _main(capsys, "write", str(path), str(tmp_path / "o.npy"))
    assert code == 2
    assert f"SRC {path} holds no array" in err


def test_missing_scheme_of_a_source_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects newcomers: a source on storage whose package is missing says what to install."""

    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(zarr, "open", absent)
    code, _, err = _main(capsys, "write", "s3://b/x.zarr", str(tmp_path / "q.zarr"))
    assert code == 2
    assert "pip install 'fsspec[s3]'" in err


def test_nested_groups_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects nested Zarr groups: arrays below groups are listed and chosen by their path."""
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("u", data=DATA)
    group.create_group("low").create_array("v", data=DATA + 1)
    source, target = str(tmp_path / "g.zarr"), str(tmp_path / "o.npy")
    code, _, err = _main(capsys, "write", source, target)
    assert code == 2
    assert "low/v (60, 80), u (60, 80)" in err
    assert _main(capsys, "write", source, target, "--name", "low/v")[0] == 0
    assert np.array_equal(np.load(target), DATA + 1)


def test_messages_speak_the_command_line() -> None:
    """Protects messages: keywords of the library become options, words in paths stay."""
    assert in_flags("crs= without transform=: pass") == "--crs without --transform: pass"
    assert (
        in_flags("x exists (use mode='replace' or overwrite=True)") == "x exists (use --overwrite)"
    )
    assert (
        in_flags("SRC level=3/a.tif or /d/crs=4/b is gone")
        == "SRC level=3/a.tif or /d/crs=4/b is gone"
    )


@pytest.mark.parametrize(("leaves", "code"), [(False, 130), (True, 4)])
def test_interrupt_is_honest(
    leaves: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects Ctrl-C during rollback: 130 only where nothing is left, else 4 and the way out."""
    place = str(tmp_path / "a.vrt")
    (tmp_path / ".fstx" / "another").mkdir(parents=True)

    def work() -> int:
        if leaves:
            (tmp_path / ".fstx" / "mine").mkdir()
        raise KeyboardInterrupt

    heard = signal.getsignal(signal.SIGINT)
    try:
        assert guarded(work, as_json=False, debug=False, place=place) == code
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, heard)
    err = capsys.readouterr().err
    assert (f"fstx recover {place}" in err) == leaves
    assert ("nothing is left" in err) == (not leaves)


def test_interrupt_while_loading_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects an early Ctrl-C: no traceback while modules are loaded."""
    found = builtins.__import__

    def broken(name: str, *rest: Any, **more: Any) -> Any:
        if name == "fstx.cli.app":
            raise KeyboardInterrupt
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "fstx: interrupted: nothing was begun\n"


@pytest.mark.parametrize(("leaves", "code"), [(False, 130), (True, 4)])
def test_second_interrupt_is_honest(
    leaves: bool,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects impatient people: a Ctrl-C that comes while the first one is told hides nothing."""
    place = tmp_path / "a.vrt"

    def work(*_: Any, **__: Any) -> Any:
        if leaves:
            (tmp_path / ".fstx" / "mine").mkdir(parents=True)
        raise KeyboardInterrupt

    def told(_error: BaseException) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(fstx, "write", work)
    monkeypatch.setattr("fstx.cli.exits.exit_code", told)
    np.save(tmp_path / "a.npy", DATA)
    assert main(["write", str(tmp_path / "a.npy"), str(place)]) == code
    err = capsys.readouterr().err
    assert err.startswith("fstx: interrupted")
    assert (f"fstx recover {place}" in err) == leaves
    assert "nothing was begun" not in err


def test_interrupt_in_a_finalizer_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    """Protects Ctrl-C at any moment: Python drops one that lands in a finalizer; the command does not."""
    met: list[str] = []

    class Finalized:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def run(_argv: object) -> int:
        with pytest.raises(KeyboardInterrupt):
            Finalized()
            time.sleep(0.1)
        met.append("heard")
        return 7

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fstx.cli.app.run", run)
        assert main([]) == 7
    assert met == ["heard"]
    assert capsys.readouterr().err == ""


def test_demo_help_says_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the same words in README and help."""
    assert "less than 15 seconds" in _main(capsys, "demo", "--help")[1].lower()
