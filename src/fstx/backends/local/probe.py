"""What a local place really does: tried in its control directory, never guessed.

Leaves nothing behind. Asked once per directory and process.
"""

from __future__ import annotations

import contextlib
import errno
import os

from fstx import seams
from fstx.backends.local.control import Control, remove_tree
from fstx.ops import Ops
from fstx.select import Abilities

_seen: dict[tuple[str, int, str, bool], Abilities] = {}


seams.at_end_of_process(_seen.clear)


def probe(control: Control, *, durable: bool) -> Abilities:
    """Abilities of the file system that holds `control`; call inside ``control.entered()``.

    Not `durable`: nothing is synced, not even to see whether it can be.
    """
    ops = control.ops
    stat = ops.lstat(control.parent)
    key = (ops.name + ops.place, stat.dev if stat else 0, control.parent, durable)
    if key not in _seen or ops.name == "windows":
        _seen[key] = _try_everything(control, ops, durable)
    return _seen[key]


def _try_everything(control: Control, ops: Ops, durable: bool) -> Abilities:
    folder = os.path.join(control.path, "probe-" + seams.token_hex(4))
    ops.mkdir(folder)
    try:
        a, b = os.path.join(folder, "Ab"), os.path.join(folder, "b")
        ops.mkdir(a)
        fold_case = ops.lstat(os.path.join(folder, "aB")) is not None
        create = _succeeds(lambda: ops.rename_new(a, b))
        if create:
            ops.mkdir(a)
        else:
            ops.mkdir(b)
        exchange = _succeeds(lambda: ops.exchange(a, b))
        can_sync = ops.name not in ("windows", "sftp")
        sync_dirs = durable and can_sync and _succeeds(lambda: ops.sync_dir(folder))
        fs_fd = ops.open_fs(folder)
        if fs_fd is not None:
            ops.close_fs(fs_fd)
        return Abilities(
            system=ops.name,
            fs_name=getattr(ops, "fs_name", lambda _: "")(folder),
            exchange=exchange,
            create=create,
            locks=_locks_exclude(ops, os.path.join(folder, "lock")),
            sync_dirs=sync_dirs,
            sync_fs=fs_fd is not None,
            fold_case=fold_case,
            leased=ops.leased,
            refused=_why_not(ops, folder) if ops.place else "",
        )
    finally:
        remove_tree(ops, folder)


def _succeeds(call: object) -> bool:
    try:
        call()  # type: ignore[operator]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        return False
    return True


def _why_not(ops: Ops, folder: str) -> str:
    """What a server does that no protocol can stand on, or ""; each was seen in use."""
    first, second = os.path.join(folder, "one"), os.path.join(folder, "two")
    for path in (first, second):
        ops.open_new(path).close()
    again = os.path.join(folder, "one-dir")
    ops.mkdir(again)
    if _succeeds(lambda: ops.open_new(first).close()):
        return "it creates a file that exists, though asked not to"
    if _succeeds(lambda: ops.mkdir(again)):
        return "it creates a directory that exists"
    if _succeeds(lambda: ops.rename_new(first, second)):
        return "its plain rename replaces what is there"
    if not _succeeds(lambda: ops.replace_file(first, second)) or ops.lstat(second) is None:
        return "it has no rename that replaces a file (posix-rename@openssh.com)"
    return ""


def _locks_exclude(ops: Ops, path: str) -> bool:
    try:
        first = ops.lock(path, wait_s=0.0)
    except OSError:
        return False
    if first is None:
        return False
    try:
        second = ops.lock(path, wait_s=0.0)
        if second is not None:
            second.release()
        return second is None
    finally:
        with contextlib.suppress(OSError):
            first.release()


def leaves_mount(ops: Ops, folder: str, into: str) -> bool:
    """True when a rename from `folder` into the directory `into` would cross a mount.

    Renames a name that does not exist: Linux compares the mounts before it looks the names up, so a
    bind mount of the same device shows as well (st_dev would not tell), and nothing is created.
    """
    name = "absent-" + seams.token_hex(6)
    try:
        ops.rename(os.path.join(folder, name), os.path.join(into, name))
    except OSError as error:
        return error.errno == errno.EXDEV or getattr(error, "winerror", None) == 17
    return False
