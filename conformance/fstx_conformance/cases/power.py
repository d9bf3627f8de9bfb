"""Level "power": what the disk loses when the power goes at any call of a commit, or of its recovery."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace

from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.powercuts import EXHAUSTIVE, JOBS, QUICK, STANDARD, Effort, replay, sweep
from fstx_conformance.results import Level
from fstx_conformance.seams.disk import Model
from fstx_conformance.subjects.disks import OnDisk

_EFFORTS = {"quick": QUICK, "standard": STANDARD, "exhaustive": EXHAUSTIVE}
_RULES = ("BACKEND-20", "BACKEND-35", "OPS-13")
_MOST = 20


@case(Level.POWER, "posix", *_RULES, fires=("power",), sees=("old", "new"))
def posix(lab: Lab) -> None:
    """Whatever was not synced may be lost, in any combination: old or new, and new once commit returned."""
    _cut(lab, "posix")


@case(Level.POWER, "ordered", *_RULES, fires=("power",), sees=("old", "new"))
def ordered(lab: Lab) -> None:
    """The same on a file system that keeps names in order and writes contents late."""
    _cut(lab, "ordered")


@case(Level.POWER, "again", *_RULES, "BACKEND-37", fires=("power",), sees=("old", "new"))
def again(lab: Lab) -> None:
    """The power goes, and goes once more while the recovery runs."""
    share = {"quick": 0.2, "standard": 0.3}.get(lab.profile, 1.0)
    effort = _EFFORTS[lab.profile]
    _cut(lab, "posix", replace(effort, again=share, points=max(4, effort.points // 3), fresh=0.0))


def _cut(lab: Lab, model: Model, effort: Effort | None = None) -> None:
    storage = _storage(lab)
    memory = "/dev/shm"
    folder = tempfile.mkdtemp(prefix="fstx-power-", dir=memory if os.path.isdir(memory) else None)
    try:
        for job in JOBS.values():
            if lab.replay is None:
                found = sweep(
                    storage,
                    folder,
                    job,
                    model=model,
                    effort=effort or replace(_EFFORTS[lab.profile], again=0.0),
                    seed=lab.seed,
                    most=_MOST,
                )
            elif lab.replay.scene == job.name:
                found = replay(storage, folder, job, lab.replay)
            else:
                continue
            lab.runs += found.states + found.again
            lab.fired["power"] += found.states + found.again
            lab.seen.update(dict.fromkeys(found.seen, 1))
            lab.progress(
                f"{job.name}: {found.states} states after a loss of power, {found.again} after two"
            )
            for problem in found.problems:
                lab.problem(
                    problem.message,
                    Capability.DURABLE,
                    schedule=problem.schedule,
                    scene=job.name,
                    history=problem.history,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not lab.failures:
        lab.kept.add(Capability.DURABLE)


def _storage(lab: Lab) -> OnDisk:
    storage = lab.subject.on_disk()
    if storage is None:
        raise NotApplicable(
            "this storage lies on no disk that can be simulated; what it acknowledged is its own promise"
        )
    if os.name == "nt":
        raise NotApplicable(
            "Windows has no call that syncs a directory, and promises no durability"
        )
    return storage
