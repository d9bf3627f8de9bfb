"""The broken backends that ship with the suite, each with the level where it has to fail, and right ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fstx_conformance.broken import backends, calls, depots, stores, unsynced
from fstx_conformance.broken.over import Datasets, Local, Memory
from fstx_conformance.results import Level
from fstx_conformance.subjects.base import Subject
from fstx_conformance.subjects.sqlite import SqliteSubject

Make = Callable[[str], Subject]
"""A subject; the argument is a directory of its own."""


@dataclass(frozen=True)
class Broken:
    """One backend with one thing wrong.

    Parameters
    ----------
    make
        The subject.
    level
        Where it has to fail.
    rules
        Of which the failing case names at least one.
    what
        What it does, in one sentence.
    profile
        The least one in which it fails.
    passes
        Levels that its defect does not touch.
    case
        The case that shows it, where others of its level take long.
    """

    make: Make
    level: Level
    rules: tuple[str, ...]
    what: str
    profile: str = "quick"
    passes: tuple[Level, ...] = ()
    case: str = ""

    @property
    def shortest(self) -> tuple[str, ...]:
        """What to run to see it fail."""
        return (self.case or self.level.value,)


def _local(**options: Any) -> Make:
    return lambda folder: Local(folder, **options)


def _dataset(**options: Any) -> Make:
    return lambda folder: Datasets(_memory(folder, "tx::"), **options)


def _in_memory(**options: Any) -> Make:
    return lambda folder: Memory(_memory(folder), **options)


def _memory(folder: str, chain: str = "") -> str:
    return f"{chain}memory://{os.path.basename(folder)}"


_NOT_CRASH = (Level.CRASH, Level.SCALE)
_POWER = ("BACKEND-20", "BACKEND-35", "OPS-13")

BROKEN: dict[str, Broken] = {
    # --- power
    "no sync of files": Broken(
        _local(above=unsynced.NoFileSync),
        Level.POWER,
        _POWER,
        "Contents are never synced.",
        passes=_NOT_CRASH,
    ),
    "no sync of the staging directories": Broken(
        _local(above=unsynced.NoStageSync),
        Level.POWER,
        _POWER,
        "Directories of the staging area are never synced.",
    ),
    "no sync of the target's directories": Broken(
        _local(above=unsynced.NoTargetSync),
        Level.POWER,
        _POWER,
        "Directories of the target are never synced.",
    ),
    "sync before the write": Broken(
        _local(above=unsynced.SyncBeforeWrite),
        Level.POWER,
        _POWER,
        "A file is synced when it is made, not when it is written.",
    ),
    "sync after the rename": Broken(
        _local(above=unsynced.RecordBeforeData),
        Level.POWER,
        _POWER,
        "Staged contents are synced last, after the record that names them and the renames.",
    ),
    # --- put if absent
    "lying put-if-absent": Broken(
        _dataset(below=stores.Lying),
        Level.ISOLATION,
        ("BACKEND-21", "BACKEND-15"),
        "Put-if-absent says that it was done, whatever is there, and overwrites it; no probe tries it.",
        passes=(Level.CRASH, Level.SCALE, Level.HYGIENE),
    ),
    "racy put-if-absent": Broken(
        _dataset(above=stores.Racy),
        Level.ISOLATION,
        ("BACKEND-21", "BACKEND-15"),
        "Put-if-absent looks first and writes then.",
        passes=(Level.CRASH, Level.SCALE, Level.HYGIENE),
        case="isolation.create",
    ),
    # --- names
    "rename by copy": Broken(
        _local(above=calls.CopyRename),
        Level.CRASH,
        ("BACKEND-18", "BACKEND-35"),
        "A rename is a copy and a removal.",
    ),
    "exchange by renames": Broken(
        _local(above=calls.TwoRenames),
        Level.CRASH,
        ("BACKEND-19", "BACKEND-35"),
        "Two trees are exchanged by three renames, and no gap is promised.",
        passes=(Level.SCALE,),
    ),
    "replace by unlink": Broken(
        _local(above=calls.UnlinkFirst),
        Level.CRASH,
        ("BACKEND-19", "BACKEND-17"),
        "A file is replaced by removing the old one first.",
        passes=(Level.SCALE,),
    ),
    "locks for everybody": Broken(
        _local(below=calls.NoLocks),
        Level.ISOLATION,
        ("BACKEND-21", "BACKEND-15", "CTRL-5"),
        "Locks are given to everybody who asks.",
        passes=(Level.SCALE,),
    ),
    # --- listing, uploads
    "listing lag": Broken(
        _dataset(below=stores.Lagging),
        Level.PRIMITIVES,
        ("STORE-10", "STORE-11"),
        "An object is listed only some requests after it was put.",
    ),
    "half an object": Broken(
        _dataset(above=stores.Partial),
        Level.CRASH,
        ("BACKEND-17", "BACKEND-35"),
        "An object is seen when half of it is uploaded.",
        passes=(Level.SCALE,),
    ),
    "index first": Broken(
        _dataset(above=stores.DataLast),
        Level.CRASH,
        ("BACKEND-18", "BACKEND-35"),
        "The record that leads to the data is put before they are.",
    ),
    # --- answers
    "blind retry": Broken(
        _dataset(above=stores.BlindRetry),
        Level.AMBIGUITY,
        ("BACKEND-28", "BACKEND-24"),
        "A request without an answer is made again, and the refusal by one's own object is believed.",
        passes=(Level.SCALE, Level.CRASH),
    ),
    "rollback on unknown": Broken(
        _dataset(above=stores.RollsBack),
        Level.AMBIGUITY,
        ("BACKEND-25", "BACKEND-26"),
        "No answer counts as a refusal: the transaction is given up and its data deleted.",
        passes=(Level.SCALE, Level.CRASH),
    ),
    "raises after the commit point": Broken(
        _dataset(backend=backends.RaisesLate),
        Level.CRASH,
        ("BACKEND-27", "BACKEND-35"),
        "A clean-up that fails after the commit point is told as a failed commit.",
    ),
    "forgotten ids": Broken(
        _dataset(backend=backends.ForgetsIds),
        Level.SEMANTICS,
        ("BACKEND-31",),
        "The caller's id is not remembered, so a job that runs twice commits twice.",
        passes=(Level.SCALE,),
        case="semantics.ids",
    ),
    # --- recovery, collection, growth
    "recovery that never ends": Broken(
        _dataset(backend=backends.NeverSettles),
        Level.CRASH,
        ("BACKEND-35", "BACKEND-37"),
        "Recovery gives up where there is something to do.",
        passes=(Level.SCALE,),
    ),
    "calls for each file": Broken(
        _local(backend=backends.LooksAtAll),
        Level.SCALE,
        ("BACKEND-43",),
        "A transaction looks at each file of the target when it begins.",
    ),
    "nothing is cleaned": Broken(
        _dataset(below=stores.KeepsAll),
        Level.HYGIENE,
        ("BACKEND-42",),
        "Staged data that nobody needs stay for ever.",
        passes=(Level.SCALE,),
    ),
    "recovery that can't be repeated": Broken(
        _local(backend=backends.NotReentrant),
        Level.CRASH,
        ("BACKEND-37", "RECOVER-6"),
        "A recoverer that dies leaves a mark for which every later one refuses to run.",
        passes=(Level.SCALE, Level.ISOLATION),
        case="crash.kill-in-recovery",
    ),
    "recovery without a fence": Broken(
        _dataset(backend=backends.NoFence),
        Level.FENCING,
        ("BACKEND-40", "RECOVER-1"),
        "Recovery removes what a stalled writer staged, and the writer publishes afterwards.",
        passes=(Level.SCALE, Level.ISOLATION),
    ),
    "deletion by age": Broken(
        _dataset(backend=backends.DeletesByAge),
        Level.FENCING,
        ("BACKEND-39",),
        "Staged data that no version needs are removed, also those of an active writer.",
        passes=(Level.SCALE,),
        case="fencing.living",
    ),
    "acknowledgement without the boundary": Broken(
        _dataset(above=stores.NoBoundary),
        Level.FENCING,
        ("MANIFEST-4",),
        "A record that was acknowledged is believed, though the log was truncated past it.",
        passes=(Level.SCALE, Level.CRASH, Level.AMBIGUITY),
        case="fencing.truncate",
    ),
    # --- unfinished jobs
    "a unit that is kept late": Broken(
        _dataset(backend=depots.KeepsLate),
        Level.RESUME,
        ("RESUME-1",),
        "A finished unit is kept when the next one is.",
        passes=(Level.SCALE,),
        case="resume.kill-at-every-step",
    ),
    "unreadable is missing": Broken(
        _local(backend=depots.TakesForMissing),
        Level.RESUME,
        ("RESUME-5",),
        "A job's configuration that can't be read counts as none.",
        passes=(Level.SCALE,),
        case="resume.mismatch",
    ),
    "records that are trusted": Broken(
        _local(backend=depots.Trusts),
        Level.RESUME,
        ("RESUME-3",),
        "A unit counts as its line says, without a look at its objects.",
        passes=(Level.SCALE,),
        case="resume.torn-unit",
    ),
    "late workers are not told": Broken(
        _dataset(backend=depots.NeverTells),
        Level.RESUME,
        ("RESUME-10",),
        "What a worker stages for a job that is over stays.",
        passes=(Level.SCALE,),
        case="resume.late-workers",
    ),
    "one name for all attempts": Broken(
        _dataset(backend=depots.OneNameAPath),
        Level.RESUME,
        ("BACKEND-9",),
        "An object of a job is named by its path alone, so a second attempt overwrites the first one.",
        passes=(Level.SCALE,),
        case="resume.duplicates",
    ),
    # --- promises, state, secrets
    "shared state": Broken(
        _in_memory(backend=backends.SharedState),
        Level.SEMANTICS,
        ("BACKEND-6", "BACKEND-7"),
        "What is staged belongs to the target, so two open transactions publish each other's.",
        case="semantics.apart",
    ),
    "versions in place": Broken(
        _dataset(below=stores.InPlace),
        Level.SEMANTICS,
        ("BACKEND-22",),
        "Snapshots are promised, and the data of a path are overwritten by the next version.",
        passes=(Level.SCALE,),
        case="semantics.snapshots",
    ),
    "claims too much": Broken(
        _local(backend=backends.ClaimsMore),
        Level.CRASH,
        ("BACKEND-18",),
        "All promises are made, also that files which are replaced one by one appear at once.",
        passes=(Level.SCALE,),
    ),
    "a credential in an error": Broken(
        _dataset(backend=backends.Leaks, shown={"secret_key": backends.Leaks.SECRET}),
        Level.SEMANTICS,
        ("BACKEND-44",),
        "An error tells the key that was used to reach the storage.",
        passes=(Level.SCALE, Level.CRASH, Level.ISOLATION),
        case="semantics.credentials",
    ),
}
"""By name."""

RIGHT: dict[str, Make] = {
    "memory": _in_memory(),
    "local": _local(),
    "tx:: on memory": _dataset(),
    "tx:: on local files": lambda folder: Datasets(f"tx::file://{folder}"),
    "tx:: on SQLite": lambda folder: SqliteSubject(f"sqlite://{folder}/objects.db"),
}
"""What has to pass all levels."""


# --- running ----------------------------------------------------------------------------------------------
