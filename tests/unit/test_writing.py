"""The driver: sink or plain plan, checks before work, cleanup that hides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fstx.errors import CapabilityError, UsageError
from fstx.sources import open_source
from fstx.types import StagedObject
from fstx.writing import blocks_of, write_into
from support.sourcetx import BlockPlan, DictTx, FailAt, plan_for


class PairSink:
    """Holds blocks back and completes them in `close`; remembers what was asked of it."""

    def __init__(self, stager: Any, log: list[str], discard_fails: bool) -> None:
        self.stager, self.log, self.discard_fails = stager, log, discard_fails
        self.blocks: list[bytes] = []

    def write(self, index: Any, block: Any) -> tuple[StagedObject, ...]:
        self.blocks.append(block.tobytes())
        if index == (2,) and "fail" in self.log:
            raise OSError("full")
        return ()

    def close(self) -> tuple[StagedObject, ...]:
        self.log.append("close")
        return (self.stager.stage("out/all", b"".join(self.blocks)),)

    def discard(self) -> None:
        self.log.append("discard")
        if self.discard_fails:
            raise RuntimeError("discard is broken")


@dataclass(frozen=True)
class SinkPlan(BlockPlan):
    log: Any = None
    discard_fails: bool = False

    def sink(self, stager: Any, /) -> Any:
        return PairSink(stager, self.log, self.discard_fails)


def _sink_plan(log: list[str], **options: Any) -> Any:
    spec = open_source(np.arange(12)).spec
    return SinkPlan(spec, ((4, 4, 4),), log=log, **options)


def test_close_comes_before_finish() -> None:
    """What a sink completes in close is adopted; the publisher comes after it."""
    tx, log = DictTx(), []
    write_into(tx, np.arange(12), _sink_plan(log))
    assert log == ["close"]
    assert sorted(tx.adopted) == ["out/all", "out/index"]
    assert tx.content()["out/index"] == b"out/all"
    assert tx.state == "active"


@pytest.mark.parametrize("broken", [False, True])
def test_a15_discard_never_hides_the_failure(broken: bool) -> None:
    """A15: the sink is discarded, and its own failure is only a note of the first."""
    tx, log = DictTx(), ["fail"]
    with pytest.raises(OSError, match="full") as caught:
        write_into(tx, np.arange(12), _sink_plan(log, discard_fails=broken))
    assert log == ["fail", "discard"]
    assert any("discard is broken" in note for note in caught.value.__notes__) is broken
    assert tx.adopted == {}


def test_interrupt_in_close_discards() -> None:
    """A25: Ctrl-C in completing the output discards it as a failure does."""
    log: list[str] = []

    class Interrupted(PairSink):
        def close(self) -> tuple[StagedObject, ...]:
            raise KeyboardInterrupt

    plan = _sink_plan(log)
    object.__setattr__(plan, "sink", lambda stager: Interrupted(stager, log, False))
    with pytest.raises(KeyboardInterrupt):
        write_into(DictTx(), np.arange(12), plan)
    assert log == ["discard"]


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_max_workers_is_checked_first(workers: Any) -> None:
    """Bad input is refused before a block is written."""
    source = open_source(np.zeros(8))
    with pytest.raises(UsageError, match="max_workers"):
        write_into(DictTx(), source, plan_for(source, 4, FailAt(((0,),))), max_workers=workers)


def test_plan_of_another_array_is_refused() -> None:
    """A plan that doesn't tile the array is refused before a block is written."""
    plan = plan_for(open_source(np.zeros(8)), 4, FailAt(((0,),)))
    with pytest.raises(UsageError, match="another array"):
        write_into(DictTx(), np.zeros(9), plan)


def test_remote_scheduler_needs_remote_staging() -> None:
    """E3: another process can't stage into this memory: refused before a chunk is computed."""
    da = pytest.importorskip("dask.array")
    source = open_source(da.zeros(8, chunks=4), scheduler="processes")
    assert source.remote
    with pytest.raises(CapabilityError, match=r"dict://test.*a dictionary is local.*threads"):
        write_into(DictTx(), source, plan_for(source))


def test_blocks_of_counts_the_total_for_progress() -> None:
    """The total of a progress bar is the number of blocks."""
    assert blocks_of(plan_for(open_source(np.zeros((8, 9))), 4)) == 6
    assert blocks_of(plan_for(open_source(np.zeros(())), 4)) == 1
