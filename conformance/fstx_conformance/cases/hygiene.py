"""Level "hygiene": nothing stays behind that nobody needs."""

from __future__ import annotations

import contextlib

from fstx.errors import TransactionError
from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.scenes import Scene, stage_all, text
from fstx_conformance.subjects.base import Process, Room


class _Body(Exception):  # noqa: N818 - stands for any error of the caller's
    pass


@case(
    Level.HYGIENE, "quiet", "BACKEND-42", "BACKEND-2", "BACKEND-10", sees=("committed", "aborted")
)
def quiet(lab: Lab) -> None:
    """Commit, rollback, an error in the body, a discarded object, a question for promises leave nothing."""
    for scene in lab.scenes():
        with lab.room() as room:
            lab.runs += 1
            with Process.alone():
                room.open().guarantee(mode="create", durability="data")
                _empty(lab, room, scene, "asking what is promised")
                _commits(room, scene)
                lab.seen["committed"] += 1
                _empty(lab, room, scene, "commit")
                _gives_up(room, scene)
                lab.seen["aborted"] += 1
                _empty(lab, room, scene, "rollback")


def _commits(room: Room, scene: Scene) -> None:
    if scene.old:
        with room.begin(mode="create", entry=scene.index) as tx:
            stage_all(scene.old)(tx)
    with room.begin(**scene.begin()) as tx:
        scene.work(tx)


def _gives_up(room: Room, scene: Scene) -> None:
    with contextlib.suppress(_Body), room.begin() as tx:
        with contextlib.suppress(_Body), tx.open("discarded") as file:
            file.write(text("discarded", 9000))
            raise _Body
        tx.stage("other", text("other", 9000))
        tx.stager().stage("never adopted", text("never", 9000))
        raise _Body
    tx = room.begin()
    tx.stage("other", text("other", 9000))
    tx.rollback()


def _empty(lab: Lab, room: Room, scene: Scene, after: str) -> None:
    left = room.leftovers()
    lab.check(not left, f"after {after} there is left: {', '.join(left[:5])}", scene=scene.name)


@case(
    Level.HYGIENE,
    "faults",
    "BACKEND-42",
    fires=("kill", "kill-after", "fail"),
    sees=("committed", "died"),
    seams=("ops", "store", "files"),
)
def faults(lab: Lab) -> None:
    """After a kill or a failure at any call, a recovery and one more commit, nothing is left."""
    scenes = lab.scenes("create", "update", "index", "keyed", "replace", "streamed")
    lab.sweep(scenes, ["kill", "kill-after", "fail"], leftovers=True)


@case(Level.HYGIENE, "refused", "BACKEND-42", sees=("aborted",))
def refused(lab: Lab) -> None:
    """A transaction that is refused at begin leaves nothing."""
    with lab.room() as room, Process.alone():
        with room.begin(mode="create") as tx:
            tx.stage("a", b"there")
        with contextlib.suppress(TransactionError):
            room.begin(mode="create")
        lab.seen["aborted"] += 1
        lab.runs += 1
        left = room.leftovers()
        lab.check(not left, f"after a refused begin there is left: {', '.join(left[:5])}")
        lab.check(room.read() == {"a": b"there"}, "a refused begin changed the target")
