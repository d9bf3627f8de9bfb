"""Windows calls for the local backend: retried where an obstacle passes, final where it does not.

Windows refuses to rename or delete what any program holds open, and scanners hold every new file
for a moment. So codes 5, 32 and 33 (145 for a directory whose files are still going; 64 and 121 on
a network share) are retried within ``patience_s``. What comes out:

* ``errno`` EBUSY: held by another program for all that time (``winerror`` is kept);
* ``errno`` EACCES: refused for a reason that does not pass (a directory, the read-only attribute);
* ``errno`` EEXIST, ENOENT, ENOTEMPTY, EXDEV, EISDIR, ENOSYS as elsewhere; EINVAL for a name that
  Windows can't hold; EIO when a share was lost.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from fstx.ops import FileKind, LockHandle, Stat
from fstx.ops._retry import Patience
from fstx.ops._wincrt import Crt, NativeCrt, StatLike

DENIED, SHARING, LOCKED, NOT_EMPTY, BAD_NAME = 5, 32, 33, 145, 123
PASSING = frozenset({DENIED, SHARING, LOCKED})
NETWORK = frozenset({64, 121})  # the answer was lost: the call may have taken effect
UNSUPPORTED = frozenset({1, 50})
_JUNCTION = 0xA0000003

T = TypeVar("T")

_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{n}" for device in ("com", "lpt") for n in "123456789¹²³"]
)
_ILLEGAL = frozenset('<>:"/\\|?*') | frozenset(map(chr, range(32)))


def name_problem(name: str) -> str | None:
    """Why Windows can't hold a file of this name, as words for a message; None if it can.

    `NativeCrt` passes names round the check of Windows itself (the price of long paths): a file
    ``NUL`` or ``a.`` could be created, and no other program could open it.
    """
    if bad := sorted(_ILLEGAL.intersection(name)):
        return f"contains {bad[0]!r}"
    if name.endswith((".", " ")) and name not in (".", ".."):
        return "ends with a dot or a space"
    if name.split(".", 1)[0].rstrip(" ").casefold() in _RESERVED:
        return "is the name of a device"
    return None


def winerror(error: OSError) -> int | None:
    """The Windows code; None for errors of the C runtime and of other systems."""
    code = getattr(error, "winerror", None)
    return code if isinstance(code, int) else None


class WindowsOps:
    """The calls of `fstx.ops.Ops` on Windows.

    Parameters
    ----------
    crt
        The low-level calls; the system's when None.
    patience_s
        How long a call waits for another program to let go.
    sleep, monotonic, jitter
        The clock, and numbers in [0, 1) that keep processes from retrying in step.
    """

    name = "windows"
    place = ""
    leased = False

    def __init__(
        self,
        crt: Crt | None = None,
        *,
        patience_s: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._crt: Crt = NativeCrt() if crt is None else crt
        self._patience = Patience(patience_s, sleep, monotonic, jitter)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()

    def resolve(self, path: str) -> str:
        return os.path.realpath(path)

    # --- files -------------------------------------------------------------------------------

    def open_again(self, path: str) -> BinaryIO:
        return self._open_file(lambda: self._crt.open(path, "r+b"), path)

    def open_read(self, path: str) -> BinaryIO:
        return self._open_file(lambda: self._crt.open_shared(path), path)

    def _open_file(self, call: Callable[[], BinaryIO], path: str) -> BinaryIO:
        try:
            return self._retry(call, hopeless=lambda: self._is_tree(path))
        except PermissionError as error:
            if not self._is_tree(path):
                raise
            raise IsADirectoryError(errno.EISDIR, "is a directory", path) from error

    def open_new(self, path: str) -> BinaryIO:
        _check_name(path)
        return self._retry(
            lambda: self._crt.open(path, "x+b"), hopeless=lambda: not self._taken(path)
        )

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        with self._retry(
            lambda: self._crt.open_shared(path), hopeless=lambda: self._is_tree(path)
        ) as file:
            parts = []
            left = limit_bytes + 1
            while left > 0 and (part := file.read(min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
        if left <= 0:
            raise OSError(errno.EFBIG, f"longer than {limit_bytes} bytes", path)
        return b"".join(parts)

    def sync_file(self, file: BinaryIO) -> None:
        self._crt.fsync(file.fileno())

    def begin_sync(self, file: BinaryIO) -> None:
        """Nothing: Windows writes back by itself."""

    def sync_dir(self, path: str) -> None:
        """Nothing: Windows has no such call; NTFS writes directory changes in order."""

    def open_fs(self, path: str) -> int | None:
        return None

    def sync_fs(self, fd: int) -> None:
        raise OSError(errno.ENOSYS, "Windows has no call that makes a whole file system durable")

    def close_fs(self, fd: int) -> None:
        """Nothing: `open_fs` opens nothing."""

    # --- names -------------------------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        _check_name(path)
        # A refusal passes only where the name is taken by something that is being deleted; a parent
        # that may not be written to is worth no wait.
        self._retry(lambda: self._crt.mkdir(path), hopeless=lambda: not self._taken(path))

    def rmdir(self, path: str) -> None:
        self._delete(self._crt.rmdir, path, tree=True)

    def unlink(self, path: str) -> None:
        """Delete a file, also one with the read-only attribute (as on other systems)."""
        self._delete(self._crt.remove, path, tree=False)

    def share(self, path: str, like: str) -> None:
        """Nothing: access lists are inherited from the directory above."""

    def may_write(self, path: str) -> bool:
        return True  # access lists tell it, and only a try reads them right

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        raise OSError(errno.ENOSYS, "times are not set here", path)

    def rename(self, src: str, dst: str) -> None:
        """Move to an absent name, or a directory over an empty directory.

        The empty directory goes first; it is put back if the rename then fails. A kill between the
        two leaves `dst` absent.
        """
        if not (self._is_tree(src) and self._is_tree(dst)):
            self._move(self._crt.rename, src, dst)
            return
        same = self.lstat(src) == self.lstat(dst)
        if same or next(self._crt.scandir(dst), None) is not None:
            self._move(self._crt.rename, src, dst)  # another spelling of one name, or refused
            return
        self.rmdir(dst)
        try:
            self._move(self._crt.rename, src, dst)
        except BaseException:  # Ctrl-C as well
            if self.lstat(dst) is None:
                self._crt.mkdir(dst)
            raise

    def replace_file(self, src: str, dst: str) -> None:
        for path in (src, dst):
            if self._is_tree(path):  # os.replace would put a directory in the place of a file
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        self._move(self._crt.replace, src, dst, hopeless=lambda: self._is_read_only(dst))

    def rename_new(self, src: str, dst: str) -> None:
        self._move(self._crt.rename, src, dst)

    def exchange(self, a: str, b: str) -> None:
        raise OSError(errno.ENOSYS, "Windows can't exchange two entries", a)

    def link_new(self, src: str, dst: str) -> None:
        _check_name(dst)
        before = self.lstat(src)
        self._change(
            lambda: self._crt.link(src, dst),
            src,
            hopeless=lambda: self._is_tree(src),
            applied=lambda: _same(self.lstat(dst), before),
        )

    # --- looking -----------------------------------------------------------------------------

    def lstat(self, path: str) -> Stat | None:
        found = self._stat(path)
        if found is None:
            return None
        return Stat(
            _kind(found),
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_mode,
        )

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        for name, found in self._crt.scandir(path):
            yield name, _kind(found)

    # --- locks -------------------------------------------------------------------------------

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:
        _check_name(path)
        clock = self._patience
        deadline_s = clock.monotonic() + wait_s
        pause_s = clock.first_s
        while True:
            file = self._try_lock(path)
            if file is not None:
                return _WindowsLock(functools.partial(self._drop_lock, file, path))
            left_s = deadline_s - clock.monotonic()
            if left_s <= 0:
                return None
            clock.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 2, 0.1)

    def _try_lock(self, path: str) -> BinaryIO | None:
        try:
            file = self._crt.open(path, "a+b")
        except PermissionError:
            if not self._taken(path):
                raise  # not held by anyone: the directory refuses us
            return None  # its last holder is deleting it
        try:
            if self._crt.lock(file.fileno()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def _drop_lock(self, file: BinaryIO, path: str) -> None:
        """Let go, then delete: whoever has the file open in between makes the deletion fail, so the
        name never splits over two files."""
        file.close()

        def waits(error: OSError) -> bool:
            if winerror(error) not in PASSING:
                return False
            other = self._try_lock(path)
            if other is None:
                return False  # its next holder deletes it
            other.close()
            return True

        clock = self._patience
        brief = Patience(min(1.0, clock.budget_s), clock.sleep, clock.monotonic, clock.jitter)
        try:
            brief.run(lambda: self._crt.remove(path), waits)
        except OSError as error:
            if winerror(error) not in PASSING and not isinstance(error, FileNotFoundError):
                raise

    # --- retrying ----------------------------------------------------------------------------

    def _retry(self, call: Callable[[], T], *, hopeless: Callable[[], bool]) -> T:
        """`call`, while it is refused for a reason that passes.

        ``hopeless`` is asked after a plain denial, which Windows also gives for reasons that stay.
        """

        def passing(error: OSError) -> bool:
            code = winerror(error)
            if code is None:  # the C runtime says EACCES for all of them
                return error.errno == errno.EACCES and not hopeless()
            return code in PASSING and not (code == DENIED and hopeless())

        return self._patience.run(call, passing)

    def _change(
        self,
        call: Callable[[], None],
        path: str,
        *,
        hopeless: Callable[[], bool],
        applied: Callable[[], bool],
        emptying: Callable[[], bool] = lambda: False,
    ) -> None:
        """A call that changes names; a lost answer of a network share is settled by looking."""
        lost = False

        def passing(error: OSError) -> bool:
            nonlocal lost
            code = winerror(error)
            if code in NETWORK and self._crt.is_remote(path):
                lost = True
                return not applied()
            if code == NOT_EMPTY:
                return emptying()
            return code in PASSING and not (code == DENIED and hopeless())

        try:
            self._patience.run(call, passing)
        except OSError as error:
            if lost and applied():
                return
            if winerror(error) in UNSUPPORTED:
                error.errno = errno.ENOSYS
            elif winerror(error) in NETWORK:
                error.errno = errno.EIO
            raise

    def _move(
        self,
        call: Callable[[str, str], None],
        src: str,
        dst: str,
        *,
        hopeless: Callable[[], bool] = lambda: False,
    ) -> None:
        _check_name(dst)
        before = self.lstat(src)
        self._change(
            lambda: call(src, dst),
            src,
            hopeless=hopeless,
            applied=lambda: self.lstat(src) is None and _same(self.lstat(dst), before),
        )

    def _delete(self, call: Callable[[str], None], path: str, *, tree: bool) -> None:
        found = self._stat(path)
        if found is not None and not tree and _kind(found) is FileKind.TREE:
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        mode = None if found is None else found.st_mode
        cleared = mode is not None and not mode & stat.S_IWRITE
        if cleared:
            self._crt.chmod(path, stat.S_IREAD | stat.S_IWRITE)
        try:
            self._change(
                lambda: call(path),
                path,
                hopeless=lambda: self._is_read_only(path),
                applied=lambda: self._stat(path) is None,
                emptying=lambda: self._is_emptying(path),
            )
        except OSError:
            if cleared and mode is not None and self._taken(path):
                self._crt.chmod(path, mode)
            raise

    # --- causes ------------------------------------------------------------------------------

    def _stat(self, path: str) -> StatLike | None:
        try:
            return self._crt.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _taken(self, path: str) -> bool:
        return self._stat(path) is not None

    def _is_tree(self, path: str) -> bool:
        found = self._stat(path)
        return found is not None and _kind(found) is FileKind.TREE

    def _is_read_only(self, path: str) -> bool:
        found = self._stat(path)
        return found is not None and not found.st_mode & stat.S_IWRITE

    def _is_emptying(self, path: str) -> bool:
        """All that is in the directory is being deleted: such names have no identity any more."""
        names = [name for name, _ in self._crt.scandir(path)]
        stats = (self._stat(os.path.join(path, name)) for name in names)
        return all(found is None or found.st_ino == 0 for found in stats)


class _WindowsLock:
    """A locked file; the kernel unlocks it when the process dies."""

    def __init__(self, drop: Callable[[], None]) -> None:
        self._drop: Callable[[], None] | None = drop

    def release(self) -> None:
        """Let go and delete the file, unless another process has it by now."""
        if self._drop is not None:
            self._drop()  # when Ctrl-C comes in between, the next call finishes it
            self._drop = None


def _check_name(path: str) -> None:
    name = os.path.basename(path)
    problem = name_problem(name)
    if problem is not None:
        raise OSError(errno.EINVAL, f"Windows can't hold a file whose name {problem}", path)


def _same(a: Stat | None, b: Stat | None) -> bool:
    return a is not None and b is not None and a.ino != 0 and (a.dev, a.ino) == (b.dev, b.ino)


def _kind(found: StatLike) -> FileKind:
    tag = getattr(found, "st_reparse_tag", 0)
    if stat.S_ISLNK(found.st_mode) or tag == _JUNCTION:
        return FileKind.LINK  # a junction leads elsewhere, as a symbolic link does
    if stat.S_ISDIR(found.st_mode):
        return FileKind.TREE
    return FileKind.FILE if stat.S_ISREG(found.st_mode) else FileKind.ODD
