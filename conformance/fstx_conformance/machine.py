"""Programs of transactions, drawn and shrunk by Hypothesis, against a dictionary as model.

``machine_for(subject)`` gives a `hypothesis.stateful.RuleBasedStateMachine`; its ``TestCase`` is a test.
Several transactions are open at once, each a process of its own; commits may be killed at a call, or lose an
answer.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from fstx import seams
from fstx.errors import (
    ConflictError,
    InDoubtError,
    RecoveryError,
    TargetExistsError,
    TransactionError,
)
from fstx.paths import is_covered
from fstx.types import Capability, Mode, OutcomeState
from fstx_conformance.injector import Injector, Killed
from fstx_conformance.schedule import Fault
from fstx_conformance.subjects.base import Room, Subject, Tree
from fstx_conformance.trial import diff

PATHS = ("a", "d/x", "d/y")
TREES = ("d",)
MOST = 3
"""Transactions that are open at once."""

ACTIONS = ("kill", "kill-after", "lost-reply", "lost-request", "fail")


@dataclass
class Open:
    """One open transaction, and what it would do."""

    tx: Any
    mode: Mode
    id: str | None
    since: int  # the committed tree that was the newest at its begin
    process: Injector | None
    staged: Tree = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    touched: dict[str, int] = field(default_factory=dict)  # path or tree, and the newest tree then
    over: bool = False
    doubtful: bool = False  # somebody recovered: it may have been given up for dead

    def over_tree(self, tree: Tree) -> Tree:
        """What a commit makes of a tree."""
        if self.mode != "update":
            return dict(self.staged) if self.staged else dict(tree)
        return {p: c for p, c in tree.items() if not is_covered(p, self.removed)} | self.staged

    def touch(self, path: str, now: int) -> None:
        """It depends on a path from here on."""
        self.touched.setdefault(path, now)


transactions: Bundle[Open] = Bundle("transactions")
contents = st.binary(min_size=0, max_size=40).map(lambda b: b * (200 if b[:1] > b"\xc0" else 1))


class TransactionMachine(RuleBasedStateMachine):
    """Transactions over one room. Subclasses say of which subject; see `machine_for`."""

    subject: ClassVar[Subject]
    seen: ClassVar[Counter[str]]
    alone: ClassVar[bool | None] = (
        None  # one open transaction at a time: found out by the first two
    )
    room: Room

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        chance = random.Random(0)  # names are drawn so that an example can be run again
        self._stack.enter_context(seams.drawing(lambda count: chance.randbytes(count).hex()))
        self._stack.enter_context(seams.waiting(lambda seconds: None))
        seams.end_of_process()
        self.room = self.subject.room()
        self.room.checked = True
        self._stack.callback(self.room.close)
        self.trees: list[Tree] = [{}]  # all that were committed, oldest first
        self.opened: list[Open] = []
        self.ids: set[str] = set()
        told = self.room.open().guarantee(mode="update", durability="data")
        self.detects = Capability.CONFLICT_DETECTED in told

    def teardown(self) -> None:
        for one in self.living():
            with contextlib.suppress(TransactionError):
                one.tx.rollback()
        self.opened.clear()
        gc.collect(1)
        seams.end_of_process()
        self._stack.close()

    @property
    def tree(self) -> Tree:
        """What readers have to find."""
        return self.trees[-1]

    @property
    def now(self) -> int:
        """The number of the newest tree."""
        return len(self.trees) - 1

    def living(self) -> list[Open]:
        """Transactions that are not over."""
        return [one for one in self.opened if not one.over]

    @initialize(files=st.dictionaries(st.sampled_from(PATHS), st.just(b"old"), max_size=4))
    def fill(self, files: Tree) -> None:
        """What is there before."""
        if files:
            with self.room.begin(mode="create") as tx:
                for path, data in files.items():
                    tx.stage(path, data)
            self.trees.append(files)
            self.seen["committed"] += 1

    # --- begin ------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.living()) < MOST)
    @rule(
        target=transactions,
        mode=st.sampled_from(["update", "update", "update", "replace", "create"]),
        id=st.sampled_from([None, None, None, "job 1", "job 2"]),
    )
    def begin(self, mode: Mode, id: str | None) -> Open | MultipleResults[Open]:
        """A transaction of a process of its own."""
        process = None if self.subject.seam == "none" else Injector(agent="writer")
        rivals = [o for o in self.living() if (o.id == id and id) or o.mode == mode == "create"]
        try:
            tx = self.room.begin(process, mode=mode, id=id)
        except TargetExistsError:
            assert mode == "create", f"mode {mode}: told that the target exists"
            assert self.tree, "told that the target exists, and it is empty"
            self.seen["aborted"] += 1
            return multiple()
        except ConflictError:
            if type(self).alone is None and self.living():
                type(self).alone = True
            assert rivals or (self.alone and self.living()), (
                "begin was refused for a conflict, and there is none"
            )
            self.seen["conflict"] += 1
            return multiple()
        if self.alone is None and any(not o.doubtful for o in self.living()):
            type(self).alone = False
        one = Open(tx, mode, id, self.now, process)
        if tx.committed:
            assert id in self.ids, f"the id {id!r} counts as committed, and was not"
            one.over = True
        else:
            assert id not in self.ids, f"the id {id!r} was committed, and is not known"
            assert mode != "create" or not self.tree, "create of what is there"
        self.opened.append(one)
        return one

    # --- staging ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def using(self, one: Open) -> Any:
        """A call on an open transaction; one that was given up may be told so, and is over then."""
        if one.over:
            yield False
            return
        try:
            yield True
        except TransactionError:
            if not one.doubtful:
                raise
            one.over = True
            with contextlib.suppress(TransactionError):
                one.tx.rollback()

    def _staged(self, one: Open, path: str, data: bytes) -> None:
        one.touch(path, self.now)
        one.staged[path] = data

    @rule(one=transactions, path=st.sampled_from(PATHS), data=contents)
    def stage(self, one: Open, path: str, data: bytes) -> None:
        """Stage one object at once."""
        with self.using(one) as usable:
            if usable:
                one.tx.stage(path, data)
                self._staged(one, path, data)

    @rule(one=transactions, path=st.sampled_from(PATHS), data=contents, fails=st.booleans())
    def write(self, one: Open, path: str, data: bytes, fails: bool) -> None:
        """Write one object piece by piece; an exception in between discards it."""
        with self.using(one) as usable:
            if not usable:
                return
            try:
                with one.tx.open(path) as file:
                    file.write(data[:7])
                    if fails:
                        raise LookupError("the caller's own")
                    file.write(data[7:])
            except LookupError:
                return
            assert not fails, "an exception in the block did not come out"
            self._staged(one, path, data)

    @rule(one=transactions, path=st.sampled_from(PATHS), data=contents, adopted=st.booleans())
    def receive(self, one: Open, path: str, data: bytes, adopted: bool) -> None:
        """A worker stages; its receipt is adopted or not."""
        with self.using(one) as usable:
            if usable:
                receipt = one.tx.stager().stage(path, data)
                if adopted:
                    one.tx.adopt([receipt])
                    self._staged(one, path, data)

    @rule(one=transactions, path=st.sampled_from(PATHS), head=contents, data=contents)
    def compose(self, one: Open, path: str, head: bytes, data: bytes) -> None:
        """One object out of a buffer and a staged one."""
        with self.using(one) as usable:
            if usable:
                piece = one.tx.stager().stage("piece", data)
                one.tx.compose(path, [head, piece])
                self._staged(one, path, head + data)

    @rule(one=transactions, path=st.sampled_from(PATHS + TREES))
    def remove(self, one: Open, path: str) -> None:
        """Remove a file or a tree, as far as there is one."""
        with self.using(one) as usable:
            if not usable or one.mode != "update":
                return
            views = [one.over_tree(tree) for tree in self.trees[one.since :]]
            there = [any(is_covered(p, {path}) for p in view) for view in views]
            try:
                one.tx.remove(path)
            except FileNotFoundError:
                assert not all(there), f"remove({path!r}) finds nothing, and there is something"
                return
            assert any(there), f"remove({path!r}) found something, and there is nothing"
            one.touch(path, self.now)
            one.removed.add(path)
            for staged in [p for p in one.staged if is_covered(p, {path})]:
                del one.staged[staged]

    @rule(one=transactions, path=st.sampled_from(PATHS))
    def read(self, one: Open, path: str) -> None:
        """Read as it would be after commit."""
        with self.using(one) as usable:
            if not usable or (one.mode == "replace" and not one.staged):
                return
            found: bytes | None
            try:
                found = one.tx.read(path)
            except FileNotFoundError:
                found = None
            bases = [{}] if one.mode != "update" else self.trees[one.since :]
            allowed = [one.over_tree(base).get(path) for base in bases]
            assert found in allowed, (
                f"read({path!r}) gives {found!r:.60}, not one of {allowed!r:.90}"
            )
            if path not in one.staged:
                one.touch(path, self.now)

    @rule(one=transactions)
    def paths(self, one: Open) -> None:
        """List what would be there after commit."""
        with self.using(one) as usable:
            if not usable or (one.mode == "replace" and not one.staged):
                return
            found = list(one.tx.paths())
            bases = [{}] if one.mode != "update" else self.trees[one.since :]
            if len(bases) == 1:
                wanted = sorted(one.over_tree(bases[0]))
                assert found == wanted, f"paths() gives {found}, not {wanted}"
            assert set(one.staged) <= set(found), (
                f"paths() gives {found}, and staged were {one.staged}"
            )

    # --- ends -----------------------------------------------------------------------------------------------

    @rule(one=consumes(transactions), fails=st.booleans())
    def give_up(self, one: Open, fails: bool) -> None:
        """Roll back, or leave the block by an exception, which comes out as it is."""
        with self.using(one) as usable:
            if not usable:
                return
            mine, found = LookupError("the caller's own"), None
            if fails:
                try:
                    with one.tx:
                        raise mine
                except LookupError as error:
                    found = error
                assert found is mine, f"another exception came out: {found!r}"
            else:
                one.tx.rollback()
            one.over = True
            self.seen["aborted"] += 1

    @rule(one=consumes(transactions))
    def commit(self, one: Open) -> None:
        """Publish."""
        self._publish(one)

    @precondition(lambda self: self.subject.seam != "none")
    @rule(one=consumes(transactions), action=st.sampled_from(ACTIONS), call=st.integers(1, 40))
    def commit_badly(self, one: Open, action: str, call: int) -> None:
        """Publish, with a fault at a call that changes something."""
        assert one.process is not None
        one.process.arm(Fault("+", call, action))
        self._publish(one)

    def _publish(self, one: Open) -> None:
        if one.over:
            return
        one.over = True
        old, new = self.tree, one.over_tree(self.tree)
        word, error = self._end(one)
        fired = one.process is not None and bool(one.process.fired)
        self.seen[word] += 1
        if word == "committed":
            assert not self._must_conflict(one), "committed over what another one changed"
            twin = one.id is not None and one.id in self.ids
            self._new(one, old if twin else new)
            return
        if word in ("aborted", "conflict"):
            reason = fired or one.doubtful or self._may_fail(one)
            assert reason, f"commit failed without a reason: {error!r}"
        self._over(one, word, old, new)

    def _end(self, one: Open) -> tuple[str, BaseException | None]:
        try:
            snapshot = one.tx.commit()
            return ("pending" if snapshot.pending else "committed"), None
        except Killed as error:
            return "died", error
        except InDoubtError as error:
            return "unknown", error
        except ConflictError as error:
            return "conflict", error
        except TransactionError as error:
            doubt = error.outcome in ("unknown", "pending", "committed")
            return ("unknown" if doubt else "aborted"), error

    def _changed(self, path: str, since: int) -> bool:
        """Whether what lies at a path, or below it, is another now than it was in a tree."""
        then, now = (
            {p: c for p, c in tree.items() if is_covered(p, {path})}
            for tree in (self.trees[since], self.tree)
        )
        return then != now

    def _must_conflict(self, one: Open) -> bool:
        if one.id is not None and one.id in self.ids:
            return False
        if one.mode == "create":
            return bool(self.tree and one.staged)
        return self.detects and any(self._changed(p, since) for p, since in one.touched.items())

    def _may_fail(self, one: Open) -> bool:
        if one.id is not None and one.id in self.ids:
            return True
        empty = one.mode != "update" and not one.staged
        return empty or self.now > one.since

    def _new(self, one: Open, tree: Tree) -> None:
        self.trees.append(tree)
        if one.id is not None:
            self.ids.add(one.id)

    def _over(self, one: Open, word: str, old: Tree, new: Tree) -> None:
        """It ended in another way than by a commit: somebody recovers, and one of the trees is there."""
        if word in ("aborted", "conflict"):
            found = self.room.read()
            assert found == old, f"told {word}, and readers find {diff(found, old)}"
        txid = one.tx.id
        one.tx = None
        if one.process is not None:
            one.process.die()
        gc.collect()
        self._recover()
        found = self.room.read()
        allowed = {"pending": [new], "aborted": [old], "conflict": [old]}.get(word, [old, new])
        assert found in allowed, f"told {word}; after recovery: {diff(found, allowed[-1])}"
        outcome = self.room.outcome(txid)
        if old != new and outcome in (OutcomeState.COMMITTED, OutcomeState.ABORTED):
            truth = OutcomeState.COMMITTED if found == new else OutcomeState.ABORTED
            twin = one.id is not None and one.id in self.ids
            assert twin or outcome is truth, (
                f"outcome says {outcome}, and the tree is the other one"
            )
        if found == new and old != new:
            self._new(one, new)
        elif one.id is not None and outcome is OutcomeState.COMMITTED:
            self.ids.add(one.id)

    # --- recovery and what always holds ---------------------------------------------------------------------

    def _recover(self) -> None:
        for other in self.living():
            other.doubtful = True
        try:
            self.room.recover()
        except RecoveryError as error:
            raise AssertionError(f"recover refused: {error}") from error

    @rule()
    def recover(self) -> None:
        """Somebody recovers, whoever is alive."""
        self._recover()

    @invariant()
    def readers_find_the_model(self) -> None:
        """What is there is what was committed last."""
        found = self.room.read()
        assert found == self.tree, (
            f"readers find other than was committed: {diff(found, self.tree)}"
        )


def machine_for(subject: Subject) -> type[TransactionMachine]:
    """The machine over a subject; ``.TestCase`` of it is a test, ``.seen`` counts what was told."""
    name = "".join(c if c.isalnum() else "_" for c in f"Machine_{subject.name}")
    return type(name, (TransactionMachine,), {"subject": subject, "seen": Counter()})


__all__ = ["Open", "TransactionMachine", "machine_for"]
