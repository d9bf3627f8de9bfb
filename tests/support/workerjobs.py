"""Jobs for tests with real processes: a coordinator that may be killed, and workers that outlive it."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fstx
from fstx.types import StagedObject

UNITS, WORKERS, WAIT_S = 12, 4, 60.0
JOB: dict[str, Any] = {"id": "the job", "fingerprint": {"units": UNITS}}
TESTS = str(Path(__file__).parents[1])


def content(unit: int) -> bytes:
    """What a unit writes; some are larger than what is held back or inlined."""
    return f"unit {unit} ".encode() * (700 if unit % 2 else 3)


def wait_for(what: Callable[[], Any]) -> Any:
    """What a call gives once it is true; AssertionError after a minute."""
    end = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < end, "waited for in vain"
        time.sleep(0.005)
    return found


def put(path: Path, data: bytes) -> None:
    """A file that is whole when it is seen."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def work(mail: Any, name: int, folder: str) -> None:
    """Stage every fourth unit and hand in the receipts; stage again when told, and say what came of it."""
    place, stager = Path(folder), mail.recv()
    for unit in range(name, UNITS, WORKERS):
        receipt = stager.stage(f"u/{unit}", content(unit))
        put(place / f"{unit}.receipt", pickle.dumps(receipt))
    wait_for((place / "go on").exists)
    try:
        stager.stage(f"u/{name}", b"of a zombie" * 1000)
        said = "staged"
    except Exception as error:  # noqa: BLE001 - the test looks what it is
        said = f"{type(error).__name__}: {error}"
    put(place / f"{name}.end", said.encode())


def receipt_of(place: Path, unit: int) -> StagedObject:
    """The receipt that a worker handed in."""
    found = place / f"{unit}.receipt"
    wait_for(found.exists)
    receipt: StagedObject = pickle.loads(found.read_bytes())
    return receipt


def coordinate(url: str, folder: str, units: int, options: dict[str, Any]) -> None:
    """Begin, start workers, finish so many units (0: a plain transaction), say so, wait for the kill."""
    if "s3://" in url:
        importlib.import_module("s3fs")  # once, and not by each worker
    # Forked before anything is open: only pickled stagers go over.
    context = multiprocessing.get_context("fork")
    mails = []
    for name in range(WORKERS):
        mine, theirs = context.Pipe()
        context.Process(target=work, args=(theirs, name, folder)).start()
        mails.append(mine)
    tx: Any
    if units:
        tx = fstx.begin(url, resume="if_possible", **JOB, **options)
        stager = tx.unit_stager()
    else:
        tx = fstx.begin(url, **options)
        stager = tx.stager()
    for mail in mails:
        mail.send(stager)
    for unit in range(UNITS):
        receipt = receipt_of(Path(folder), unit)
        if not units:
            tx.adopt([receipt])
        elif unit < units:
            tx.finish(unit, [receipt], info={"rows": unit})
    print("finished", flush=True)
    time.sleep(WAIT_S)


def killed_coordinator(url: str, folder: Path, units: int, options: dict[str, Any]) -> None:
    """A coordinator in a process of its own, killed once it finished `units`; its workers live on."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.workerjobs import coordinate\n"
        "coordinate(sys.argv[2], sys.argv[3], int(sys.argv[4]), eval(sys.argv[5]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, TESTS, url, str(folder), str(units), repr(options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "finished\n"
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def ends(folder: Path) -> list[str]:
    """Lets the workers go on; what became of each."""
    put(folder / "go on", b"")
    files = [folder / f"{name}.end" for name in range(WORKERS)]
    wait_for(lambda: all(f.exists() for f in files))
    return [f.read_text() for f in files]
