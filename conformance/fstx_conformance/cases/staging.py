"""Level "semantics": paths, staged objects and receipts."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from fstx.errors import (
    PathError,
    StateError,
)
from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.checks import OLD, another, opened, place, reads_none, refused, same
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects import raw
from fstx_conformance.subjects.base import Tree

BAD_PATHS = (
    "",
    "/a",
    "a//b",
    "a/",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "C:/a",
    ".fstx",
    ".fstx/a",
    "d/.fstx/a",
    "x" * 256,
)


@case(Level.SEMANTICS, "paths", "BACKEND-4", "PATH-1", "PATH-2", "PATH-3", "PATH-4")
def paths(lab: Lab) -> None:
    """Paths that may not be are refused by the transaction and by its stagers, before a byte is written."""
    with place(lab) as room:
        tx = room.begin()
        stager = tx.stager()
        before = raw.listing(room)
        for path in BAD_PATHS:
            calls: tuple[tuple[str, Callable[[], object]], ...] = (
                ("stage", partial(tx.stage, path, b"x")),
                ("open", partial(opened, tx, path)),
                ("stager().stage", partial(stager.stage, path, b"x")),
                ("stager().open", partial(opened, stager, path)),
                ("compose", partial(tx.compose, path, [b"x"])),
                ("remove", partial(tx.remove, path)),
            )
            for name, call in calls:
                refused(lab, PathError, call, f"{name}({path[:20]!r})")
        lab.check(raw.listing(room) == before, "a refused path left something")
        tx.stage("f", b"1")
        refused(lab, PathError, lambda: tx.stage("f/g", b"2"), "stage below a staged file")
        tx.stage("e/g", b"3")
        refused(lab, PathError, lambda: tx.stage("e", b"4"), "stage over a staged directory")
        tx.stage("Case", b"5")
        refused(lab, PathError, lambda: tx.stage("case", b"6"), "stage what differs by case alone")
        tx.stage("caf\u00e9", b"7")
        refused(
            lab, PathError, lambda: tx.stage("cafe\u0301", b"8"), "stage what differs by form alone"
        )
        tx.commit()
        lab.seen["committed"] += 1
        new = {**OLD, "f": b"1", "e/g": b"3", "Case": b"5", "caf\u00e9": b"7"}
        same(lab, room, new, "after a commit that followed refused paths")


@case(Level.SEMANTICS, "scenes", "BACKEND-13", "BACKEND-14", "BACKEND-24", sees=("committed",))
def scenes(lab: Lab) -> None:
    """Every scene without a fault: the new tree, byte for byte, and the next transaction works."""
    for scene in lab.scenes():
        if lab.dear:
            lab.undisturbed(scene)
        else:
            lab.trial(scene, Schedule(seed=lab.seed))


@case(Level.SEMANTICS, "invisible", "BACKEND-5", sees=("committed",))
def invisible(lab: Lab) -> None:
    """Before commit readers find the old, whatever is staged, opened, removed or composed."""
    with place(lab) as room:
        tx = room.begin()
        piece = tx.stager().stage("part", text("part", BIG))
        steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("staged", lambda: tx.stage("a", text("new a"))),
            ("staged anew", lambda: tx.stage("n/b", text("new b", BIG))),
            ("removed", lambda: tx.remove("d")),
            ("composed", lambda: tx.compose("c", [b"head", piece])),
        )
        for what, call in steps:
            call()
            same(lab, room, OLD, f"before commit, {what}")
        with tx.open("s") as file:
            file.write(text("s", BIG))
            same(lab, room, OLD, "while an object is written")
        same(lab, room, OLD, "when it is written")
        tx.commit()
        lab.seen["committed"] += 1
        new = {
            "a": text("new a"),
            "b": OLD["b"],
            "n/b": text("new b", BIG),
            "c": b"head" + text("part", BIG),
            "s": text("s", BIG),
        }
        same(lab, room, new, "after commit")


@case(Level.SEMANTICS, "reads-own", "BACKEND-6")
def reads_own(lab: Lab) -> None:
    """`read` and `paths` of a transaction tell what would be there after commit."""
    with place(lab) as room:
        tx = room.begin()
        _reads(lab, tx, OLD, "at the beginning")
        tx.stage("a", b"first")
        tx.stage("a", b"second")
        tx.remove("d/x")
        with tx.open("n/s") as file:
            file.write(b"streamed")
        new = {**OLD, "a": b"second", "n/s": b"streamed"}
        del new["d/x"]
        _reads(lab, tx, new, "with changes")
        for path in ("d/x", "d", "none", "n"):
            refused(lab, FileNotFoundError, partial(tx.read, path), f"read({path!r})")
        tx.remove("d")
        tx.stage("d/z", b"after")
        new = {p: c for p, c in new.items() if not p.startswith("d/")} | {"d/z": b"after"}
        _reads(lab, tx, new, "after a removed tree")
        tx.commit()
        lab.seen["committed"] += 1
        same(lab, room, new, "after commit")


def _reads(lab: Lab, tx: Any, wanted: Tree, when: str) -> None:
    lab.check(list(tx.paths()) == sorted(wanted), f"{when}: paths() gives {list(tx.paths())}")
    below = [p for p in sorted(wanted) if p.startswith("d/")]
    lab.check(list(tx.paths("d")) == below, f"{when}: paths('d') gives {list(tx.paths('d'))}")
    for path, content in wanted.items():
        size = len(content)
        for start, stop in (
            (0, None),
            (0, 3),
            (2, 5),
            (size - 1, size),
            (size, None),
            (3, size + 9),
        ):
            found = tx.read(path, start, stop)
            lab.check(
                found == content[start:stop],
                f"{when}: read({path!r}, {start}, {stop}) gives {found[:30]!r}",
            )


@case(Level.SEMANTICS, "receipts", "BACKEND-7", "BACKEND-8", "BACKEND-9", sees=("committed",))
def receipts(lab: Lab) -> None:
    """Receipts count once they are adopted; of two the later wins; a stranger's is refused."""
    with place(lab) as room:
        tx, other = room.begin(), another(room)
        stager = tx.stager()
        first, second = stager.stage("p", b"first"), stager.stage("p", b"second one")
        stager.stage("never", b"not adopted")
        left = stager.stage("late", b"adopted late")
        foreign = other.stager().stage("q", b"foreign")
        for receipt, size in ((first, 5), (second, 10)):
            lab.check(
                (receipt.path, receipt.size_bytes) == ("p", size),
                f"the receipt is {receipt!r}, of {size} bytes for 'p'",
            )
        refused(lab, StateError, lambda: tx.adopt([foreign]), "adopt of another's receipt")
        reads_none(lab, tx, "q", "a refused receipt")
        tx.adopt([second, first])
        tx.adopt([first])
        tx.adopt([left])
        lab.check(tx.read("p") == b"first", "of two adopted receipts the later does not win")
        other.rollback()
        lab.seen["aborted"] += 1
        snapshot = tx.commit()
        lab.seen["committed"] += 1
        same(lab, room, {**OLD, "p": b"first", "late": b"adopted late"}, "after commit")
        lab.check(snapshot.paths == 2, f"the snapshot counts {snapshot.paths} paths, of 2 adopted")


_WORKER = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
login = pickle.load(sys.stdin.buffer)
if login is not None:
    login()
stager = pickle.load(sys.stdin.buffer)
with stager.open("streamed") as file:
    file.write(b"from far")
pickle.dump([stager.stage("staged", b"far away" * 900), file.receipt], sys.stdout.buffer)
"""


@case(Level.SEMANTICS, "remote-staging", "BACKEND-12")
def remote_staging(lab: Lab) -> None:
    """A transaction never pickles; a stager does where that is promised, and then works elsewhere."""
    with place(lab) as room:
        tx = room.begin()
        refused(lab, TypeError, lambda: pickle.dumps(tx), "pickle of a transaction")
        if Capability.REMOTE_STAGING not in tx.guarantee:
            refused(lab, TypeError, lambda: pickle.dumps(tx.stager()), "pickle of a stager")
            tx.rollback()
            lab.seen["aborted"] += 1
            return
        if not lab.subject.processes:
            tx.rollback()
            raise NotApplicable("other processes don't see this storage")
        told = b"".join(map(pickle.dumps, (sys.path, lab.subject.login, tx.stager())))
        worker = [sys.executable, "-P", "-c", _WORKER]
        done = subprocess.run(worker, input=told, capture_output=True, timeout=120, check=False)
        if done.returncode:
            tx.rollback()
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            if said and said[0].startswith(("ModuleNotFoundError", "AttributeError")):
                raise NotApplicable(f"another process can't import the stager's class: {said[0]}")
            lab.problem(f"staging in another process failed: {said}", Capability.REMOTE_STAGING)
            return
        same(lab, room, OLD, "after a worker staged")
        tx.adopt(pickle.loads(done.stdout))
        tx.commit()
        lab.seen["committed"] += 1
        new = {**OLD, "staged": b"far away" * 900, "streamed": b"from far"}
        same(lab, room, new, "after commit of what a worker staged", Capability.REMOTE_STAGING)
    lab.kept.add(Capability.REMOTE_STAGING)


@case(Level.SEMANTICS, "discarded", "BACKEND-10", "BACKEND-9", sees=("committed",))
def discarded(lab: Lab) -> None:
    """An exception while an object is written discards that object alone."""
    with place(lab) as room:
        tx = room.begin()
        tx.stage("a", b"kept")
        for path in ("a", "n", "b"):
            with contextlib.suppress(LookupError), tx.open(path) as file:
                file.write(text("discarded", BIG))
                raise LookupError("the caller's own")
        stager = tx.stager()
        with contextlib.suppress(LookupError), stager.open("m") as file:
            file.write(b"discarded")
            raise LookupError("the caller's own")
        tx.stage("z", b"last")
        tx.commit()
        lab.seen["committed"] += 1
        same(lab, room, {**OLD, "a": b"kept", "z": b"last"}, "after commit")


@case(Level.SEMANTICS, "removal", "BACKEND-16", "BACKEND-13", sees=("committed",))
def removal(lab: Lab) -> None:
    """A removal takes a file or a tree; what is staged there afterwards stays; of nothing it is an error."""
    with place(lab) as room:
        tx = room.begin()
        for path in ("none", "d/none", "a/below"):
            refused(lab, FileNotFoundError, partial(tx.remove, path), f"remove({path!r})")
        tx.stage("s", b"staged")
        tx.remove("s")
        refused(lab, FileNotFoundError, lambda: tx.remove("s"), "remove of what was removed")
        tx.remove("d")
        tx.stage("d/x", b"again")
        tx.remove("a")
        tx.commit()
        lab.seen["committed"] += 1
        same(lab, room, {"b": OLD["b"], "d/x": b"again"}, "after commit")
