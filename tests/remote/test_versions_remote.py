"""Versions on real object stores: pins, collection and verification, also with lost answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import fstx
from fstx.backends.manifest.dataset import forget
from fstx.backends.manifest.names import DATA
from fstx.cli import main
from fstx.errors import TransactionError
from fstx.stores.opening import open_store
from fstx_conformance.seams.proxy.control import FaultProxy, Rule
from support.emulators import Place


def put(place: Place, files: dict[str, bytes]) -> None:
    with fstx.begin(f"tx::{place.url}/ds", **place.options) as tx:
        for path, data in files.items():
            tx.stage(path, data)


def dataset(place: Place) -> fstx.VersionedDataset:
    forget()  # as another process
    return fstx.dataset(f"tx::{place.url}/ds", **place.options)


def objects(place: Place) -> set[str]:
    store = open_store(f"{place.url}/ds/.fstx", **place.options)
    return {info.key for info in store.list(DATA)}


def content(snapshot: fstx.OpenSnapshot) -> dict[str, bytes]:
    return {path: snapshot.read(path) for path in snapshot.paths()}


def test_a_pinned_version_on_each_server(remote_place: Place) -> None:
    """Protects readers: 50 commits and collections go by, the pinned version reads on."""
    first = {f"p/{i}": bytes([i]) * 5000 for i in range(10)}
    put(remote_place, first)
    with dataset(remote_place).snapshot() as held:
        for i in range(50):
            put(remote_place, {f"p/{i % 10}": bytes([i]) * 6000})
        done = dataset(remote_place).collect(keep=1, dry_run=False)
        assert len(done.data) == 40
        assert content(held) == first
    dataset(remote_place).collect(keep=1, dry_run=False)
    now = dataset(remote_place).snapshot()
    assert content(now) == {f"p/{i}": bytes([40 + i]) * 6000 for i in range(10)}
    assert objects(remote_place) == {entry.key for _, entry in now.items()}
    told = dataset(remote_place).verify(data=True)
    assert told.ok, str(told)
    assert told.objects == 10


def test_collections_with_lost_answers(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """Protects what is kept: answers to puts and deletions get lost, and nothing else does."""
    for i in range(6):
        put(s3_faulty, {"a": bytes([i]) * 5000, f"d/{i}": b"x" * 5000})
    for rule in (
        Rule("reset_after", method="PUT", path="/log/", times=1),
        Rule("status_after", code=503, method="PUT", path="/pin/", times=2),
        Rule("reset_after", method="POST", times=1),
        Rule("reset_before", method="POST", times=1),
        Rule("status", code=503, method="GET", path="/log/", times=3),
    ):
        fault_proxy.rules(rule)
        for _ in range(3):
            try:
                dataset(s3_faulty).collect(keep=2, dry_run=False)
                break
            except (TransactionError, OSError):
                continue
        fault_proxy.rules()
    handle = dataset(s3_faulty)
    handle.collect(keep=2, dry_run=False)
    assert len(handle.log()) == 2
    assert content(handle.snapshot()) == {
        "a": bytes([5]) * 5000,
        **{f"d/{i}": b"x" * 5000 for i in range(6)},
    }
    assert len(objects(s3_faulty)) == 8
    assert handle.verify(data=True).ok


def test_collections_beside_writers(remote_place: Place) -> None:
    """Protects living writers: two write, one collects all the time; what was acknowledged is there."""
    put(remote_place, {"first": b"1" * 5000})
    until = time.monotonic() + 5
    failures: list[BaseException] = []
    written: list[str] = []

    def work(name: str) -> None:
        try:
            for n in range(1000):
                if time.monotonic() > until:
                    return
                if name == "collect":
                    handle = fstx.dataset(f"tx::{remote_place.url}/ds", **remote_place.options)
                    handle.collect(keep=1, dry_run=False)
                    continue
                put(
                    remote_place,
                    {f"{name}/{n}": b"x" * 5000, f"{name}/last": str(n).encode() * 2000},
                )
                written.append(f"{name}/{n}")
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("p", "q", "collect")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = content(dataset(remote_place).snapshot())
    assert set(written) <= set(found)
    dataset(remote_place).collect(keep=1, older_than_s=0, dry_run=False)
    assert dataset(remote_place).verify(data=True).ok


def test_commands_on_s3(s3: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the command line on object stores: nested options reach them, no credential is printed."""
    import json

    put(s3, {"a": b"1" * 5000})
    put(s3, {"a": b"2" * 5000})
    url = f"tx::{s3.url}/ds"
    options: list[str] = []
    for name, value in s3.options.items():
        options += ["-o", f"{name}={json.dumps(value)}"]
    secrets = [v for k, v in s3.options.items() if k in ("key", "secret") and len(str(v)) >= 6]
    for argv in (
        ["log"],
        ["ls", "-l"],
        ["verify", "--data"],
        ["collect", "--keep", "1"],
        ["collect", "--keep", "1", "--yes"],
        ["recover"],
        ["guarantee"],
        ["restore", "2"],
    ):
        code = main([argv[0], url, *argv[1:], *options])
        told: Any = capsys.readouterr()
        assert code == 0, told.err
        assert not [s for s in secrets if s in told.out + told.err]
