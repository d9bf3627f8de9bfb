"""A real process that runs a scene: ``python -m fstx_conformance.worker URL SCENE SCHEDULE``.

Options of the storage come as JSON on standard input. What the scene's caller is told goes to standard
output as one line of JSON. ``count:N`` in place of a scene: N commits that each add one to a number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from fstx import registry, seams
from fstx.errors import ConflictError
from fstx_conformance.injector import Injector
from fstx_conformance.scenes import SCENES, Scene
from fstx_conformance.schedule import Schedule, parse
from fstx_conformance.seams.ops import FaultOps
from fstx_conformance.seams.store import FaultStore
from fstx_conformance.subjects.base import Process, Room
from fstx_conformance.trial import Trial, perform

_TRIES = 500


class _Place(Room):
    """A target by its URL."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url, self._options = url, options

    def open(self, process: Injector | None = None) -> Any:
        def ops(inner: Any) -> Any:
            return inner if process is None else FaultOps(inner, process)

        def store(inner: Any) -> Any:
            return inner if process is None else FaultStore(inner, process)

        with seams.under(seams.Layers(store=store, ops=ops)):
            return registry.backend([self.url], joined=False, **self._options)

    def read(self) -> dict[str, bytes]:
        raise NotImplementedError("another process reads")

    def close(self) -> None:
        raise NotImplementedError("another process tidies up")


def count(begin: Callable[[], Any], commits: int) -> int:
    """Add one to the number in ``count``, so many times; how many commits were told."""
    told = 0
    for _ in range(commits):
        for _ in range(_TRIES):
            try:
                with begin() as tx:
                    tx.stage("count", b"%d" % (int(tx.read("count")) + 1))
                told += 1
                break
            except ConflictError:
                continue
    return told


def run_scene(place: Room, scene: Scene, schedule: Schedule) -> dict[str, Any]:
    """What the caller of the scene is told."""
    trial = Trial(scene, schedule)
    process = Injector(schedule.faults, history=trial.history)
    with Process.alone():
        told = perform(place, scene, process, trial)
    return {
        "word": told.word,
        "txid": told.txid,
        "error": repr(told.error),
        "problems": trial.problems,
        "history": trial.history.lines,
    }


def main(url: str, job: str, schedule: str) -> None:
    """See the module."""
    place = _Place(url, json.loads(sys.stdin.read() or "{}"))
    if job.startswith("count:"):
        told: dict[str, Any] = {"count": count(place.begin, int(job.partition(":")[2]))}
    else:
        told = run_scene(place, SCENES[job], parse(schedule))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
