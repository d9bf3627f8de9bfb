"""Processes that share a cache: run as ``python cachejobs.py JOB PLACE ...`` by tests that race or kill them.

Children are forked from one process that has imported everything, so that hundreds start within a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import fstx

VALUES = [np.random.default_rng(number).random(2000 + 37 * number) for number in range(50)]


def note(place: str, line: str) -> None:
    """One line to the notes of all processes."""
    fd = os.open(f"{place}.notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def notes(place: str) -> list[str]:
    """All lines."""
    with open(f"{place}.notes", encoding="ascii") as file:
        return file.read().split("\n")[:-1]


def ask(cache: fstx.Cache, place: str, number: int) -> None:
    """One value, computed where it is missing, and compared."""

    def compute() -> Any:
        note(place, f"computed {number}")
        time.sleep(0.001)  # others come meanwhile
        return VALUES[number]

    found = cache.get_or_compute(("null", number), compute)
    assert (found == VALUES[number]).all()


def run(count: int, job: Callable[[int, Any], None]) -> None:
    """`count` forked processes at once; all have to end well."""
    warm = fstx.cache(f"{sys.argv[2]}.warm")  # imports what a cache needs, once for all
    assert warm.get_or_compute("a", lambda: VALUES[0]) is VALUES[0] is not warm.get("a")
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(count)
    processes = [fork.Process(target=job, args=(n, gate)) for n in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * count


def crowd(place: str, count: str, keys: str) -> None:
    """Many processes, each asks for all keys in an order of its own."""

    def job(number: int, gate: Any) -> None:
        cache = fstx.cache(place)
        order = list(range(int(keys)))
        random.Random(number).shuffle(order)
        gate.wait()
        for key in order:
            ask(cache, place, key)

    run(int(count), job)


def rounds(place: str, count: str, turns: str) -> None:
    """In each round all ask for one missing key, and all put another one, first and last."""

    def job(number: int, gate: Any) -> None:
        cache = fstx.cache(place)
        for turn in range(int(turns)):
            gate.wait()
            ask(cache, place, turn)
            if cache.put(("first", turn), b"%d" % number, if_absent=True):
                note(place, f"first {turn}")
            cache.put(("last", turn), b"%d" % number * 1000)

    run(int(count), job)


def churn(place: str, values: str) -> None:
    """One replaces a value all the time, by ones of other sizes, until each of two readers has seen enough of
    them, without looking at checksums."""

    def length(turn: int) -> int:
        return turn * 7919 % 30_000 + 1

    def job(number: int, gate: Any) -> None:
        cache = fstx.cache(place, verify="never")
        cache.put("a", np.zeros(1, int))
        gate.wait()
        turn, seen = 0, set()
        while number == 0 and len(notes(place)) < 2:
            turn += 1
            cache.put("a", np.full(length(turn), turn))
        while number > 0 and len(seen) < int(values):
            found: Any = cache.get("a")
            seen.add(int(found[0]))
            assert (found == found[0]).all()
            assert len(found) == length(int(found[0]))
        if number > 0:
            note(place, "seen")

    open(f"{place}.notes", "w").close()
    run(3, job)


def hold(place: str, lease_s: str, options: str = "{}") -> None:
    """Computes until a line comes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it

    def compute() -> bytes:
        print("computing", flush=True)
        return sys.stdin.readline().encode()

    cache = fstx.cache(place, lease_s=float(lease_s), **json.loads(options))
    cache.get_or_compute("a", compute)


@contextmanager
def holder(place: str, lease_s: float, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that computes key ``a`` until it gets a line."""
    command = [sys.executable, __file__, "hold", place, str(lease_s), json.dumps(options)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "computing\n"
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    {"crowd": crowd, "rounds": rounds, "churn": churn, "hold": hold}[sys.argv[1]](*sys.argv[2:])
