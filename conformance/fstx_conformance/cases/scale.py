"""Level "scale": what a commit costs does not grow with what is there already."""

from __future__ import annotations

import math

from fstx_conformance.cases import case
from fstx_conformance.injector import Injector
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.scenes import stage_all, text
from fstx_conformance.subjects.base import Process

_SIZES = {"quick": (8, 128), "standard": (8, 128, 1024), "exhaustive": (8, 128, 1024, 8192)}


@case(Level.SCALE, "requests", "BACKEND-43", sees=("committed",), seams=("ops", "store", "files"))
def requests(lab: Lab) -> None:
    """Calls of one small commit beside n files, for growing n: no more than a few for each doubling."""
    sizes = _SIZES[lab.profile]
    if lab.subject.cost > 1 and lab.profile == "standard":
        sizes = sizes[:2]
    counted = {size: _calls(lab, size) for size in sizes}
    least = counted[sizes[0]]
    for size in sizes[1:]:
        allowed = least + 8 * math.log2(size / sizes[0])
        lab.check(
            counted[size] <= allowed,
            f"a commit of two small files makes {counted[size]} calls beside {size} files, and "
            f"{least} beside {sizes[0]}",
        )


def _calls(lab: Lab, size: int) -> int:
    with lab.room() as room:
        with Process.alone(), room.begin(mode="create") as tx:
            stage_all({f"d{i % 16}/f{i}": text(f"file {i}", 30) for i in range(size)})(tx)
        process = Injector()
        with Process.alone(), room.begin(process) as tx:
            stage_all({"d0/f0": text("other", 30), "more": text("more", 30)})(tx)
        process.die()
        lab.runs += 1
        found = room.read()
        lab.check(len(found) == size + 1, f"{len(found)} files are there, not {size + 1}")
        lab.seen["committed"] += 1
        lab.fired["counted"] += process.calls
        return process.calls
