"""What holds on every file server; inherited by one test class for each, which has the fixture `place`."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr

import fstx
from fstx.backends.local import probe
from fstx.backends.local.transaction import LocalTransaction
from fstx.types import Capability, OutcomeState
from support import filejobs
from support.dyingops import DyingOps, Killed
from support.emulators import TESTS, FilePlace
from support.filejobs import SCENES, begin, calls_of, dying, end_of, killed_at
from support.relay import Loss, Relay
from support.trees import plant, tree

GEO = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}


def clear(place: FilePlace, files: dict[str, bytes]) -> None:
    """Make the place hold these files alone."""
    subprocess.run(["rm", "-rf", *map(str, place.root.iterdir())], check=True)
    plant(place.root, files)


class FileTests:
    """What a file server keeps. A test of many faults takes each `stride`-th, from `first` on."""

    first, stride = 1, 1

    @pytest.fixture(autouse=True)
    def _process_ends(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A killed process runs no finalizers; what the place can do is asked for anew by each test."""
        monkeypatch.delattr(LocalTransaction, "__del__")
        monkeypatch.setattr(probe, "_seen", {})
        self._own: list[Any] = []
        yield
        for ops in self._own:
            end_of(ops)

    def calls(self, place: FilePlace, **more: Any) -> Any:
        ops = calls_of(place, **more)
        self._own.append(ops)
        return ops

    # --- commits ---

    @pytest.mark.parametrize("name", list(SCENES))
    def test_commit(self, place: FilePlace, name: str) -> None:
        """FILES-1: what is committed is what plain readers find, and nothing lies beside it."""
        scene = SCENES[name]
        plant(place.root, scene.old)
        tx = scene.run(place, self.calls(place))
        assert tree(place.root) == scene.new
        home = place.url.replace("root@", "")  # who wrote it is no part of where it lies
        assert sorted(tx.snapshot.urls) == sorted(f"{home}/{name}" for name in scene.names)

    def test_the_public_functions(self, place: FilePlace) -> None:
        """FILES-2: begin, read, rollback, recover and outcome by URL alone; a rollback leaves the old."""
        plant(place.root, {"t/a": b"1"})
        url, options = place.at("t"), place.options
        with fstx.begin(url, **options) as tx:
            tx.stage("b", b"22")
            assert tx.read("a") == b"1"
            assert list(tx.paths()) == ["a", "b"]
            assert fstx.outcome(url, tx.id, **options) is OutcomeState.ACTIVE
        with pytest.raises(RuntimeError), fstx.begin(url, **options) as tx:
            tx.stage("a", b"never")
            raise RuntimeError
        assert tree(place.root) == {"t/a": b"1", "t/b": b"22"}
        assert not fstx.recover(url, **options)
        with pytest.raises(fstx.TargetExistsError):
            fstx.begin(url, mode="create", **options)

    def test_layouts(self, place: FilePlace) -> None:
        """FILES-3: numpy, zarr and GDAL read what was written, and what replaced it."""
        for turn in range(2):
            array = np.arange(48 * 40, dtype="int16").reshape(48, 40) + turn
            for name, more in {"a.npy": {}, "a.zarr": {"chunks": (16, 16)}, "a.vrt": GEO}.items():
                how: dict[str, Any] = {"overwrite": bool(turn), "storage_options": place.options}
                require = ("RECOVERABLE",) if turn else ("ATOMIC_SET",)
                fstx.write(array, place.at(name), require=require, **how, **more)
            assert (np.load(place.root / "a.npy") == array).all()
            assert (zarr.open_array(place.root / "a.zarr", mode="r")[:] == array).all()
            with rasterio.open(place.root / "a.vrt") as found:
                assert (found.read(1) == array).all()

    def test_promises(self, place: FilePlace) -> None:
        """FILES-4: DURABLE is not promised and refused when required; locks are leases, and that is said."""
        told = fstx.guarantee(place.at("t"), **place.options)
        assert Capability.DURABLE not in told
        protocol = "SMB" if place.kind == "smbd" else "SFTP"
        assert f"{protocol} has no call that syncs a dir" in told[Capability.DURABLE].reason
        assert "password" in told[Capability.REMOTE_STAGING].reason
        assert {Capability.RECOVERABLE, Capability.FENCED, Capability.CONFLICT_DETECTED} <= (
            told.capabilities
        )
        assert "fenced" in told[Capability.CONFLICT_DETECTED].reason
        with pytest.raises(fstx.CapabilityError):
            fstx.begin(place.at("t"), require="DURABLE", **place.options)
        assert tree(place.root) == {}

    def test_what_is_wrong_is_told(self, place: FilePlace) -> None:
        """FILES-17: an option that is not known and a server that does not answer are told as such."""
        with pytest.raises(fstx.UsageError, match="nosuch"):
            fstx.begin(place.at("t"), nosuch=1, **place.options)
        closed = place.through(1)
        with pytest.raises(fstx.StorageError, match="no connection"):
            fstx.begin(closed.at("t"), **place.options)
        with pytest.raises(fstx.PathError, match="names no host"):
            fstx.begin(place.url.partition("://")[0] + ":///d/t", **place.options)

    def test_an_id_commits_once(self, place: FilePlace) -> None:
        """FILES-5: a second run with the id of a committed one learns it and changes nothing."""
        with fstx.begin(place.at("t"), id="job 1", **place.options) as tx:
            tx.stage("a", b"1")
        assert fstx.begin(place.at("t"), id="job 1", **place.options).committed
        assert fstx.outcome(place.at("t"), "job 1", **place.options) is OutcomeState.COMMITTED

    def test_a_stager_elsewhere(self, place: FilePlace) -> None:
        """FILES-6: a stager pickles without a password; the copy works where its options let it in."""
        ops = self.calls(place)
        tx = begin(filejobs.backend(place, "t", ops=ops))
        text = pickle.dumps(tx.stager())
        assert place.options.get("password", "no password").encode() not in text
        copy = pickle.loads(text)
        if "password" in place.options:
            with pytest.raises(fstx.StorageError, match="let"):
                copy.stage("a", b"1")
            tx.rollback()
            return
        tx.adopt([copy.stage("a", b"1")])
        with copy.open("b") as file:
            file.write(b"2" * 100_000)
            file.seek(0)
            file.write(b"x")
        tx.adopt([file.receipt])
        tx.commit()
        end_of(copy._ops)
        assert tree(place.root) == {"t/a": b"1", "t/b": b"x" + b"2" * 99_999}

    # --- conflicts ---

    def test_conflicts(self, place: FilePlace) -> None:
        """FILES-7: of two updates of one path the second is refused, also within a second and of one size."""
        plant(place.root, {"t/a": b"0", "t/b": b"0"})
        found = filejobs.backend(place, "t", ops=self.calls(place))
        one, two, three = begin(found), begin(found), begin(found)
        one.stage("a", b"1")
        two.stage("b", b"2")
        three.stage("a", b"3")
        one.commit()
        two.commit()
        with pytest.raises(fstx.ConflictError):
            three.commit()
        assert tree(place.root) == {"t/a": b"1", "t/b": b"2"}

    def test_a_tree_that_was_replaced(self, place: FilePlace) -> None:
        """FILES-8: neither an update nor a replacement is built on a tree that another replaced since."""
        plant(place.root, {"t/a": b"0"})
        found = filejobs.backend(place, "t", ops=self.calls(place))
        update, replacement, first = begin(found), begin(found, "replace"), begin(found, "replace")
        update.stage("new", b"1")  # a path that neither tree has
        replacement.stage("a", b"2")
        first.stage("a", b"3")
        first.commit()
        for tx in (update, replacement):
            with pytest.raises(fstx.ConflictError):
                tx.commit()
        assert tree(place.root) == {"t/a": b"3"}

    def test_a_plain_writer_is_noticed(self, place: FilePlace) -> None:
        """FILES-9: a file that a plain writer made longer is not overwritten."""
        plant(place.root, {"t/a": b"0"})
        tx = begin(filejobs.backend(place, "t", ops=self.calls(place)))
        tx.stage("a", b"1")
        (place.root / "t" / "a").write_bytes(b"longer")
        with pytest.raises(fstx.ConflictError):
            tx.commit()
        assert tree(place.root) == {"t/a": b"longer"}

    def test_writers_at_once(self, place: FilePlace) -> None:
        """FILES-10: two processes that count up lose no count, whoever is refused tries again."""
        plant(place.root, {"t/counter": b"0"})
        code = "import sys; from support.filejobs import count_up; count_up(sys.argv[1:])"
        command = [sys.executable, "-c", code, place.at("t"), "3", filejobs.written(place.options)]
        running = [subprocess.Popen(command, cwd=TESTS, stderr=subprocess.PIPE) for _ in range(2)]
        for process in running:
            said = process.communicate(timeout=200)[1]
            assert process.returncode == 0, said.decode()
        assert tree(place.root) == {"t/counter": b"6"}

    def test_readers_see_old_or_new(self, place: FilePlace) -> None:
        """FILES-11: a plain reader of one file, while it is replaced again and again, finds it whole."""
        plant(place.root, {"f": b"0" * 50_000})
        path, seen, found = (
            place.root / "f",
            set(),
            filejobs.backend(place, "f", joined=True, ops=self.calls(place)),
        )

        def commit() -> None:
            for turn in range(1, 5):
                with begin(found) as tx:
                    tx.stage("f", b"%d" % turn * 50_000)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(commit)
            while not done.done():
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue  # swap: absent for a moment, and the guarantee says so
                assert len(data) == 50_000
                assert len(set(data)) == 1
                seen.add(data[:1])
            done.result()
        assert len(seen) > 1

    # --- kills ---

    @pytest.mark.parametrize("name", ["replaced tree", "several files"])
    def test_kill_at_every_call(self, place: FilePlace, name: str) -> None:
        """FILES-12: killed at any changing call, recovery over a new connection brings old or new, whole."""
        scene, seen = SCENES[name], set()
        clean = self.calls(place)
        for k in itertools.count(self.first, self.stride):
            clear(place, scene.old)
            call = killed_at(scene, place, k)
            if call is None:
                break
            scene.backend(place, clean).recover()
            found = tree(place.root)
            assert found in (scene.old, scene.new), (k, call, found)
            assert not scene.backend(place, clean).recover(), (k, call)
            seen.add(found == scene.new)
        assert seen == {False, True}
        assert k > 25

    def test_kill_of_recovery(self, place: FilePlace) -> None:
        """FILES-13: recovery may be killed at any of its calls, and the next one brings it to its end."""
        scene = SCENES["several files"]
        clear(place, scene.old)
        killed_in_commit(scene, place)
        for j in itertools.count(1):
            ops = dying(place, kill_at=j)
            try:
                scene.backend(place, ops).recover()
                break
            except Killed:
                continue
            finally:
                end_of(ops.inner)
        assert tree(place.root) == scene.new
        assert j > 5

    def test_a_killed_process(self, place: FilePlace, tmp_path: Any) -> None:
        """FILES-14: after SIGKILL of a writer the next one begins, commits, and leaves nothing of it."""
        plant(place.root, {"t/a": b"0"})
        ready = tmp_path / "ready"
        command = [sys.executable, "-c", filejobs.WRITER, place.at("t"), str(ready)]
        writer = subprocess.Popen([*command, filejobs.written(place.options)], cwd=TESTS)
        try:
            txid = filejobs.wait_for(
                lambda: ready.exists() and ready.read_text(), "the writer's transaction"
            )
            assert fstx.outcome(place.at("t"), txid, **place.options) is OutcomeState.ACTIVE
            os.kill(writer.pid, signal.SIGKILL)
        finally:
            writer.kill()
            writer.wait()

        def given_up() -> bool:  # a server may need a moment to see that the connection ended
            state = fstx.outcome(place.at("t"), txid, **place.options)
            return state is OutcomeState.ABORTED

        filejobs.wait_for(given_up, "the end of the writer")
        with fstx.begin(place.at("t"), **place.options) as tx:
            tx.stage("a", b"1")
        assert tree(place.root) == {"t/a": b"1"}

    def test_a_process_that_ends_with_a_transaction_open(self, place: FilePlace) -> None:
        """FILES-24: it ends at once, and the next writer settles what it left."""
        plant(place.root, {"t/a": b"0"})
        code = """if True:
            import sys, fstx
            from support.filejobs import parse
            tx = fstx.begin(sys.argv[1], **parse(sys.argv[2:]))
            tx.stage("a", b"never")
            tx.keep = tx  # a cycle: it is there until the interpreter ends
        """
        command = [sys.executable, "-c", code, place.at("t"), filejobs.written(place.options)]
        done = subprocess.run(command, cwd=TESTS, timeout=50, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode()

        def begun() -> Any:
            try:
                return fstx.begin(place.at("t"), mode="replace", **place.options)
            except fstx.ConflictError:
                return None

        with filejobs.wait_for(begun, "a begin after its end") as tx:
            tx.stage("a", b"1")
        fstx.recover(place.at("t"), **place.options)
        assert tree(place.root) == {"t/a": b"1"}

    def test_fenced(self, place: FilePlace) -> None:
        """FILES-15: a writer that was given up publishes nothing, however late it goes on."""
        scene = SCENES["replaced tree"]
        clear(place, scene.old)
        ops = self.calls(place)
        late = begin(scene.backend(place, ops), "replace")
        late.stage("a", b"late")
        end_of(ops)  # its locks are gone as after a stall; the process goes on
        clean = self.calls(place)
        assert scene.backend(place, clean).recover().settled[0].state is OutcomeState.ABORTED
        with pytest.raises(fstx.CommitError):
            late.commit()
        assert tree(place.root) == scene.old

    # --- lost connections ---

    @pytest.mark.parametrize("loss", ["request", "answer"])
    def test_lost_at_every_call(self, place: FilePlace, loss: Loss) -> None:
        """FILES-16: whatever call loses its request or its answer, what commit says is what readers find."""
        scene, told = SCENES["several files"], set()
        clean = self.calls(place)
        for k in itertools.count(self.first, self.stride):
            clear(place, scene.old)
            relay = Relay(place.port)
            inner = calls_of(place.through(relay.port))
            ops = DyingOps(inner, kill_at=k, before=lambda relay=relay: relay.lose(loss))
            said = "committed"
            try:
                scene.run(place, ops)
            except fstx.TransactionError as error:
                said = error.outcome or "refused"
            finally:
                end_of(inner)
                relay.stop()
            if len(ops.calls) < k:
                break
            assert relay.lost == 1, (k, ops.calls[k - 1])
            scene.backend(place, clean).recover()
            found = tree(place.root)
            where = (k, ops.calls[k - 1], said, found)
            assert found in (scene.old, scene.new), where
            if said == "committed":
                assert found == scene.new, where
            elif said != "unknown":
                assert found == scene.old, where
            told.add(said)
        assert {"committed"} < told
        assert k > 25


def killed_in_commit(scene: Any, place: FilePlace) -> None:
    """A writer that dies after its commit record, with moves still to make."""
    probe_ops = DyingOps(calls_of(place))
    scene.run(place, probe_ops)
    end_of(probe_ops.inner)
    records = [i for i, c in enumerate(probe_ops.calls) if c.endswith("/commit")]
    clear(place, scene.old)
    assert killed_at(scene, place, records[0] + 3) is not None


class LeaseTests(FileTests):
    """What holds where locks are leases (SFTP)."""

    def test_a_new_file_is_later(self, place: FilePlace) -> None:
        """LEASE-8: what replaces a file has a later time, so that the two can be told apart."""
        plant(place.root, {"t/a": b"0", "t/b": b"0"})
        path = place.root / "t" / "a"
        ahead_s = int(time.time()) + 1000
        os.utime(path, (ahead_s, ahead_s))
        with begin(filejobs.backend(place, "t", ops=self.calls(place))) as tx:
            tx.stage("a", b"1")
        assert path.read_bytes() == b"1"
        assert int(path.stat().st_mtime) == ahead_s + 1

    @pytest.mark.parametrize("k", [20, 32, 44, 56])
    def test_a_stalled_host_is_fenced(self, place: FilePlace, tmp_path: Any, k: int) -> None:
        """LEASE-6: a writer of another host that stalls loses its turn, learns it, and takes nothing back."""
        clear(place, {"t/a": b"0", "t/keep": b"0"})
        options = {**place.options, "lease_s": 1.0, "beat_s": 0.1}
        result = tmp_path / "result"
        code = "import sys; from support.filejobs import stall_and_go_on as f; f(sys.argv[1:])"
        command = [sys.executable, "-c", code, place.kind, place.url, str(k), str(result)]
        other = subprocess.Popen([*command, filejobs.written(options)], cwd=TESTS)
        try:
            filejobs.wait_for(filejobs.stopped_or_done(other.pid, result), "a stall")
            while True:
                try:
                    with fstx.begin(place.at("t"), **options) as tx:
                        tx.stage("a", b"B")
                    break
                except fstx.ConflictError:
                    continue
            other.send_signal(signal.SIGCONT)
            assert other.wait(60) == 0
        finally:
            other.kill()
            other.wait()
        said = result.read_text()
        assert "unstopped" not in said
        fstx.recover(place.at("t"), **options)
        found = tree(place.root)
        committed = {"t/a": b"B", "t/keep": b"0", "t/only": b"A"}
        aborted = {"t/a": b"B", "t/keep": b"0"}
        assert found in (committed, aborted), said
        if said != "unknown":
            assert found == (committed if said == "committed" else aborted), said
        if k == 20:
            assert said == "aborted"
