"""The command line in this process: arguments, sources, reports, exit codes."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import fstx
from fstx.cli import main
from fstx.cli.exits import exit_code, sentence
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
        (["--layout", "cog"], "layout='cog'"),
        (["--transform", "1,2"], "--transform"),
        (["--nodata", "x"], "--nodata"),
        (["--option", "novalue"], "--option"),
        (["--max-workers", "0"], "max_workers"),
        (["--durability", "some"], "durability='some'"),
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
    code, _, err = _main(capsys, "write", source, "s3://bucket/b.npy")
    assert code == 2
    assert "s3://" in err


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
