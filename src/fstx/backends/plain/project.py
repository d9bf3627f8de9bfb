"""Performs `Project`: what was decided comes to its plain names, by its writer or by whoever comes next."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

from fstx import seams
from fstx.backends.plain.base import contents
from fstx.backends.plain.claims import Decided
from fstx.backends.plain.compare import Content, holds
from fstx.backends.plain.home import Home
from fstx.backends.plain.names import is_gone, is_ops, staged_prefix
from fstx.backends.plain.ops import Op, stamp, unpack
from fstx.errors import InDoubtError, RecoveryError, StorageError
from fstx.machines import manifest as m
from fstx.machines import project as p
from fstx.machines import vocabulary as v
from fstx.state.entries import matches
from fstx.state.records import digest
from fstx.stores import Answer, Info

WHOLE_BYTES = 16 << 20
"""Objects up to this size are copied in one conditional put."""

_THREADS = 16
_READ_BYTES = 8 << 20
_BUSY = 4
_LOOKS = 48  # more are looked up by listing the targets
What: TypeAlias = Literal["new", "base", "finished", "other"]


def steps(home: Home, txid: str, decided: Decided) -> tuple[Op, ...]:
    """The steps of a decided transaction, from its record or from where that points to."""
    if decided.ops is not None:
        return decided.ops
    pointer = decided.pointer
    assert pointer is not None
    where = f"{home.store.url}/{pointer.key}"
    data = home.store.get(pointer.key)
    if len(data) != pointer.size_bytes or digest(data) != pointer.digest:
        raise RecoveryError(
            f"{where} is damaged: it is not what transaction {txid} wrote. Nothing was changed; restore it, "
            "or remove the targets and write them again"
        )
    return unpack(data, txid, decided.names, where)


class Projection:
    """Brings one decided transaction to its plain names.

    Steps that may go in any order are one operation of the machine, made by several threads.

    Parameters
    ----------
    home
        Of the targets.
    txid, decided
        The transaction.
    """

    def __init__(
        self,
        home: Home,
        txid: str,
        decided: Decided,
    ) -> None:
        self.home = home
        self.txid = txid
        self.decided = decided
        self.cause: BaseException | None = None
        self._groups: list[list[Op]] = []
        self._in: set[int] = set()  # steps that are in, by id

    def run(self, *, recovering: bool = False) -> v.Committed | v.Stuck:
        """Go on until the machine has its last word. Storage's errors are in `cause`."""
        try:
            self._groups = grouped(steps(self.home, self.txid, self.decided), self.decided.entry)
        except FileNotFoundError as error:
            self.cause = error
            if self._finished():
                return v.Committed()
            return v.Stuck(f"the steps of transaction {self.txid} are gone")
        except OSError as error:
            self.cause = error
            return v.Committed(pending=True)
        machine = p.Project(
            tuple(
                p.Op("remove" if g[0].kind == "remove" else "put", _ranks_last(g[0], self.decided))
                for g in self._groups
            )
        )
        state, then = machine.recover() if recovering else machine.start()
        while not isinstance(then, v.Committed | v.Stuck):
            state, then = machine.step(state, self._perform(then))
        return then

    def _perform(self, effect: Any) -> Any:
        try:
            match effect:
                case p.Apply(op):
                    return self._apply(self._groups[op])
                case p.Inspect(op):
                    return p.Found(self._inspect(self._groups[op]))
                case p.Finish():
                    return self._finish()
                case m.Pause(turn):
                    seams.pause(random.uniform(0, min(2.0, 0.01 * 2**turn)))
                    return v.Done()
        except (OSError, InDoubtError) as error:
            self.cause = error
            return v.Refused("failed") if isinstance(effect, p.Finish) else v.Unknown()
        raise AssertionError(f"no effect {effect!r}")

    # --- one step -------------------------------------------------------------------------------

    def _apply(self, group: list[Op]) -> Any:
        todo = [op for op in group if id(op) not in self._in]
        removing = bool(todo) and todo[0].kind == "remove"
        answers = [self._remove(todo)] if removing else _each(todo, self._put)
        for rank in (v.Refused, v.Unknown, m.Taken, m.Busy):
            worst = next((a for a in answers if isinstance(a, rank)), None)
            if worst is not None:
                return worst
        return v.Done()

    def _put(self, op: Op) -> Any:
        parent = self.home.parent
        try:
            if op.size_bytes > WHOLE_BYTES and op.inline is None:
                answer = self._stream(op)
            else:
                data = self._content(op)
                answer = self._put_if(op, data)
                for turn in range(_BUSY):
                    if answer is not Answer.BUSY:
                        break
                    seams.pause(0.02 * 2**turn)
                    answer = self._put_if(op, data)
        except OSError as error:
            self.cause = error
            return v.Unknown()  # `Inspect` tells what lies there
        if answer is Answer.DONE:
            self._in.add(id(op))
            return v.Done()
        self.cause = self.cause or StorageError(f"{parent.url}/{op.path}: {answer.value}")
        return {Answer.TAKEN: m.Taken(), Answer.BUSY: m.Busy()}.get(answer, v.Unknown())

    def _put_if(self, op: Op, data: bytes) -> Answer:
        parent = self.home.parent
        if not op.base:
            return parent.put_new(op.path, data)
        info = parent.info(op.path)
        if info is None:
            return parent.put_new(op.path, data)  # somebody removed it: nothing is overwritten
        if stamp(info) != op.base:
            return Answer.TAKEN
        if info.token is not None and self.home.proof().replace_if:
            return parent.replace_if(op.path, data, info.token)
        parent.put(op.path, data, checksum=op.checksum)
        return Answer.DONE

    def _stream(self, op: Op) -> Answer:
        """A large object, piece by piece; conditional where the store can do that."""
        parent, home = self.home.parent, self.home.store
        info = parent.info(op.path)
        if info is not None and stamp(info) != op.base:
            return Answer.TAKEN
        conditional = getattr(parent, "open_if", None)
        token = None if info is None else info.token
        writer = parent.open(op.path) if conditional is None else conditional(op.path, token)
        try:
            for start in range(0, op.size_bytes, _READ_BYTES):
                stop = min(start + _READ_BYTES, op.size_bytes)
                writer.write(home.get(op.source, start, stop))
            if conditional is None and stamp(parent.info(op.path)) != stamp(info):
                writer.abort()
                return Answer.TAKEN
            answer = writer.close()
        except BaseException:
            writer.abort()
            raise
        return answer if isinstance(answer, Answer) else Answer.DONE

    def _content(self, op: Op) -> bytes:
        if op.inline is not None:
            return op.inline
        data = self.home.store.get(op.source)
        if len(data) != op.size_bytes or not matches(data, op.checksum):
            raise StorageError(
                f"{self.home.store.url}/{op.source} is damaged: it is not what was staged"
            )
        return data

    def _remove(self, todo: list[Op]) -> Any:
        """Those that still are what they were; all that is neither that nor gone is a stranger's."""
        parent = self.home.parent
        states = self._states(todo)
        going = [op for op, state in zip(todo, states, strict=True) if state == "base"]
        parent.delete([op.path for op in going])
        self._in.update(id(op) for op in going)
        return m.Taken() if "other" in states else v.Done()

    # --- looking ----------------------------------------------------------------------------------

    def _inspect(self, group: list[Op]) -> What:
        todo = [op for op in group if id(op) not in self._in]
        states = self._states(todo)
        self._in.update(id(op) for op, s in zip(todo, states, strict=True) if s == "new")
        if "other" in states:
            if self._finished():
                return "finished"
            at = next(op.path for op, s in zip(todo, states, strict=True) if s == "other")
            self.cause = self.cause or StorageError(
                f"{self.home.url}/{at} was written by another program after the commit was decided"
            )
            return "other"
        if "base" in states:
            return "finished" if self._finished() else "base"
        return "new"

    def _states(self, ops: Sequence[Op]) -> list[What]:
        if len(ops) <= _LOOKS:
            return _each(ops, lambda op: self._look(op, self.home.parent.info(op.path)))
        found = contents(self.home.parent, self.decided.names)
        return _each(ops, lambda op: self._look(op, found.get(op.path)))

    def _look(self, op: Op, info: Info | None) -> What:
        if op.kind == "remove":
            if info is None:
                return "new"
            return "base" if stamp(info) == op.base else "other"
        if stamp(info) == op.base or info is None:
            # Absent where a base was: somebody removed it, so nothing of theirs is in the way.
            return "base"
        return "new" if self._is_new(op, info) else "other"

    def _is_new(self, op: Op, info: Info) -> bool:
        content = Content(op.size_bytes, op.checksum)
        if op.inline is not None:
            if info.size_bytes != op.size_bytes:
                return False
            return self.home.parent.get(op.path) == op.inline
        return holds(self.home.parent, op.path, info, content)

    def _finished(self) -> bool:
        return self.txid not in self.home.refresh().decided

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self) -> Any:
        """Staged objects go, then the record that says so, then the steps themselves."""
        store = self.home.store
        left = [info.key for info in store.list(staged_prefix(self.txid))]
        # That it is over stays there for workers that go on; `recover` removes it after a day.
        store.delete([key for key in left if not is_ops(key) and not is_gone(key)])
        self.home.service(
            "done",
            self.txid,
            lambda ledger: ledger.finish(self.txid),
            lambda ledger: "free" if self.txid in ledger.decided else "moot",
            lambda ledger: self.txid not in ledger.decided,
        )
        try:
            store.delete([key for key in left if is_ops(key)])
        except OSError as error:
            self.cause = error  # published all the same; `recover` removes it
        return v.Done()


def grouped(ops: Sequence[Op], entry: str) -> list[list[Op]]:
    """Steps that may be made in any order together; the entry comes by itself, after the others."""
    parts = [op for op in ops if op.kind == "part"]
    publishers = [op for op in ops if op.kind == "publisher" and op.path != entry]
    last = [op for op in ops if op.kind == "publisher" and op.path == entry]
    first = [op for op in ops if op.kind == "remove" and is_publisher(op.path, entry)]
    gone = [op for op in ops if op.kind == "remove" and not is_publisher(op.path, entry)]
    return [group for group in (parts, publishers, last, first, gone) if group]


_DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})


def is_publisher(path: str, entry: str) -> bool:
    """Whether readers find other objects through this one."""
    return path == entry or path.rpartition("/")[2] in _DOCUMENTS


def _ranks_last(op: Op, decided: Decided) -> bool:
    if op.kind == "remove":
        return is_publisher(op.path, decided.entry)
    return op.kind == "publisher"


def _each(ops: Sequence[Op], call: Callable[[Op], Any]) -> list[Any]:
    if len(ops) <= 1:
        return [call(op) for op in ops]
    with ThreadPoolExecutor(min(_THREADS, len(ops))) as pool:
        return list(pool.map(call, ops))


__all__ = ["Projection", "grouped", "is_publisher", "steps"]
