"""``with fs.transaction`` and joining: one commit, no state on instances."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

import fstx
from fstx.errors import StateError, UsageError
from fstx.filesystem import EachCallCommitsWarning, notices
from support.txplaces import commits, content, leftovers, opened


def _everything(fs: object, root: str, folder: Path) -> None:
    f: fsspec.AbstractFileSystem = fs
    (folder / "local").write_bytes(b"l")
    with f.open(f"{root}/open", "wb") as file:
        file.write(b"o")
    with f.open(f"{root}/text", "w") as file:
        file.write("t")
    f.pipe({f"{root}/p/1": b"1", f"{root}/p/2": b"2"})
    f.pipe_file(f"{root}/p/3", b"3")
    f.put(str(folder / "local"), f"{root}/put")
    f.cp(f"{root}/p", f"{root}/cp", recursive=True)
    f.mv(f"{root}/p/1", f"{root}/mv")
    f.rm(f"{root}/old")
    f.mkdir(f"{root}/dir")
    f.touch(f"{root}/touch")
    mapper = f.get_mapper(root)
    mapper["m/a"] = b"m"
    with f.open(f"{root}/open", "ab") as file:
        file.write(b"+")


AFTER = {
    "open": b"o+", "text": b"t", "p/2": b"2", "p/3": b"3", "put": b"l", "cp/1": b"1", "cp/2": b"2",
    "cp/3": b"3", "mv": b"1", "touch": b"", "m/a": b"m",
}  # fmt: skip


def test_everything_is_one_commit(target: str, tmp_path: Path) -> None:
    """I3: ``fs.transaction``: open, pipe, put, cp, mv, rm, mkdir, touch and a mapper, in one commit."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/old", b"")
    with fs.transaction as block:
        _everything(fs, root, tmp_path)
        mine = {n[len(root) + 1 :]: fs.cat_file(n) for n in fs.find(root)}
        assert mine == AFTER  # it reads its own writes
        assert fs.isdir(f"{root}/dir")
        other, _ = opened("tx::" + target)
        assert other.find(root) == sorted(fs.find(root))  # any instance of this context
        assert threading_content(target) == {"old": b""}  # nobody else
    assert block.snapshot is not None
    assert commits(target) == 2
    assert content(target) == AFTER
    assert fs.isdir(f"{root}/dir")
    assert fs.find(root) == [f"{root}/{n}" for n in sorted(AFTER)]


def threading_content(target: str) -> dict[str, bytes]:
    """What a thread outside of the transaction reads."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(content, target).result()


def test_an_exception_leaves_no_trace(target: str, tmp_path: Path) -> None:
    """Protects the dataset: a block that raises changes nothing and leaves no staged object."""
    fs, root = opened("tx::" + target)
    with pytest.raises(RuntimeError, match="in the block"), fs.transaction:
        fs.pipe_file(f"{root}/a", bytes(100_000))
        raise RuntimeError("in the block")
    assert not fs.find(root)
    assert leftovers(target) == []
    fs.pipe_file(f"{root}/old", b"")
    with pytest.raises(RuntimeError, match="in the block"), fs.transaction:
        _everything(fs, root, tmp_path)
        fs.pipe_file(f"{root}/big", bytes(100_000))
        raise RuntimeError("in the block")
    assert content(target) == {"old": b""}
    assert commits(target) == 1
    assert leftovers(target) == []
    fs.pipe_file(f"{root}/after", b"1")
    assert commits(target) == 2


def test_begin_is_joined(target: str, tmp_path: Path) -> None:
    """Protects ``fstx.begin("tx::...")``: what its context writes through fsspec is part of it."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/old", b"")
    with fstx.begin("tx::" + target) as tx:
        tx.stage("staged", b"s")
        assert fs.cat_file(f"{root}/staged") == b"s"
        _everything(fs, root, tmp_path)
    assert content(target) == {**AFTER, "staged": b"s"}
    assert commits(target) == 2


def test_nested_and_beside(target: str) -> None:
    """Protects from commits that a block would not cover: a second block and foreign places are refused."""
    fs, root = opened("tx::" + target)
    with fs.transaction:
        with pytest.raises(StateError, match="leave out the inner one"), fs.transaction:
            pass
        with pytest.raises(UsageError, match="outside of the dataset"):
            fs.pipe_file(f"{root}-elsewhere", b"")
        fs.pipe_file(f"{root}/a", b"1")
    with (
        fstx.begin("tx::" + target),
        pytest.raises(StateError, match="leave out the inner one"),
        fs.transaction,
    ):
        pass
    assert content(target) == {"a": b"1"}


def test_no_root_no_transaction() -> None:
    """Protects from a transaction about nothing: the error names the ways out."""
    fs = fsspec.filesystem("tx", target_protocol="memory")
    with pytest.raises(UsageError, match="root="), fs.transaction:
        pass


def test_start_and_end(target: str) -> None:
    """Protects fsspec's other spelling of a transaction."""
    fs, root = opened("tx::" + target)
    fs.start_transaction()
    fs.pipe({f"{root}/a": b"1", f"{root}/b": b"2"})
    fs.pipe_file(f"{root}/c", b"3")
    assert threading_content(target) == {}
    fs.end_transaction()
    assert commits(target) == 1
    assert sorted(content(target)) == ["a", "b", "c"]
    with pytest.raises(StateError, match="no transaction was started"):
        fs.end_transaction()


def test_an_open_file_stops_the_commit(target: str) -> None:
    """Protects from a file whose last bytes would be missing without a word."""
    fs, root = opened("tx::" + target)
    with pytest.raises(StateError, match="still open for writing"), fs.transaction:
        file = fs.open(f"{root}/a", "wb")
        file.write(b"half")
    assert file.closed
    assert content(target) == {}


def test_threads_and_coroutines_do_not_mix(target: str) -> None:
    """Protects concurrent transactions over one shared instance: each commits its own writes."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/first", b"")
    barrier = threading.Barrier(2)

    def job(n: int) -> None:
        with fs.transaction:
            fs.pipe_file(f"{root}/t{n}/a", b"1")
            barrier.wait()
            assert fs.find(f"{root}/t{1 - n}") == []
            fs.pipe_file(f"{root}/t{n}/b", b"1")
            barrier.wait()
            if n:
                raise RuntimeError("the second one gives up")

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(job, n) for n in range(2)]
    assert futures[0].exception() is None
    assert isinstance(futures[1].exception(), RuntimeError)
    assert sorted(content(target)) == ["first", "t0/a", "t0/b"]
    assert commits(target) == 2

    async def both() -> None:
        afs = fsspec.core.url_to_fs("tx::" + target, asynchronous=True)[0]

        async def one(n: int) -> None:
            async with afs.transaction:
                await afs._pipe_file(f"{root}/c{n}/a", b"1")
                await asyncio.sleep(0.01)
                assert await afs._find(f"{root}/c{1 - n}") == []
                await afs._pipe({f"{root}/c{n}/b": b"1", f"{root}/c{n}/c": b"1"})

        await asyncio.gather(one(0), one(1))

    asyncio.run(both())
    assert commits(target) == 4


def test_join_by_url(target: str) -> None:
    """Protects ``tx.url``: it joins from a thread that knows nothing of the transaction."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/first", b"")
    with fstx.begin("tx::" + target) as tx:
        url = tx.url

        def job() -> None:
            with fsspec.open(url + "/a", "wb") as file:
                file.write(b"1")
            joined, path = opened(url)
            assert path == root
            joined.pipe_file(f"{path}/b", b"2")
            inner, path = opened(url.replace("::", "/c/d::", 1))
            assert path == "c/d"
            inner.pipe_file(path, b"3")
            names = [f.path for f in fsspec.open_files(url + "/log-*", "wb", num=2)]
            assert names == [f"{root}/log-0", f"{root}/log-1"]
            joined.mv(f"{root}/b", f"{root}/e")
            with pytest.raises(StateError, match="ends where it was begun"), joined.transaction:
                pass

        thread = threading.Thread(target=contextvars.Context().run, args=(job,))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.Context().run, job).result()
        del thread
        assert fs.cat_file(f"{root}/a") == b"1"
    assert content(target) == {"first": b"", "a": b"1", "c/d": b"3", "e": b"2"}
    assert commits(target) == 2


def test_a_finished_transaction_can_not_be_joined(target: str) -> None:
    """Protects writes that would be lost: a URL of a transaction that is over is refused."""
    fs, root = opened("tx::" + target)
    with fs.transaction as block:
        joined, path = opened(block.url)
        joined.pipe_file(f"{path}/a", b"1")
    with pytest.raises(StateError, match="is over"):
        joined.pipe_file(f"{path}/b", b"1")
    late, _ = opened(f"{joined.unstrip_protocol(path)}")
    assert late.cat_file(f"{root}/a") == b"1"


def test_pickled_inside_it_still_belongs(target: str) -> None:
    """Protects work that is sent away from inside a block: it joins instead of committing on its own."""
    fs, root = opened("tx::" + target)
    with fs.transaction:
        fs.pipe_file(f"{root}/a", b"1")
        sent = pickle.dumps(fs)

        def job() -> None:
            pickle.loads(sent).pipe_file(f"{root}/b", b"2")

        contextvars.Context().run(job)
    assert content(target) == {"a": b"1", "b": b"2"}
    assert commits(target) == 1


def test_zarr_outside_of_a_transaction_is_told_once(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from many small commits by mistake: said once per process, never inside a transaction."""
    monkeypatch.setattr(notices, "_first", threading.Lock())
    fs, root = opened("tx::" + target)
    with fs.transaction:
        fs.pipe_file(f"{root}/zarr.json", b"{}")
    with pytest.warns(EachCallCommitsWarning, match=r"with fstx.begin\("):
        fs.pipe_file(f"{root}/zarr.json", b"{}")
    fs.pipe_file(f"{root}/zarr.json", b"{}")


def test_an_interrupt_stops_a_bulk_call(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from writes that land after Ctrl-C: the call has stopped, and undone its part."""
    import _thread
    import time

    from fstx.filesystem import operations

    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/first", b"")
    real, count = operations.pipe, []

    def slow(*args: object, **kwargs: object) -> None:
        count.append(1)
        if len(count) == 3:
            _thread.interrupt_main()
        time.sleep(0.02)
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(operations, "pipe", slow)
    with pytest.raises(KeyboardInterrupt):
        fs.pipe({f"{root}/{n}": b"x" for n in range(50)})
    stopped = len(count)
    time.sleep(0.1)
    assert len(count) == stopped < 50
    assert content(target) == {"first": b""}
    assert leftovers(target) == []


def test_native_threads_belong_to_the_instance_they_work_for(target: str) -> None:
    """Protects pyarrow's writers: without a context they write into its one open transaction."""
    import _thread
    import time

    def in_native_thread(call: object) -> list[BaseException]:
        errors: list[BaseException] = []
        done: list[int] = []

        def run() -> None:
            try:
                call()  # type: ignore[operator]
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
            done.append(1)

        _thread.start_new_thread(contextvars.Context().run, (run,))
        while not done:
            time.sleep(0.001)
        return errors

    fs, root = opened("tx::" + target)
    with fs.transaction:
        assert in_native_thread(lambda: fs.pipe_file(f"{root}/a", b"1")) == []
    assert commits(target) == 1
    barrier = threading.Barrier(2)

    def job(n: int) -> list[BaseException]:
        with fs.transaction:
            fs.pipe_file(f"{root}/b{n}", b"")
            barrier.wait()
            errors = in_native_thread(lambda: fs.pipe_file(f"{root}/c{n}", b"1"))
            barrier.wait()
        return errors

    with ThreadPoolExecutor(2) as pool:
        found = [f.result() for f in [pool.submit(job, n) for n in range(2)]]
    assert [len(errors) for errors in found] == [1, 1]
    assert all("not made by Python" in str(errors[0]) for errors in found)
    assert sorted(content(target)) == ["a", "b0", "b1"]


def test_an_instance_made_inside_belongs_to_the_block(target: str) -> None:
    """Protects plain thread pools: an instance that was made in a block writes into it from any thread."""
    with fstx.begin("tx::" + target):
        fs, root = opened("tx::" + target)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: fs.pipe_file(f"{root}/{n}", b"x"), range(8)))
    assert commits(target) == 1
    assert fs.find(root) == [f"{root}/{n}" for n in range(8)]
    fs.pipe_file(f"{root}/later", b"")
    assert commits(target) == 2


def test_what_outlives_its_block_does_not_write(target: str) -> None:
    """Protects from late tasks of a failed block: started inside of it, they can't commit on their own."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/first", b"")
    with pytest.raises(RuntimeError), fs.transaction:
        late = contextvars.copy_context()
        raise RuntimeError
    with pytest.raises(StateError, match="started inside"):
        late.run(fs.pipe_file, f"{root}/late", b"1")
    with pytest.raises(StateError, match="started inside"):
        late.run(fs.pipe, {f"{root}/late": b"1", f"{root}/later": b"1"})
    assert late.run(fs.cat_file, f"{root}/first") == b""
    assert content(target) == {"first": b""}


@pytest.mark.parametrize("by", ["begin", "fs.transaction"])
def test_a_new_dataset_is_found_before_its_first_commit(target: str, by: str) -> None:
    """Protects deeper URLs in a first transaction: they are in its dataset, not datasets of their own."""
    fs, root = opened("tx::" + target)
    with fstx.begin("tx::" + target) if by == "begin" else fs.transaction:
        deeper, path = opened(f"tx::{target}/a/b")
        deeper.pipe_file(f"{path}/c", b"1")
        assert fs.find(root) == [f"{root}/a/b/c"]
    assert content(target) == {"a/b/c": b"1"}
    assert commits(target) == 1
