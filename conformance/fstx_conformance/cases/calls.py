"""Level "primitives": what calls on files have to do, on the real file system of a room."""

from __future__ import annotations

import contextlib
import errno
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

from fstx.ops import FileKind, Ops
from fstx_conformance.cases import case
from fstx_conformance.cases.primitives import gives
from fstx_conformance.checks import refused
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level
from fstx_conformance.subjects import raw

_LIMIT = 1 << 20


class Folder:
    """A directory for one case, and short names for what lies in it."""

    def __init__(self, lab: Lab, ops: Ops, path: str) -> None:
        self.lab, self.ops, self.path = lab, ops, path

    def at(self, name: str) -> str:
        """The path of a name."""
        return f"{self.path}/{name}"

    def write(self, name: str, content: bytes) -> str:
        """A new file with this content."""
        with self.ops.open_new(self.at(name)) as file:
            if content:
                file.write(content)
        return self.at(name)

    def opened(self, name: str) -> None:
        """Open a new file, to see whether that is refused."""
        self.ops.open_new(self.at(name)).close()

    def tree(self, name: str, content: bytes) -> str:
        """A new directory with a file ``f`` in it."""
        self.ops.mkdir(self.at(name))
        self.write(f"{name}/f", content)
        return self.at(name)

    def shown(self) -> dict[str, str]:
        """By name: the content of a file, that of ``f`` in a directory, or its kind."""
        found = {}
        for name, kind in self.ops.scandir(self.path):
            path = self.at(name)
            if kind is FileKind.TREE:
                inner = self.ops.lstat(f"{path}/f")
                path = f"{path}/f"
                found[name] = "empty" if inner is None else self._content(path) + "/"
            else:
                found[name] = self._content(path) if kind is FileKind.FILE else kind.value
        return dict(sorted(found.items()))

    def _content(self, path: str) -> str:
        return self.ops.read_file(path, _LIMIT).decode()

    def gives(self, wanted: dict[str, str], what: str, rule: str) -> None:
        """A problem, unless this lies there."""
        gives(self.lab, self.shown(), dict(sorted(wanted.items())), f"the directory {what}", rule)

    def refuses(self, number: int, call: Callable[[], object], what: str, rule: str) -> None:
        """A problem, unless a call raises OSError of this number."""
        error = refused(self.lab, OSError, call, what)
        if isinstance(error, OSError):
            name = errno.errorcode.get(error.errno or 0, str(error.errno))
            wanted = errno.errorcode[number]
            self.lab.check(error.errno == number, f"{what} is {name}, not {wanted} ({rule})")


@contextlib.contextmanager
def folder(lab: Lab) -> Iterator[Folder]:
    """A fresh directory on the subject's file system."""
    lab.runs += 1
    with lab.room() as room:
        found = raw.ops_of(room)
        if found is None:
            raise NotApplicable(
                "this storage is not reached by calls on files that the kit can make"
            )
        ops, path = found
        made = []
        above = path
        while ops.lstat(above) is None:
            made.append(above)
            above = above.rpartition("/")[0]
        for missing in reversed(made):
            ops.mkdir(missing)
        inside = f"{path}/kit-{lab.rng.randrange(1 << 40):010x}"
        ops.mkdir(inside)
        try:
            yield Folder(lab, ops, inside)
        finally:
            _remove(ops, inside)


def _remove(ops: Ops, path: str) -> None:
    for name, kind in list(ops.scandir(path)):
        if kind is FileKind.TREE:
            _remove(ops, f"{path}/{name}")
        else:
            ops.unlink(f"{path}/{name}")
    ops.rmdir(path)


@case(Level.PRIMITIVES, "contents", "OPS-3", "OPS-4", "OPS-2", "OPS-14")
def contents(lab: Lab) -> None:
    """New files are made exclusively and read back whole, up to a limit."""
    with folder(lab) as at:
        ops = at.ops
        with ops.open_new(at.at("f")) as file:
            gives(lab, file.write(b"0123456789"), 10, "write", "OPS-3")
            gives(lab, ops.read_file(at.at("f"), 10), b"0123456789", "what others read", "OPS-3")
            ops.begin_sync(file)
            ops.sync_file(file)
            file.seek(2)
            gives(lab, file.read(3), b"234", "read of a new file", "OPS-3")
        ops.sync_dir(at.path)
        at.tree("d", b"1")
        for name in ("f", "d"):
            at.refuses(errno.EEXIST, partial(at.opened, name), f"open_new of {name}", "OPS-3")
        at.refuses(errno.ENOENT, partial(at.opened, "no/f"), "open_new in nothing", "OPS-2")
        at.refuses(
            errno.ENOENT, partial(ops.read_file, at.at("no"), 9), "read_file of none", "OPS-2"
        )
        at.refuses(
            errno.EFBIG, partial(ops.read_file, at.at("f"), 9), "read_file, too long", "OPS-4"
        )
        fd = ops.open_fs(at.path)
        if fd is not None:
            ops.sync_fs(fd)
            ops.close_fs(fd)
        at.gives({"f": "0123456789", "d": "1/"}, "after refused calls", "OPS-1")


@case(Level.PRIMITIVES, "rename-new", "OPS-5", "OPS-8", "OPS-1")
def rename_new(lab: Lab) -> None:
    """A move to a new name keeps the identity, and where anything is both names stay as they were."""
    with folder(lab) as at:
        ops = at.ops
        at.write("f", b"file")
        at.tree("d", b"tree")
        ops.mkdir(at.at("empty"))
        there = {"f": "file", "d": "tree/", "empty": "empty"}
        try:
            for src in ("f", "d"):
                for dst in ("f", "d", "empty"):
                    if src != dst:
                        call = partial(ops.rename_new, at.at(src), at.at(dst))
                        at.refuses(errno.EEXIST, call, f"rename_new {src} to {dst}", "OPS-5")
                        at.gives(there, "after it was refused", "OPS-5")
        finally:
            missing = refused_as_absent(at, partial(ops.rename_new, at.at("none"), at.at("n")))
        if missing:
            raise NotApplicable("rename_new is ENOSYS here")
        for src, dst in (("f", "g"), ("d", "e")):
            before = ops.lstat(at.at(src))
            ops.rename_new(at.at(src), at.at(dst))
            after = ops.lstat(at.at(dst))
            gives(lab, ops.lstat(at.at(src)), None, "lstat of the old name", "OPS-8")
            _same_identity(lab, before, after, "rename_new")
        at.gives({"g": "file", "e": "tree/", "empty": "empty"}, "after rename_new", "OPS-5")


def refused_as_absent(at: Folder, call: Callable[[], object]) -> bool:
    """Whether a call is one that the system does not have; else it has to be ENOENT."""
    try:
        call()
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return True
        at.lab.check(error.errno == errno.ENOENT, f"a call on nothing is {error!r} (OPS-2)")
    return False


def _same_identity(lab: Lab, before: object, after: object, what: str) -> None:
    ids = [(getattr(s, "dev", None), getattr(s, "ino", None)) for s in (before, after)]
    if ids[0][1]:
        lab.check(ids[0] == ids[1], f"{what} changed the identity: {ids} (OPS-8)")


@case(Level.PRIMITIVES, "rename", "OPS-8", "OPS-2", "OPS-6")
def rename(lab: Lab) -> None:
    """Moves keep the identity; a file is put over a file, and whoever opens the name finds one of them."""
    with folder(lab) as at:
        ops = at.ops
        at.write("f", b"file")
        at.tree("d", b"tree")
        for src, dst in (("f", "g"), ("d", "e")):
            before = ops.lstat(at.at(src))
            ops.rename(at.at(src), at.at(dst))
            _same_identity(lab, before, ops.lstat(at.at(dst)), "rename")
        at.gives({"g": "file", "e": "tree/"}, "after rename", "OPS-8")
        at.refuses(
            errno.ENOENT, partial(ops.rename, at.at("no"), at.at("x")), "rename of none", "OPS-2"
        )
        ops.replace_file(at.at("g"), at.at("absent"))
        at.gives({"absent": "file", "e": "tree/"}, "after replace_file to nothing", "OPS-6")
        _replaced_again_and_again(at)


def _replaced_again_and_again(at: Folder) -> None:
    ops, over, wrong = at.ops, threading.Event(), list[str]()
    # Where who reads a file keeps others from replacing it, one that never pauses keeps them out.
    pause_s = 0.02 if ops.name == "windows" else 0.0
    known = {b"%d" % n * 5000 for n in range(3)}

    def read() -> None:
        while not over.wait(pause_s):
            try:
                found = ops.read_file(at.at("absent"), _LIMIT)
            except PermissionError:
                continue  # a system that shares no file with who replaces it
            except OSError as error:
                wrong.append(repr(error))
                return
            if found not in known | {b"file"}:
                wrong.append(f"{len(found)} bytes")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range({"quick": 20, "standard": 100}.get(at.lab.profile, 500)):
            ops.replace_file(at.write("next", b"%d" % (n % 3) * 5000), at.at("absent"))
    finally:
        over.set()
        reader.join()
    at.lab.check(not wrong, f"who opened the name found {wrong[:2]} (OPS-6)")


@case(Level.PRIMITIVES, "exchange", "OPS-7", "OPS-1")
def exchange(lab: Lab) -> None:
    """Two entries are swapped in one step; where one is missing nothing changes."""
    with folder(lab) as at:
        ops = at.ops
        at.write("f", b"file")
        at.tree("d", b"tree")
        at.tree("e", b"other")
        if refused_as_absent(at, partial(ops.exchange, at.at("f"), at.at("none"))):
            at.gives({"f": "file", "d": "tree/", "e": "other/"}, "after ENOSYS", "OPS-1")
            raise NotApplicable("exchange is ENOSYS here")
        at.gives(
            {"f": "file", "d": "tree/", "e": "other/"}, "after an exchange with nothing", "OPS-7"
        )
        ops.exchange(at.at("d"), at.at("e"))
        at.gives({"f": "file", "d": "other/", "e": "tree/"}, "after exchange of trees", "OPS-7")
        before = ops.lstat(at.at("f"))
        ops.exchange(at.at("f"), at.at("d"))
        _same_identity(lab, before, ops.lstat(at.at("d")), "exchange")
        at.gives({"d": "file", "f": "other/", "e": "tree/"}, "after exchange of kinds", "OPS-7")
        over, wrong = threading.Event(), list[str]()

        def look() -> None:
            while not over.is_set():
                wrong.extend(n for n in ("d", "e") if ops.lstat(at.at(n)) is None)

        reader = threading.Thread(target=look)
        reader.start()
        for _ in range({"quick": 40, "standard": 400}.get(lab.profile, 4000)):
            ops.exchange(at.at("d"), at.at("e"))
        over.set()
        reader.join()
        lab.check(not wrong, f"while it was exchanged {wrong[:1]} was absent (OPS-7)")


@case(Level.PRIMITIVES, "links", "OPS-9", "OPS-3")
def links(lab: Lab) -> None:
    """A hard link never takes a name; afterwards both names have one identity."""
    with folder(lab) as at:
        ops = at.ops
        at.write("f", b"file")
        at.write("g", b"other")
        ops.mkdir(at.at("d"))
        if refused_as_absent(at, partial(ops.link_new, at.at("none"), at.at("n"))):
            raise NotApplicable("link_new is ENOSYS here")
        for dst in ("g", "d"):
            call = partial(ops.link_new, at.at("f"), at.at(dst))
            at.refuses(errno.EEXIST, call, f"link_new to {dst}", "OPS-9")
        ops.link_new(at.at("f"), at.at("h"))
        one, other = ops.lstat(at.at("f")), ops.lstat(at.at("h"))
        gives(lab, other, one, "lstat of the other name", "OPS-9")
        ops.unlink(at.at("f"))
        at.gives({"g": "other", "d": "empty", "h": "file"}, "after one name went", "OPS-9")


@case(Level.PRIMITIVES, "removing", "OPS-10", "OPS-11", "OPS-12", "OPS-2")
def removing(lab: Lab) -> None:
    """Only an empty directory is removed as one, only a file as a file; looks tell what is there."""
    with folder(lab) as at:
        ops = at.ops
        at.write("f", b"12345")
        at.tree("d", b"tree")
        at.refuses(
            errno.ENOTEMPTY, partial(ops.rmdir, at.at("d")), "rmdir of a full directory", "OPS-10"
        )
        refused(lab, OSError, partial(ops.rmdir, at.at("f")), "rmdir of a file")
        refused(lab, OSError, partial(ops.unlink, at.at("d")), "unlink of a directory")
        for name, call in (("rmdir", ops.rmdir), ("unlink", ops.unlink)):
            at.refuses(errno.ENOENT, partial(call, at.at("none")), f"{name} of nothing", "OPS-2")
        at.refuses(errno.EEXIST, partial(ops.mkdir, at.at("d")), "mkdir of what is there", "OPS-2")
        at.gives({"f": "12345", "d": "tree/"}, "after refused removals", "OPS-10")
        stat = ops.lstat(at.at("f"))
        gives(lab, ops.lstat(at.at("f")), stat, "lstat again", "OPS-11")
        gives(lab, stat and (stat.kind, stat.size_bytes), (FileKind.FILE, 5), "lstat", "OPS-11")
        for name in ("none", "none/x"):
            gives(lab, ops.lstat(at.at(name)), None, f"lstat of {name}", "OPS-11")
        found = sorted(ops.scandir(at.path))
        gives(lab, found, [("d", FileKind.TREE), ("f", FileKind.FILE)], "scandir", "OPS-12")
        for n in range(150):
            ops.mkdir(at.at(f"d/{n}"))
        names = [name for name, _ in ops.scandir(at.at("d"))]
        gives(lab, sorted(names), sorted(["f", *map(str, range(150))]), "scandir of many", "OPS-12")


# --- locks -------------------------------------------------------------------------------------------------

_HOLDER = """
import os, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
ops, path = pickle.load(sys.stdin.buffer)
lock = ops.lock(path, wait_s=0)
child = os.fork() if hasattr(os, "fork") and lock is not None else -1
if child == 0:
    sys.stdin.buffer.read()  # a child that outlives its parent and must not hold the lock
    os._exit(0)
print("held" if lock is not None else "refused", flush=True)
sys.stdin.buffer.read()
"""


@case(Level.PRIMITIVES, "locks", "OPS-15", "OPS-16")
def locks(lab: Lab) -> None:
    """A lock is held by one, waits no longer than asked, and ends with its process, whatever it forked."""
    with folder(lab) as at:
        ops, path = at.ops, at.at("lock")
        lock = ops.lock(path, wait_s=0)
        if not lab.check(lock is not None, "a lock that nobody holds is refused (OPS-15)"):
            return
        assert lock is not None
        lab.check(ops.lock(path, wait_s=0) is None, "a lock is given twice (OPS-15)")
        lab.check(
            ops.lock(path, wait_s=0.01) is None, "a lock is given twice, after waiting (OPS-16)"
        )
        lock.release()
        gives(lab, ops.lstat(path), None, "lstat of a released lock", "OPS-16")
        lock.release()
        if not lab.subject.processes or ops.leased:
            return
        with _other(ops, path) as process:
            said = _said(process)
            lab.check(said == "held", f"another process was told {said!r} of a free lock (OPS-15)")
            lab.check(ops.lock(path, wait_s=0) is None, "another process holds it too (OPS-15)")
            process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            process.wait(30)
            again = ops.lock(path, wait_s=5)
            if lab.check(
                again is not None, "a dead process, or its child, holds the lock (OPS-15)"
            ):
                assert again is not None
                with _other(ops, path) as other:
                    said = _said(other)
                    lab.check(
                        said == "refused", f"another was told {said!r} of a held lock (OPS-15)"
                    )
                again.release()


@contextlib.contextmanager
def _other(ops: Ops, path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes the lock and keeps it until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(sys.path) + pickle.dumps((ops, path)))
        process.stdin.flush()
        try:
            yield process
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()


def _said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


__all__ = ["Folder", "folder"]
