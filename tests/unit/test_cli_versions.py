"""Commands for versions in this process: what they print, as text and as JSON, and their exit codes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from fstx.cli import main
from fstx.cli.arguments import pairs
from fstx.cli.versions import kept, seconds
from fstx.errors import UsageError


def _main(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    told = capsys.readouterr()
    return code, told.out, told.err


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, out, err = _main(capsys, *argv, "--json")
    told: dict[str, Any] = json.loads(out)
    assert told["ok"] == (code == 0), err
    return told


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A dataset of three versions."""
    place = f"tx::{tmp_path / 'ds'}"
    for i in range(3):
        with fstx.begin(place) as tx:
            tx.stage("a.bin", bytes([i]) * 5000)
            tx.stage(f"d/{i}.bin", b"x" * 3000)
    return place


def test_log_lists_versions(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects `log`: newest first, limited on demand, the same as JSON."""
    code, out, err = _main(capsys, "log", url)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["version", "3", "2", "1"]
    told = _json(capsys, "log", url, "-n", "2")
    assert [row["version"] for row in told["versions"]] == [3, 2]
    first = told["versions"][0]
    assert (first["paths"], first["size_bytes"], first["kind"]) == (2, 8000, "commit")
    assert first["when"].endswith("+00:00")


def test_ls_lists_one_version(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects `ls`: names, sizes, one directory or all below, of any version."""
    assert _main(capsys, "ls", url)[1] == "a.bin\nd/\n"
    assert _main(capsys, "ls", f"{url}/d")[1] == "0.bin\n1.bin\n2.bin\n"
    assert _main(capsys, "ls", f"{url}/d", "--version", "1")[1] == "0.bin\n"
    assert _main(capsys, "ls", f"{url}/a.bin")[1] == "a.bin\n"
    assert _main(capsys, "ls", url, "-lr", "--version", "1")[1] == (
        "    5.0 kB  a.bin\n    3.0 kB  d/0.bin\n"
    )
    told = _json(capsys, "ls", url)
    assert told["version"] == 3
    assert told["entries"] == [
        {"path": "a.bin", "kind": "file", "size_bytes": 5000},
        {"path": "d", "kind": "directory", "size_bytes": None},
    ]


def test_verify_finds_damage(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects `verify`: 0 and one line where all is well, 4 and each problem where not."""
    code, out, _ = _main(capsys, "verify", url, "--data")
    assert (code, out.count("\n")) == (0, 1)
    assert "3 versions" in out
    victim = next((tmp_path / "ds/.fstx/data").rglob("a.bin~*"))
    victim.write_bytes(b"0" * 5000)
    assert _main(capsys, "verify", url)[0] == 0
    code, out, _ = _main(capsys, "verify", url, "--data")
    assert code == 4
    assert victim.name in out
    victim.unlink()
    told = _json(capsys, "verify", url)
    assert told["problems"][0]["what"] == "is missing"
    assert told["problems"][0]["needed_by"] == "a.bin"


def test_collect_plans_first(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects data: nothing goes without --yes, then what was told."""
    code, out, _ = _main(capsys, "collect", url, "--keep", "1")
    assert code == 0
    assert "2 versions would be retired: 1, 2" in out
    assert "--yes does it" in out
    assert len(_json(capsys, "log", url)["versions"]) == 3
    plan = _json(capsys, "collect", url, "--keep", "1")
    done = _json(capsys, "collect", url, "--keep", "1", "--yes")
    assert plan["dry_run"] != done["dry_run"]
    assert (plan["data"], plan["size_bytes"]) == (done["data"], done["size_bytes"]) == (2, 10000)
    assert [row["version"] for row in _json(capsys, "log", url)["versions"]] == [3]
    assert _main(capsys, "verify", url, "--data")[0] == 0
    assert "--yes" not in _main(capsys, "collect", url)[1]


def test_restore_brings_a_version_back(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects `restore`: a new version with the old content and a message."""
    code, out, _ = _main(capsys, "restore", url, "1", "-m", "back")
    assert code == 0
    assert "version 4 is what version 1 was" in out
    assert _main(capsys, "ls", f"{url}/d")[1] == "0.bin\n"
    assert "back" in _main(capsys, "log", url)[1]
    assert _json(capsys, "restore", url, "3")["version"] == 5


@pytest.mark.parametrize(
    "argv",
    [
        ["ls", "--version", "9"],
        ["restore", "9"],
        ["collect", "--keep", "0"],
        ["collect", "--keep", "many"],
        ["collect", "--keep", "versions:7"],
        ["collect", "--older-than", "1"],
        ["log", "-n", "-1"],
        ["log", "-o", "novalue"],
        ["log", "-o", "nonsense=1"],
    ],
)
def test_bad_calls_are_2(argv: list[str], url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects against half-understood calls: exit code 2, one line, nothing changed."""
    code, out, err = _main(capsys, argv[0], url, *argv[1:])
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert len(_json(capsys, "log", url)["versions"]) == 3


def test_no_dataset_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects against a mistyped place: each command says that nothing is there."""
    for command in ("log", "ls", "verify", "collect"):
        code, out, err = _main(capsys, command, f"tx::{tmp_path}/none")
        assert (code, out) == (2, "")
        assert "no dataset" in err
    assert not list(tmp_path.iterdir())
    assert _main(capsys, "ls", f"tx::{tmp_path}/none", "--json")[1].count("\n") == 1


def test_a_path_that_is_not_there_is_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects `ls` from an empty answer for a path that no version has."""
    code, _, err = _main(capsys, "ls", f"{url}/nothing")
    assert code == 2
    assert "no such path in version 3" in err


def test_the_other_commands_take_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects `write`, `guarantee`, `recover` and `outcome` on tx:: URLs."""
    np.save(tmp_path / "a.npy", np.arange(64.0).reshape(8, 8))
    url = f"tx::{tmp_path / 'cube.zarr'}"
    code, out, err = _main(
        capsys, "write", str(tmp_path / "a.npy"), url, "--chunks", "4", "--id", "job", "--json"
    )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["strategy"] == "manifest"
    assert "SNAPSHOTS" in told["capabilities"]
    code, out, _ = _main(capsys, "write", str(tmp_path / "a.npy"), url, "--id", "job")
    assert "committed before" in out
    assert _main(capsys, "outcome", url, "job")[1] == "committed\n"
    assert _main(capsys, "outcome", url, told["txid"])[1] in ("committed\n", "unknown\n")
    assert "SNAPSHOTS" in _main(capsys, "guarantee", url)[1]
    assert _main(capsys, "recover", url)[0] == 0
    assert _main(capsys, "ls", url)[1] == "c/\nzarr.json\n"
    assert len(_json(capsys, "log", url)["versions"]) == 1


def test_storage_options_are_nested_and_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects credentials: they reach the storage, and no output shows them, not with --debug either."""
    seen: dict[str, Any] = {}

    def failing(url: str, *ids: str, **options: Any) -> Any:
        seen.update(options)
        raise OSError(f"no connection with {options['key']} to {options['client']['password']}")

    monkeypatch.setattr(fstx, "dataset", failing)
    monkeypatch.setattr(fstx, "guarantee", failing)
    monkeypatch.setattr(fstx, "recover", failing)
    monkeypatch.setattr(fstx, "outcome", failing)
    given = ["-o", "key=AKIAVERYSECRET", "-o", 'client={"password": "hunter2hunter2", "port": 9}']
    for argv in (
        ["log"],
        ["ls"],
        ["verify"],
        ["collect"],
        ["guarantee"],
        ["recover"],
        ["outcome", "job"],
    ):
        for more in ([], ["--debug"], ["--json"]):
            call = [argv[0], "s3://bucket/x", *argv[1:], *given, *more]
            code, out, err = _main(capsys, *call)
            assert code == 1
            assert "no connection with ***" in err
            assert "SECRET" not in out + err
            assert "hunter2" not in out + err
    assert seen["key"] == "AKIAVERYSECRET"
    assert seen["client"] == {"password": "hunter2hunter2", "port": 9}
    assert "AKIA" not in _main(capsys, "log", "s3://b/x", "-o", "AKIAVERYSECRET")[2]


def test_write_takes_storage_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects `write -s`: options of the storage and of the layout stay apart; secrets stay secret."""
    np.save(tmp_path / "a.npy", np.zeros(4))
    seen: dict[str, Any] = {}

    def failing(array: Any, url: str, **given: Any) -> Any:
        seen.update(given)
        raise OSError(f"refused: {given['storage_options']['secret']}")

    monkeypatch.setattr(fstx, "write", failing)
    code, out, err = _main(
        capsys,
        *("write", str(tmp_path / "a.npy"), f"tx::{tmp_path}/b.zarr"),
        *("-s", "secret=verysecretvalue", "-o", "fill_value=1"),
    )
    assert code == 1
    assert "verysecret" not in out + err
    assert seen["storage_options"] == {"secret": "verysecretvalue"}
    assert seen["fill_value"] == 1


def test_texts_become_times_and_versions() -> None:
    """Protects the words of --keep and --older-than."""
    assert [seconds("-", t) for t in ("90s", "2min", "1.5h", "1d", "1w")] == [
        90,
        120,
        5400,
        86400,
        604800,
    ]
    assert kept(None) is None
    assert kept("5") == 5
    assert kept("7d") == timedelta(days=7)
    assert kept("versions:3,8") == [3, 8]
    for wrong in ("x", "5x", "versions:", "-1"):
        with pytest.raises(UsageError, match="--keep"):
            kept(wrong)
    assert pairs(["a-b=1", "c=x", 'd={"e": [1]}']) == {"a_b": 1, "c": "x", "d": {"e": [1]}}
