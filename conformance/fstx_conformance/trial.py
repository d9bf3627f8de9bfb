"""One trial: a scene run by a process that meets faults, and what must hold afterwards.

What was told must be true, now and after whatever was still under way has arrived: committed is the new tree,
given up is the old one, in doubt is one of them and `outcome` says which. A killed process leaves one of
them once somebody recovered. Afterwards the place works, and nothing is left over.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    RecoveryError,
    TransactionError,
)
from fstx.types import Capability, Guarantee, OutcomeState
from fstx_conformance.injector import Call, History, Injector, Killed
from fstx_conformance.scenes import FRESH, Scene, stage_all
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects.base import Process, Room, Tree

Word = Literal[
    "committed", "pending", "aborted", "conflict", "fenced", "unknown", "died", "interrupted"
]
_RECOVERIES = 4


@dataclass
class Told:
    """How a run of the scene ended, as the caller sees it."""

    word: Word
    txid: str | None = None
    error: BaseException | None = None


@dataclass
class Trial:
    """What one trial found."""

    scene: Scene
    schedule: Schedule
    history: History = field(default_factory=History)
    problems: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    broken: set[Capability] = field(default_factory=set)
    calls: dict[str, list[tuple[str, str, bool]]] = field(default_factory=dict)
    named: dict[Fault, Fault] = field(
        default_factory=dict
    )  # fired faults, by the name of their call
    promised: Guarantee | None = None
    moments: list[tuple[int, bool]] = field(default_factory=list)  # see `_watch`

    def problem(self, text: str, *broken: Capability) -> None:
        """Something does not hold; the promises that it breaks."""
        self.history.add(f"PROBLEM: {text}")
        self.problems.append(text)
        self.broken.update(broken)


def prepare(room: Room, scene: Scene) -> Guarantee:
    """The old tree is there; what is promised to a transaction of the scene."""
    if scene.old:
        room.lay(scene.old, scene.index)
    asked = (scene.mode, scene.index, bool(scene.old))
    if room.promises is None:
        return _promised(room, scene)
    if asked not in room.promises:
        room.promises[asked] = _promised(room, scene)
    return room.promises[asked]


def _promised(room: Room, scene: Scene) -> Guarantee:
    return room.open().guarantee(mode=scene.mode, durability="data", entry=scene.index)


def perform(room: Room, scene: Scene, process: Injector, trial: Trial) -> Told:
    """Run the scene in this process, and say what its caller was told."""
    txid: str | None = None
    try:
        with room.begin(process, **scene.begin()) as tx:
            txid = tx.id
            scene.work(tx)
            snapshot = tx.commit()
        return Told("pending" if snapshot.pending else "committed", txid)
    except Killed:
        return Told("died", txid)
    except InDoubtError as error:
        return Told("unknown", error.txid or txid, error)
    except FencedError as error:
        return Told("fenced", txid, error)
    except ConflictError as error:
        return Told("conflict", txid, error)
    except TransactionError as error:
        if error.outcome in ("unknown", "pending", "committed"):
            return Told("unknown", error.txid or txid, error)
        return Told("aborted", txid, error)
    except KeyboardInterrupt as error:
        return Told("interrupted", txid, error)
    except Exception as error:  # noqa: BLE001 - a caller would get this
        trial.problem(
            f"{type(error).__name__} came out, not one of fstx's errors: {error} (BACKEND-29)"
        )
        return Told("interrupted", txid, error)


def run_trial(
    room: Room,
    scene: Scene,
    schedule: Schedule,
    *,
    hooks: dict[str, Any] | None = None,
    leftovers: bool = True,
    watch: bool = False,
) -> Trial:
    """One trial in a fresh room; if asked with a reader who looks after each call."""
    trial = Trial(scene, schedule)
    with Process.alone():
        promised = trial.promised = prepare(room, scene)
    process = Injector(schedule.faults, history=trial.history, hooks=hooks)
    if watch and room.passive:
        _watch(room, trial, process, promised)
    try:
        _go(room, trial, process, promised, leftovers)
    except Exception as error:  # noqa: BLE001 - readers, recoverers and the next writer meet no fault
        if process.agent not in trial.calls:
            process.die()
            _note(trial, process)
        trial.problem(f"{type(error).__name__} where no fault was: {error}")
    return trial


def _go(room: Room, trial: Trial, process: Injector, promised: Guarantee, leftovers: bool) -> None:
    with Process.alone():
        told = perform(room, trial.scene, process, trial)
        trial.told.append(told.word)
        trial.history.add(f"writer: told {told.word}")
        error, told.error = told.error, None
        del error
        calls = -1
        if told.word not in ("died", "interrupted") and not process.dead:
            look(room, trial, told, promised, "at once")
            calls = process.calls
    process.die()  # whatever it still wants to do, it is over
    gc.collect()
    _note(trial, process)
    if process.calls != calls or room.promises is None:
        look(room, trial, told, promised, "when the process is gone")
    if process.deliver():
        look(room, trial, told, promised, "after late requests")
    tree = settle(room, trial, told, promised)
    afterwards(room, trial, told, leftovers=leftovers, before=tree)


def _watch(room: Room, trial: Trial, process: Injector, promised: Guarantee) -> None:
    """Note the calls after which readers find something else, and whether that must not be."""
    last: list[Tree | None] = [trial.scene.old]
    seen = [0]

    def look_again(call: Call) -> None:
        if process.changes == seen[0]:
            return
        seen[0] = process.changes
        try:
            tree: Tree | None = room.read()
        except Exception:  # noqa: BLE001 - a reader who can't read is worth a trial of its own
            tree = None
        if tree != last[0]:
            last[0] = tree
            number = max(i for i, (_, _, changing) in enumerate(process.names) if changing)
            bad = tree is None or mixed(tree, trial.scene, promised) is not None
            trial.moments.append((number, bad))

    process.before = look_again


def _note(trial: Trial, process: Injector) -> None:
    trial.calls.setdefault(process.agent, process.names)
    for fault, number in process.fired:
        trial.fired[fault.action] += 1
        op = process.names[number][0]
        nth = sum(name == op for name, _, _ in process.names[: number + 1])
        trial.named.setdefault(fault, replace(fault, op=op, key="*", nth=nth))


# --- what readers may find -----------------------------------------------------------------------------


def look(room: Room, trial: Trial, told: Told, promised: Guarantee, when: str) -> None:
    """What readers find before anybody recovered."""
    scene = trial.scene
    tree = room.read()
    if told.word == "committed":
        if tree != scene.new:
            trial.problem(f"{when}: commit had returned, and readers find {diff(tree, scene.new)}")
        return
    if told.word in ("aborted", "conflict", "fenced"):
        if tree != scene.old:
            trial.problem(f"{when}: told {told.word}, and readers find {diff(tree, scene.old)}")
        return
    found = mixed(tree, scene, promised)
    if found is not None:
        trial.problem(f"{when}: {found[0]}", found[1])


def mixed(tree: Tree, scene: Scene, promised: Guarantee) -> tuple[str, Capability] | None:
    """What is wrong with a tree that is in between; None if that may be."""
    if tree in (scene.old, scene.new):
        return None
    for path in sorted({*tree, *scene.old, *scene.new}):
        versions = {scene.old.get(path), scene.new.get(path)}
        found = tree.get(path)
        if found is None and None not in versions:
            if Capability.NO_GAP in promised:
                return f"{path} is absent, though it is there before and after", Capability.NO_GAP
        elif found not in versions and found is not None:
            return f"{path} is neither old nor new: {found[:30]!r}", Capability.ATOMIC_OBJECT
    if Capability.ATOMIC_SET not in promised:
        return None
    shown = scene.shown(tree)
    wholes = [scene.shown(scene.old), scene.shown(scene.new), {}]
    if scene.index is None and Capability.NO_GAP in promised:
        wholes = [scene.old, scene.new]
    if shown in wholes:
        return None
    return f"readers find a mixture: {diff(tree, scene.new)}", Capability.ATOMIC_SET


# --- recovery ------------------------------------------------------------------------------------------


def settle(room: Room, trial: Trial, told: Told, promised: Guarantee) -> Tree:
    """What readers find after a recovery; the first meets the faults that the schedule has for it."""
    scene = trial.scene
    for turn in range(_RECOVERIES):
        faults = trial.schedule.faults if turn == 0 else ()
        process = Injector(faults, agent="recoverer", history=trial.history)
        with Process.alone():
            ended = _recover(room, trial, process)
        process.die()
        _note(trial, process)
        process.deliver()
        if ended and turn:
            break
        if ended and not any(f.agent == "recoverer" for f in trial.schedule.faults):
            break
        if turn == 0 and not ended:
            look(room, trial, told, promised, "after a disturbed recovery")
    else:
        trial.problem("recover did not end", Capability.RECOVERABLE)
    tree = room.read()
    if told.word in ("committed", "pending"):
        allowed, name = [scene.new], "the new tree"
    elif told.word in ("aborted", "conflict", "fenced"):
        allowed, name = [scene.old], "the old tree"
    else:
        allowed, name = [scene.old, scene.new], "the old or the new tree"
    if tree not in allowed:
        trial.problem(
            f"after recovery readers find {diff(tree, allowed[-1])}, not {name} (told: {told.word})",
            Capability.RECOVERABLE,
        )
    elif told.txid is not None:
        _ask(room, trial, told, tree)
    return tree


def _recover(room: Room, trial: Trial, process: Injector) -> bool:
    try:
        room.recover(process)
    except (Killed, KeyboardInterrupt):
        return False
    except RecoveryError as error:
        trial.problem(f"recover refused: {error}", Capability.RECOVERABLE)
        return True
    except TransactionError as error:
        trial.history.add(f"recoverer: {type(error).__name__}: {error}")
        return False
    return True


def _ask(room: Room, trial: Trial, told: Told, tree: Tree) -> None:
    assert told.txid is not None
    with Process.alone():
        outcome = room.outcome(told.txid)
    trial.history.add(f"outcome: {outcome}")
    scene = trial.scene
    if scene.old == scene.new:
        return
    truth = OutcomeState.COMMITTED if tree == scene.new else OutcomeState.ABORTED
    if outcome in (OutcomeState.COMMITTED, OutcomeState.ABORTED) and outcome != truth:
        trial.problem(f"outcome says {outcome}, and readers find the other tree (BACKEND-30)")
    if outcome == OutcomeState.ACTIVE:
        trial.problem("outcome says active of a process that is gone (BACKEND-30)")
    if scene.id is not None and truth is OutcomeState.COMMITTED and outcome != truth:
        trial.problem(f"outcome says {outcome} of a committed id (BACKEND-30)")


# --- afterwards ------------------------------------------------------------------------------------------


def afterwards(
    room: Room, trial: Trial, told: Told, *, leftovers: bool, before: Tree | None = None
) -> None:
    """The place works again, and holds nothing that nobody needs. `before`: what readers find now."""
    if trial.problems:
        return
    if before is None:
        before = room.read()
    if leftovers:
        left = room.leftovers()
        if left:
            trial.problem(f"left over after recovery: {', '.join(left[:5])} (BACKEND-42)")
    with Process.alone():
        try:
            with room.begin() as tx:
                stage_all(FRESH)(tx)
        except TransactionError as error:
            trial.problem(
                f"the next transaction fails: {type(error).__name__}: {error} (BACKEND-36)"
            )
            return
        if trial.scene.id is not None:
            _again(room, trial, before)
    found = room.read()
    wanted = {**before, **FRESH} if trial.scene.id is None else {**trial.scene.new, **FRESH}
    if found != wanted:
        trial.problem(f"after the next transaction readers find {diff(found, wanted)} (BACKEND-13)")
    if leftovers and (left := room.leftovers()):
        trial.problem(f"left over at the end: {', '.join(left[:5])} (BACKEND-42)")


def _again(room: Room, trial: Trial, before: Tree) -> None:
    """The same id once more: it learns that it was committed, or does it now."""
    scene = trial.scene
    tx = room.begin(**scene.begin())
    if tx.committed != (before == scene.new):
        trial.problem(
            f"the same id again: committed is {tx.committed}, and the tree was "
            f"{'new' if before == scene.new else 'old'} (BACKEND-31)"
        )
    if tx.committed:
        with contextlib.suppress(TransactionError):
            tx.rollback()
        return
    with tx:
        scene.work(tx)


def diff(found: Tree, wanted: Tree) -> str:
    """In a few words what differs."""
    missing = sorted(set(wanted) - set(found))
    more = sorted(set(found) - set(wanted))
    other = sorted(p for p in found if p in wanted and found[p] != wanted[p])
    parts = [
        f"{word} {', '.join(paths[:3])}{' ...' if len(paths) > 3 else ''}"
        for word, paths in (("without", missing), ("with", more), ("other content in", other))
        if paths
    ]
    return "; ".join(parts) or "the same"
