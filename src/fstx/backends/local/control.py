"""The control directory ``P/.fstx/``: who lives in it, and how the last one leaves it clean.

Entering and leaving happen under ``control.lock``, so that nobody removes a directory that another
has just found. Names are those of the specification, section 1.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator

from fstx.backends.base import wrap_storage_error
from fstx.errors import ConflictError, StorageError
from fstx.ops import FileKind, LockHandle, Ops
from fstx.paths import CONTROL_NAME, fold

ALIVE, REF, GENERATION, CLAIM = ".alive", ".ref", ".gen", ".claim"
FENCED, TRASH = ".fenced", ".trash"
PROBE = "probe-"
TEMPORARY = ".tmp"
_ENTER_WAIT_S = 30.0
_TXID = r"(?P<txid>(?:k-)?[0-9a-f]{32})"
_AREA = re.compile(_TXID + r"(?:\.fenced|(?:-[0-9a-f]{8})?\.trash)?")
_SIGN = re.compile(_TXID + r"\.(?:alive|ref)")


class Control:
    """One control directory. Holds no state: names and the moves between them."""

    def __init__(self, parent: str, ops: Ops) -> None:
        self.parent = parent
        self.ops = ops
        self.path = os.path.join(parent, CONTROL_NAME)
        self.locks = os.path.join(self.path, "locks")
        self.done = os.path.join(self.path, "done")

    def __repr__(self) -> str:
        return f"Control({self.path})"

    # --- names ---------------------------------------------------------------------------------

    def area(self, txid: str, suffix: str = "") -> str:
        return os.path.join(self.path, txid + suffix)

    def alive(self, txid: str) -> str:
        return self.area(txid, ALIVE)

    def receipt(self, txid: str) -> str:
        return os.path.join(self.done, txid + ".json")

    def of_target(self, name: str, suffix: str = ".lock") -> str:
        """Lock, claim or generation file of a target; equal for names the file system may fold."""
        digest = hashlib.sha256(fold(name).encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self.locks, digest[:32] + suffix)

    # --- entering and leaving --------------------------------------------------------------------

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The control directory exists and nobody removes it for the length of the block."""
        deadline = time.monotonic() + _ENTER_WAIT_S
        while True:
            self._make()
            try:
                handle = self.ops.lock(
                    os.path.join(self.path, "control.lock"), wait_s=deadline - time.monotonic()
                )
                break
            except FileNotFoundError:  # the last user left between mkdir and lock
                if time.monotonic() > deadline:
                    raise
        if handle is None:
            raise ConflictError(
                f"{self.path} is held by another process for more than {_ENTER_WAIT_S:.0f} s",
                outcome="aborted",
            )
        try:
            self.make_locks()
            yield
        finally:
            handle.release()

    def _make(self) -> None:
        self._make_folder(self.path)

    def make_locks(self) -> None:
        """The folder of the targets' locks, made where it is missing."""
        self._make_folder(self.locks)

    def make_done(self) -> None:
        """The folder of the receipts, made where it is missing."""
        self._make_folder(self.done)

    def refuse_links(self) -> None:
        """StorageError where receipts would be written through a link."""
        if self.ops.lstat(self.done) is not None:
            self.make_done()

    def _make_folder(self, path: str) -> None:
        try:
            self.ops.mkdir(path)
        except FileExistsError:
            found = self.ops.lstat(path)
            if found is None:  # its last user left between the two calls
                self._make_folder(path)
            elif found.kind is not FileKind.TREE:
                # Entered through a link, locks and staging would be made and deleted elsewhere (PATH-5).
                raise StorageError(
                    f"{path} is not a directory of its own (a link or a file); nothing was touched. "
                    "Remove it and run again",
                    outcome="aborted",
                ) from None
            return
        except FileNotFoundError:
            raise
        except OSError as error:
            raise wrap_storage_error(
                error, f"can't write beside the target: {path} can't be created"
            ) from error
        # Writers of one group share it: as open as the directory that it lies in.
        with contextlib.suppress(OSError):
            self.ops.share(path, self.parent)

    def leave(self) -> None:
        """Remove the control directory if this was its last user. Best effort."""
        with contextlib.suppress(OSError, ConflictError):
            if not is_tree(self.ops, self.path):
                return
            with self._while_locked():
                entries = list(self.ops.scandir(self.path))
                for name, _ in entries:
                    # Made and gone under this lock, so the owner is dead.
                    if name.startswith(PROBE):
                        remove_tree(self.ops, os.path.join(self.path, name))
                    elif name.endswith(TEMPORARY):
                        self.ops.unlink(os.path.join(self.path, name))
                if any(_SIGN.fullmatch(name) for name, _ in entries):
                    return
                # Nobody lives here, so nobody holds a lock, a claim, or a base to compare with.
                remove_tree(self.ops, self.locks)
                with contextlib.suppress(OSError):
                    self.ops.rmdir(self.done)
            self.ops.rmdir(self.path)

    @contextlib.contextmanager
    def _while_locked(self) -> Iterator[None]:
        handle = self.ops.lock(os.path.join(self.path, "control.lock"), wait_s=1.0)
        if handle is None:
            raise OSError(errno.EBUSY, "control directory is in use", self.path)
        try:
            yield
        finally:
            handle.release()

    def try_alive(self, txid: str) -> LockHandle | None:
        """The liveness lock of a transaction, or None while its owner lives."""
        return self.ops.lock(self.alive(txid), wait_s=0.0)

    # --- generations: commits that a living transaction must notice ------------------------------

    def generation(self, name: str, *, whole: bool = False) -> bytes:
        """Changes with every commit to the target while anyone lives here; empty before the first.

        `whole`: changes only with commits that move the target itself.
        """
        try:
            found = self.ops.read_file(self.of_target(name, GENERATION), 64)
        except FileNotFoundError:
            return b""
        return found.partition(b" ")[2] if whole else found

    def bump(self, name: str, token: str, *, whole: bool) -> None:
        """Tell living transactions that the target was committed to. Under the target's lock."""
        moved = token.encode() if whole else self.generation(name, whole=True)
        path = self.of_target(name, GENERATION)
        temporary = f"{path}.{token}"
        with self.ops.open_new(temporary) as file:
            file.write(token.encode() + (b" " + moved if moved else b""))
        self.ops.replace_file(temporary, path)

    # --- what lies here --------------------------------------------------------------------------

    def transactions(self) -> list[str]:
        """Ids of all transactions that left or hold something here, sorted."""
        found = set()
        for name, kind in self._entries():
            match = (_AREA if kind is FileKind.TREE else _SIGN).fullmatch(name)
            if match is not None:
                found.add(match["txid"])
        return sorted(found)

    def trash_of(self, txid: str) -> list[str]:
        """Directories that settled transactions of this id left to be deleted."""
        found = []
        for name, kind in self._entries():
            match = _AREA.fullmatch(name)
            if kind is FileKind.TREE and match and match["txid"] == txid and name.endswith(TRASH):
                found.append(os.path.join(self.path, name))
        return found

    def _entries(self) -> list[tuple[str, FileKind]]:
        try:
            return list(self.ops.scandir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find_area(self, txid: str) -> str | None:
        """The area of a transaction, live or fenced; None when settled or never begun."""
        for suffix in ("", FENCED):
            path = self.area(txid, suffix)
            if is_tree(self.ops, path):
                return path
        return None


def remove_tree(ops: Ops, path: str) -> list[OSError]:
    """Delete a tree, however deep, without following links; returns what could not be deleted."""
    errors: list[OSError] = []
    if not is_tree(ops, path):
        _remove(ops.unlink, path, errors)  # a link goes, what it points to stays
        return errors
    waiting = [(path, False)]
    while waiting:
        place, emptied = waiting.pop()
        if emptied:
            _remove(ops.rmdir, place, errors)
            continue
        try:
            entries = list(ops.scandir(place))
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(error)
            continue
        waiting.append((place, True))
        for name, kind in entries:
            child = os.path.join(place, name)
            if kind is FileKind.TREE:
                waiting.append((child, False))
            else:
                _remove(ops.unlink, child, errors)
    return errors


def _remove(how: Callable[[str], None], path: str, errors: list[OSError]) -> None:
    try:
        how(path)
    except FileNotFoundError:
        return
    except OSError as error:
        errors.append(error)


def is_tree(ops: Ops, path: str) -> bool:
    """True for a directory itself, not for a link to one."""
    stat = ops.lstat(path)
    return stat is not None and stat.kind is FileKind.TREE


def names_from(parent: str, targets: Iterable[str]) -> list[str]:
    """Targets as a receipt names them: relative to the home, so that the whole may be moved; sorted."""
    return sorted(os.path.relpath(t, parent).replace(os.sep, "/") for t in targets)
