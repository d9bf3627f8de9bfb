"""dask arrays on a real cluster of worker processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fstx.errors import StorageError, UsageError
from fstx.sources import lazy, open_source
from fstx.sources.dask_ import choose
from fstx.writing import write_into
from support.sourcetx import DictTx, FailAt, plan_for

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

BASE = np.arange(12 * 9, dtype="f4").reshape(12, 9)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes, the active client of this module; all closed afterwards."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster) as active:
        yield active
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _count(block: Any, path: str = "") -> Any:
    import uuid

    Path(path, uuid.uuid4().hex).touch()
    return block


@dataclass(frozen=True)
class FirstFails:
    """The first block that is written anywhere fails; the others take their time."""

    marker: str

    def __call__(self, _index: Any, _block: Any) -> None:
        try:
            Path(self.marker).mkdir()
        except FileExistsError:
            time.sleep(0.3)
        else:
            raise StorageError("first tile", txid="t9")


def _bad(block: Any, block_id: Any = None) -> Any:
    if block_id == (1,):
        raise ZeroDivisionError("bad chunk")
    return block


def test_e3_e10_cluster_writes_the_same(client: Any, tmp_path: Path) -> None:
    """E2, E3, E9, E10: the active client is used; each source chunk once; receipts come back."""
    (tmp_path / "seen").mkdir()
    (tmp_path / "staged").mkdir()
    x = da.from_array(BASE, chunks=(4, 3)).map_blocks(
        _count, path=str(tmp_path / "seen"), dtype="f4", meta=np.empty((0, 0), "f4")
    )
    array = x - x.mean()
    source, tx, seen = open_source(array), DictTx(root=tmp_path / "staged"), []
    assert choose(None).kind == "distributed"
    assert source.remote
    plan = plan_for(source)
    write_into(tx, source, plan, progress=seen.append, max_workers=1)
    assert np.allclose(plan.read(tx.content()), BASE - BASE.mean())
    assert len(list((tmp_path / "seen").iterdir())) == 9
    assert sum(seen) == 9


def test_a6_failing_write_on_a_cluster(client: Any, tmp_path: Path) -> None:
    """A6, A11, A13, A16: the failure arrives whole; what was queued is not written afterwards."""
    marker, tmp_path = str(tmp_path / "marker"), tmp_path / "staged"
    tmp_path.mkdir()
    source, tx = open_source(da.zeros(160, chunks=4)), DictTx(root=tmp_path)
    with pytest.raises(StorageError, match="first tile") as caught:
        write_into(tx, source, plan_for(source, hook=FirstFails(marker)))
    assert caught.value.txid == "t9"
    assert any(note.startswith("while writing block (") for note in caught.value.__notes__)
    names, trace = set(), caught.value.__traceback__
    while trace:
        names.add(Path(trace.tb_frame.f_code.co_filename).name)
        trace = trace.tb_next
    assert {"sourcetx.py", "test_dask_distributed.py"} <= names
    staged = len(list(tmp_path.iterdir()))
    assert staged < 6
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == staged
    assert tx.adopted == {}
    retry = plan_for(source)
    write_into(tx, source, retry)
    assert np.array_equal(retry.read(tx.content()), np.zeros(160))


def test_a10_failing_computation_on_a_cluster(client: Any, tmp_path: Path) -> None:
    """A10: a chunk that can't be computed is raised as itself, and the cluster stays usable."""
    array = da.zeros(40, chunks=4).map_blocks(_bad, dtype="f8", meta=np.empty(0))
    source, tx = open_source(array), DictTx(root=tmp_path)
    with pytest.raises(ZeroDivisionError, match="bad chunk"):
        write_into(tx, source, plan_for(source))
    assert tx.adopted == {}
    assert client.submit(int, "7").result() == 7


def test_e1_argument_beats_the_client(client: Any) -> None:
    """E2: scheduler= wins over an active client, and a transaction without remote staging works."""
    source, tx = open_source(da.from_array(BASE, chunks=4), scheduler="threads"), DictTx()
    assert not source.remote
    plan = plan_for(source)
    write_into(tx, source, plan)
    assert np.array_equal(plan.read(tx.content()), BASE)


def test_e14_lazy_inside_a_worker(client: Any, tmp_path: Path) -> None:
    """E14: computed on the cluster, the lazy write runs its chunks there and commits."""
    source = open_source(da.from_array(BASE, chunks=4))
    plan, root = plan_for(source), tmp_path

    def write() -> Any:
        tx = DictTx(root=root)
        write_into(tx, source, plan)
        return tx.commit(), tx.content()

    snapshot, content = lazy(write).compute()
    assert snapshot.paths == 10
    assert np.array_equal(plan.read(content), BASE)


def test_interrupt_cancels_the_rest(client: Any, tmp_path: Path) -> None:
    """A25: an interrupt in the coordinator cancels what the cluster has not begun."""

    def interrupt(_blocks: int) -> None:
        raise KeyboardInterrupt

    source, tx = open_source(da.zeros(400, chunks=4)), DictTx(root=tmp_path)
    plan = plan_for(source, hook=FailAt(()))
    with pytest.raises(KeyboardInterrupt):
        write_into(tx, source, plan, progress=interrupt)
    count = len(list(tmp_path.iterdir()))
    assert count < 100
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == count
    assert tx.adopted == {}


def test_asynchronous_client_is_refused() -> None:
    """E2: a client that needs await can't be waited for; refused before a block is computed."""

    class AsyncClient:
        asynchronous = True

        def get(self) -> None:
            raise AssertionError

    with pytest.raises(UsageError, match="scheduler="):
        choose(AsyncClient())
