"""The local backend: begin, guarantee and outcome for targets on one file system."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence

from fstx import seams
from fstx.backends.base import key_of, refuse_missing, wrap_storage_error
from fstx.backends.local.control import CLAIM, REF, TEMPORARY, Control, names_from
from fstx.backends.local.depot import LocalDepots
from fstx.backends.local.items import Target, identity, is_empty_tree, is_weak, lies_in
from fstx.backends.local.perform import LOCK_WAIT_S
from fstx.backends.local.probe import leaves_mount, probe
from fstx.backends.local.records import LIMIT_BYTES, seal, unseal
from fstx.backends.local.recovery import Recoverer
from fstx.backends.local.staging import Keeper
from fstx.backends.local.transaction import LocalTransaction
from fstx.errors import (
    CapabilityError,
    ConflictError,
    PathError,
    TargetExistsError,
    TransactionError,
    UsageError,
)
from fstx.ops import FileKind, LockHandle, Ops
from fstx.ops.processes import boot_id
from fstx.ops.windows import name_problem
from fstx.paths import CONTROL_NAME, check_path, fold
from fstx.select import Abilities, guarantee
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery

_TXID = re.compile(r"(?:k-)?[0-9a-f]{32}")


class LocalBackend:
    """One or several targets on one local file system.

    Parameters
    ----------
    targets
        Absolute or relative paths. A link as the last part is resolved: what it points to is the target.
    joined
        True when logical paths begin with a target's name, False for one target that is a tree.
    ops
        The operating-system calls.
    syncfs
        False forbids syncfs(2), which makes other programs' data durable as well: use it on a busy shared
        host. Each file is then synced as it is written.
    """

    def __init__(
        self, targets: Sequence[str], *, joined: bool, ops: Ops, syncfs: bool = True
    ) -> None:
        self._ops = ops
        self._joined = joined
        self._syncfs = syncfs
        self._given = tuple(targets)
        self._paths = tuple(ops.resolve(t) for t in targets)
        names = [os.path.basename(p) for p in self._paths]
        for given, path, name in zip(targets, self._paths, names, strict=True):
            if not name:
                raise PathError(
                    f"{given} is the root of a file system; name targets below it in a list: "
                    "fstx.begin([...])"
                )
            if CONTROL_NAME in path.replace(os.sep, "/").split("/"):
                raise PathError(f"{given} lies in {CONTROL_NAME}/, which is the library's own")
            if ops.name == "windows" and given.startswith("\\\\.\\"):  # what Windows makes of NUL
                raise PathError(f"{given} is a device")
            if ops.name == "windows" and (problem := name_problem(name)):
                raise PathError(f"{given}: Windows can't hold a name that {problem}")
        if len({fold(n) for n in names}) != len(names):
            raise PathError(
                f"targets of one transaction need names that differ by more than case, got {names}"
            )
        for path in self._paths:
            for other in self._paths:
                if path != other and lies_in(path, other):
                    raise PathError(
                        f"the target {path} lies in the target {other}; name one of them"
                    )
        parents = sorted({os.path.dirname(p) for p in self._paths})
        # The first by name, whatever the order of the call: a key finds its receipt again.
        self._control = Control(parents[0], ops)
        self._others = tuple(Control(p, ops) for p in parents[1:])

    def __repr__(self) -> str:
        return f"LocalBackend({', '.join(self._paths)})"

    @property
    def url(self) -> str:
        return ", ".join(self._ops.place + path for path in self._paths)

    @property
    def _controls(self) -> tuple[Control, ...]:
        return (self._control, *self._others)

    # --- the contract --------------------------------------------------------------------------

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What is promised here, probed; directories made for the probe are removed again."""
        with (
            self._storage_errors("asking what is promised"),
            self._parents_there(keep=False, durable=False),
            self._present(),
        ):
            abilities = probe(self._control, durable=durability == "data")
            return self._promise(abilities, mode, durability, entry)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> LocalTransaction:
        """Begin; settles first what dead writers left beside the targets.

        Raises
        ------
        CapabilityError
            The place can't promise what is required, or a target lies on another file system.
        TargetExistsError
            Mode ``create`` and a target holds something.
        ConflictError
            Another living transaction creates the same target, or has the same id.
        StorageError
            The place beside the target can't be written.
        """
        if entry is not None:
            check_path(entry)
        txid = seams.token_hex(16) if id is None else key_of(id)
        durable = durability == "data"
        with (
            self._storage_errors("beginning a transaction"),
            self._parents_there(keep=True, durable=durable) as created,
        ):
            self._settle_dead()
            try:
                return self._begin(mode, durability, require, entry, id, txid, created)
            except BaseException:
                for control in self._controls:
                    control.leave()
                raise

    def recover(self) -> Recovery:
        """Settle what dead writers left beside the targets and in them, and report it."""
        with self._storage_errors("recovering"):
            return Recoverer(self._settled_places()).recover(self.url)

    def outcome(self, id: str, /) -> OutcomeState:
        """What became of a transaction, by the caller's id or by ``tx.id``."""
        with self._storage_errors("asking for an outcome"):
            recoverer = Recoverer(self._settled_places())
            own = (id,) if _TXID.fullmatch(id) else ()
            for txid in (key_of(id), *own):
                state = recoverer.outcome(txid)
                if state is not OutcomeState.UNKNOWN:
                    return state
            return OutcomeState.UNKNOWN

    def depots(self, entry: str | None = None, /) -> LocalDepots:
        """Where unfinished jobs of these targets are kept."""
        return LocalDepots(self._control, self._paths, syncfs=self._syncfs)

    def forget(self, id: str, /) -> None:
        """The receipt of a finished transaction goes: its id was nobody's choice."""
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(self._control.receipt(key_of(id)))
        self._control.leave()

    def _settled_places(self) -> tuple[Control, ...]:
        """The control directories beside the targets, and those of targets that hold others."""
        inner = (Control(path, self._ops) for path in self._paths)
        return (*self._controls, *(c for c in inner if self._ops.lstat(c.path) is not None))

    # --- the steps of begin ------------------------------------------------------------------------

    def _settle_dead(self) -> None:
        places = self._settled_places()
        if any(self._ops.lstat(c.path) is not None for c in places):
            Recoverer(places, only={os.path.basename(p) for p in self._paths}).recover("")

    def _begin(
        self,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None,
        id: str | None,
        txid: str,
        created: list[str],
    ) -> LocalTransaction:
        if mode == "create" and id is None:
            self._must_be_free()  # before anything is made; asked again under the claim
        held: list[LockHandle] = []
        looking: list[LockHandle] = []
        with contextlib.ExitStack() as undo:
            with self._present():
                abilities = probe(self._control, durable=durability == "data")
                promised = self._promise(abilities, mode, durability, entry)
                refuse_missing(promised, require)
                self._check_mounts()
                # A cleaner that has just seen the new name may hold it for a moment.
                wait_s = 1.0 if self._control.find_area(txid) is None else 0.0
                alive = self._ops.lock(self._control.alive(txid), wait_s=wait_s)
                if alive is None:
                    raise ConflictError(f"transaction {id!r} is active in another process", txid=id)
                undo.callback(alive.release)
                undo.callback(_release_all, held)
                undo.callback(_release_all, looking)
                # Asked while nobody else can run under this id.
                done = id is not None and self._is_done(id, txid)
                if self._control.find_area(txid) is not None:
                    raise ConflictError(
                        f"an earlier transaction with the id {id!r} is not settled; fstx.recover says why",
                        txid=id,
                    )
                if mode == "create" and not done:
                    self._claim(held)
                targets = self._look(mode, looking)
                area = self._make_area(txid, durability, mode)
                undo.callback(self._unmake_area, txid)
                for control in self._others:
                    self._write_ref(control, txid, durable=durability == "data")
                fs_fd = self._ops.open_fs(area) if self._syncfs and durability == "data" else None
            keeper = Keeper(self._ops, durable=durability == "data", fs_fd=fs_fd)
            transaction = LocalTransaction(
                control=self._control,
                others=self._others,
                targets=targets,
                joined=self._joined,
                area=area,
                txid=txid,
                caller_id=id,
                alive=alive,
                claims=held,
                abilities=abilities,
                guarantee=promised,
                mode=mode,
                entry=entry,
                require=require,
                created=created,
                keeper=keeper,
            )
            undo.pop_all()
        if done:
            transaction.rollback()
            transaction._state = "committed"
        return transaction

    def _is_done(self, id: str, txid: str) -> bool:
        """True when this id committed; UsageError if that was to other targets."""
        self._control.refuse_links()
        path = self._control.receipt(txid)
        if self._ops.lstat(path) is None:
            return False
        targets = unseal(self._ops.read_file(path, LIMIT_BYTES), path).get("targets")
        names = names_from(self._control.parent, self._paths)
        if targets is not None and targets != names:
            raise UsageError(
                f"the id {id!r} was used for other targets ({', '.join(map(str, targets))}); "
                "an id names one job, so choose another",
                txid=id,
            )
        return True

    def _promise(
        self, abilities: Abilities, mode: Mode, durability: Durability, entry: str | None
    ) -> Guarantee:
        if abilities.refused:
            raise CapabilityError(
                f"no transaction can be kept on the server of {self.url}: {abilities.refused}. Use "
                "another server, or stage locally and copy what is committed"
            )
        occupied = sum(not self._target(p).empty for p in self._paths)
        return guarantee(
            self.url,
            mode=mode,
            durability=durability,
            entry=entry,
            occupied=occupied,
            targets=len(self._paths),
            abilities=abilities,
        )

    def _look(self, mode: Mode, held: list[LockHandle]) -> tuple[Target, ...]:
        """The targets as they are now.

        For a replacement under their locks: a commit in progress does not know of us yet, so it is
        either over before we look, or sees us and tells us by the generation.
        """
        # Where trees have no identity, a replacement shows by its generation alone.
        weak = mode == "update" and is_weak(identity(self._ops.lstat(self._control.parent)))
        for path in sorted(self._paths) if mode == "replace" or weak else ():
            lock = self._control_of(path).of_target(os.path.basename(path))
            handle = self._ops.lock(lock, wait_s=LOCK_WAIT_S)
            if handle is None:
                raise ConflictError(
                    f"another transaction has held the lock of {path} for {LOCK_WAIT_S:.0f} s",
                    outcome="aborted",
                )
            held.append(handle)
        targets = tuple(self._target(p, whole=weak) for p in self._paths)
        _release_all(held)
        return targets

    def _control_of(self, path: str) -> Control:
        parent = os.path.dirname(path)
        return next(c for c in self._controls if c.parent == parent)

    def _target(self, path: str, *, whole: bool = False) -> Target:
        stat = self._ops.lstat(path)
        if stat is not None and stat.kind is FileKind.ODD:
            raise PathError(f"{path} is neither a file nor a directory")
        if stat is not None and stat.kind is FileKind.FILE and not self._joined:
            raise PathError(
                f"{path} is a file, and the target of a transaction is a directory; "
                f"for the file itself name it in a list: fstx.begin([{path!r}])"
            )
        parent, name = os.path.split(path)
        return Target(
            parent,
            name,
            base=identity(stat),
            empty=stat is None or is_empty_tree(self._ops, path, stat),
            generation=self._control_of(path).generation(name, whole=whole),
        )

    def _must_be_free(self) -> None:
        for path in self._paths:
            stat = self._ops.lstat(path)
            if stat is not None and not is_empty_tree(self._ops, path, stat):
                raise TargetExistsError(
                    f"{path} exists; mode 'create' needs it absent or empty "
                    "(use mode='replace' or overwrite=True)",
                    outcome="aborted",
                )

    def _claim(self, held: list[LockHandle]) -> None:
        for path in sorted(self._paths):
            claim = self._control_of(path).of_target(os.path.basename(path), CLAIM)
            handle = self._ops.lock(claim, wait_s=0.0)
            if handle is None:
                raise ConflictError(
                    f"another transaction is creating {path}; wait for it, or write elsewhere",
                    outcome="aborted",
                )
            held.append(handle)
        self._must_be_free()

    def _check_mounts(self) -> None:
        """Renames must stay on one mount: between the parents, and into targets that exist."""
        folders = [c.path for c in self._others]
        folders += [p for p in self._paths if (s := self._ops.lstat(p)) and s.kind is FileKind.TREE]
        for folder in folders:
            if leaves_mount(self._ops, self._control.path, folder):
                raise CapabilityError(
                    f"{folder} is on another mount than {self._control.path}, so nothing can be "
                    "renamed into it; make what lies on that mount the targets: fstx.begin([...])"
                )

    def _make_area(self, txid: str, durability: Durability, mode: Mode) -> str:
        area = self._control.area(txid)
        line = seal(
            {
                "format": 1,
                "txid": txid,
                "host": platform.node(),
                "boot": boot_id(),
                "pid": os.getpid(),
                "begun_s": int(time.time()),
                "mode": mode,
                "durability": durability,
                "targets": list(self._paths),
                "parents": [c.parent for c in self._others],
            }
        )
        try:
            for path in (area, os.path.join(area, "a"), os.path.join(area, "s")):
                self._ops.mkdir(path)
            with self._ops.open_new(os.path.join(area, "owner.json")) as file:
                file.write(line)
        except FileExistsError as error:
            raise ConflictError(
                f"an earlier transaction with this id could not be settled: {area}; "
                "run fstx.recover and read what it says",
                txid=txid,
            ) from error
        except BaseException as error:
            self._unmake_area(txid)
            if not isinstance(error, OSError):
                raise
            raise wrap_storage_error(error, f"can't stage beside the target in {area}") from error
        return area

    def _unmake_area(self, txid: str) -> None:
        area = self._control.area(txid)
        for name in ("owner.json",):
            with contextlib.suppress(OSError):
                self._ops.unlink(os.path.join(area, name))
        for path in (os.path.join(area, "a"), os.path.join(area, "s"), area):
            with contextlib.suppress(OSError):
                self._ops.rmdir(path)
        for control in self._others:
            for suffix in (REF, REF + TEMPORARY):
                with contextlib.suppress(OSError):
                    self._ops.unlink(control.area(txid, suffix))

    def _write_ref(self, control: Control, txid: str, *, durable: bool) -> None:
        path = control.area(txid, REF)
        for name in (path, path + TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                self._ops.unlink(name)
        with self._ops.open_new(path + TEMPORARY) as file:
            file.write(seal({"format": 1, "txid": txid, "control": self._control.path}))
            if durable:
                self._ops.sync_file(file)
        self._ops.rename(path + TEMPORARY, path)

    # --- surroundings ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for control in sorted(self._controls, key=lambda c: c.parent):
                stack.callback(control.leave)
            for control in sorted(self._controls, key=lambda c: c.parent):
                stack.enter_context(control.entered())
            yield

    @contextlib.contextmanager
    def _storage_errors(self, doing: str) -> Iterator[None]:
        """What the system refuses becomes a StorageError that names the place."""
        try:
            yield
        except TransactionError:
            raise
        except OSError as error:
            place = error.filename or self.url
            raise wrap_storage_error(error, f"{doing} at {self.url} failed: {place}") from error

    @contextlib.contextmanager
    def _parents_there(self, *, keep: bool, durable: bool) -> Iterator[list[str]]:
        """Missing parents are made; removed again after an error, or unless they are to be kept."""
        created: list[str] = []
        try:
            for control in self._controls:
                self._make_parent(control.parent, created, durable=durable)
            yield created
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                self._remove_empty(created)

    def _make_parent(self, parent: str, created: list[str], *, durable: bool) -> None:
        missing = []
        place = parent
        while (stat := self._ops.lstat(place)) is None:
            missing.append(place)
            place, below = os.path.dirname(place), place
            if place == below:
                raise PathError(f"{place} is not there, so nothing can be written below it")
        if stat.kind is not FileKind.TREE:
            self._remove_empty(created)
            raise PathError(f"{place} is not a directory, so nothing can be written below it")
        for path in reversed(missing):
            try:
                self._ops.mkdir(path)
            except FileExistsError:
                continue
            except OSError as error:
                self._remove_empty(created)
                raise wrap_storage_error(error, f"the directory {path} can't be created") from error
            created.append(path)
            if durable:
                self._ops.sync_dir(os.path.dirname(path))

    def _remove_empty(self, created: list[str]) -> None:
        while created:
            with contextlib.suppress(OSError):
                self._ops.rmdir(created.pop())


def _release_all(held: list[LockHandle]) -> None:
    while held:
        held[-1].release()  # popped when done: an interrupted release is made again
        held.pop()
