"""What Windows answers to renames, deletes, opens and names: one table for any Windows.

`run` plays a scenario on any object with the calls of `fstx.ops._wincrt.Crt`, in an empty
directory. The simulation must give the same answers as the system, so both run this table.

Every scenario starts with the files ``a``, ``b`` and ``ro`` (read-only), the empty directories
``d`` and ``f``, and the directory ``e`` with the file ``e/x``; the content of a file is its name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any


class World:
    """The start state, the calls with names below the root, handles that are closed at the end."""

    def __init__(self, crt: Any, root: str) -> None:
        self.crt = crt
        self.root = root
        self.open_files = ExitStack()
        for name in ("d", "f", "e"):
            crt.mkdir(self.at(name))
        for name in ("a", "b", "ro", "e/x"):
            with crt.open(self.at(name), "x+b") as file:
                file.write(name.encode())
        crt.chmod(self.at("ro"), 0o444)

    def at(self, name: str) -> str:
        return os.path.join(self.root, *name.split("/"))

    def held(self, name: str, mode: str = "rb") -> World:
        """With the file open as CPython's `open` does it: nobody may delete or rename it."""
        self.open_files.enter_context(self.crt.open(self.at(name), mode))
        return self

    def shared(self, name: str) -> World:
        """With the file open in the way that lets others delete and rename it."""
        self.open_files.enter_context(self.crt.open_shared(self.at(name)))
        return self

    def rename(self, src: str, dst: str) -> None:
        self.crt.rename(self.at(src), self.at(dst))

    def replace(self, src: str, dst: str) -> None:
        self.crt.replace(self.at(src), self.at(dst))

    def link(self, src: str, dst: str) -> None:
        self.crt.link(self.at(src), self.at(dst))

    def remove(self, name: str) -> None:
        self.crt.remove(self.at(name))

    def rmdir(self, name: str) -> None:
        self.crt.rmdir(self.at(name))

    def mkdir(self, name: str) -> None:
        self.crt.mkdir(self.at(name))

    def open(self, name: str, mode: str) -> None:
        self.open_files.enter_context(self.crt.open(self.at(name), mode))

    def fsync(self, name: str, mode: str) -> None:
        file = self.open_files.enter_context(self.crt.open(self.at(name), mode))
        self.crt.fsync(file.fileno())

    def lock(self, name: str) -> None:
        file = self.open_files.enter_context(self.crt.open(self.at(name), "a+b"))
        if not self.crt.lock(file.fileno()):
            raise OSError(errno.EAGAIN, "held")

    def content(self, name: str) -> str | None:
        """Text of a file, ``"dir"``, or None."""
        try:
            mode = self.crt.lstat(self.at(name)).st_mode
        except OSError:
            return None
        if mode & 0o170000 == 0o040000:
            return "dir"
        with self.crt.open_shared(self.at(name)) as file:
            return file.read().decode()


@dataclass(frozen=True)
class Scenario:
    """``code``: ok, a Windows code, or the name of an errno where the C runtime answers; several
    where runtimes differ."""

    name: str
    step: Callable[[World], Any]
    code: str | int | tuple[str, ...]
    after: dict[str, str | None] = field(default_factory=dict)


def both(*steps: Callable[[], Any]) -> None:
    for step in steps:
        step()


S = Scenario
SCENARIOS = [
    S("rename file to absent", lambda w: w.rename("a", "n"), "ok", {"a": None, "n": "a"}),
    S("rename file over file", lambda w: w.rename("a", "b"), 183, {"a": "a", "b": "b"}),
    S("rename file over directory", lambda w: w.rename("a", "d"), 183, {"a": "a", "d": "dir"}),
    S("rename tree to absent", lambda w: w.rename("e", "n"), "ok", {"e": None, "n/x": "e/x"}),
    S(
        "rename tree over empty tree",
        lambda w: w.rename("e", "d"),
        183,
        {"e/x": "e/x", "d/x": None},
    ),
    S("rename tree over full tree", lambda w: w.rename("d", "e"), 183, {"e/x": "e/x"}),
    S("rename tree over file", lambda w: w.rename("e", "a"), 183, {"e/x": "e/x", "a": "a"}),
    S("rename of nothing", lambda w: w.rename("no", "n"), 2),
    S("rename into no directory", lambda w: w.rename("a", "no/n"), 3, {"a": "a"}),
    S("rename read-only file", lambda w: w.rename("ro", "n"), "ok", {"ro": None, "n": "ro"}),
    S("rename changes case", lambda w: w.rename("a", "A"), "ok", {"A": "a"}),
    S("rename held file", lambda w: w.held("a").rename("a", "n"), 32, {"a": "a", "n": None}),
    S("rename shared file", lambda w: w.shared("a").rename("a", "n"), "ok", {"a": None}),
    S("rename tree, held inside", lambda w: w.held("e/x").rename("e", "n"), 5, {"e/x": "e/x"}),
    S("rename tree, shared inside", lambda w: w.shared("e/x").rename("e", "n"), 5, {"n": None}),
    S("rename held to be over", lambda w: w.held("b").rename("a", "b"), 183, {"b": "b"}),
    S("replace file to absent", lambda w: w.replace("a", "n"), "ok", {"a": None, "n": "a"}),
    S("replace file over file", lambda w: w.replace("a", "b"), "ok", {"a": None, "b": "a"}),
    S("replace file over directory", lambda w: w.replace("a", "d"), 5, {"a": "a", "d": "dir"}),
    S("replace tree over empty tree", lambda w: w.replace("e", "d"), 5, {"e/x": "e/x"}),
    S("replace tree over full tree", lambda w: w.replace("d", "e"), 5, {"e/x": "e/x"}),
    S("replace tree over file destroys", lambda w: w.replace("e", "a"), "ok", {"a/x": "e/x"}),
    S("replace over read-only", lambda w: w.replace("a", "ro"), 5, {"a": "a", "ro": "ro"}),
    S("replace over held file", lambda w: w.held("b").replace("a", "b"), 5, {"a": "a", "b": "b"}),
    S("replace over shared file", lambda w: w.shared("b").replace("a", "b"), 5, {"b": "b"}),
    S("replace by held file", lambda w: w.held("a").replace("a", "b"), 32, {"b": "b"}),
    S("replace by nothing", lambda w: w.replace("no", "b"), 2, {"b": "b"}),
    S("remove file", lambda w: w.remove("a"), "ok", {"a": None}),
    S("remove nothing", lambda w: w.remove("no"), 2),
    S("remove in no directory", lambda w: w.remove("no/n"), 3),
    S("remove directory", lambda w: w.remove("d"), 5, {"d": "dir"}),
    S("remove read-only", lambda w: w.remove("ro"), 5, {"ro": "ro"}),
    S("remove held", lambda w: w.held("a").remove("a"), 32, {"a": "a"}),
    S("remove shared", lambda w: w.shared("a").remove("a"), "ok"),
    S("rmdir empty", lambda w: w.rmdir("d"), "ok", {"d": None}),
    S("rmdir full", lambda w: w.rmdir("e"), 145, {"e/x": "e/x"}),
    S("rmdir of a file", lambda w: w.rmdir("a"), 267, {"a": "a"}),
    S("rmdir of nothing", lambda w: w.rmdir("no"), 2),
    S("mkdir over directory", lambda w: w.mkdir("d"), 183),
    S("mkdir over file", lambda w: w.mkdir("a"), 183, {"a": "a"}),
    S("mkdir in no directory", lambda w: w.mkdir("no/n"), 3),
    S("mkdir over other case", lambda w: w.mkdir("D"), 183),
    S("link file", lambda w: w.link("a", "n"), "ok", {"a": "a", "n": "a"}),
    S("link over file", lambda w: w.link("a", "b"), 183, {"b": "b"}),
    S("link of nothing", lambda w: w.link("no", "n"), 2),
    S("link of directory", lambda w: w.link("e", "n"), 5, {"n": None}),
    S("open new over file", lambda w: w.open("a", "x+b"), "EEXIST", {"a": "a"}),
    S("open new over other case", lambda w: w.open("A", "x+b"), "EEXIST", {"a": "a"}),
    S("open nothing", lambda w: w.open("no", "rb"), "ENOENT"),
    S("open in no directory", lambda w: w.open("no/n", "x+b"), "ENOENT"),
    S("open directory", lambda w: w.open("d", "rb"), "EACCES"),
    S("open read-only to write", lambda w: w.open("ro", "r+b"), "EACCES"),
    S("open held", lambda w: w.held("a", "r+b").open("a", "r+b"), "ok"),
    S("open while exclusive to it", lambda w: w.shared("a").open("a", "r+b"), "ok"),
    S("open illegal name", lambda w: w.open("n?", "x+b"), "EINVAL"),
    S("rename to illegal name", lambda w: w.rename("a", "n?"), 123, {"a": "a"}),
    S("open with dot at end", lambda w: w.open("n.", "x+b"), "ok", {"n": ""}),
    S("open other case", lambda w: w.open("E/X", "rb"), "ok"),
    S("fsync to write", lambda w: w.fsync("a", "r+b"), "ok"),
    S("fsync to read", lambda w: w.fsync("a", "rb"), ("EACCES", "EBADF")),
    S("lock", lambda w: w.lock("a"), "ok"),
    S("lock twice", lambda w: both(lambda: w.lock("a"), lambda: w.lock("a")), "EAGAIN"),
]
del S


def run(scenario: Scenario, crt: Any, root: str) -> tuple[str | int, dict[str, str | None]]:
    """The answer, and what lies afterwards at the names that the scenario tells of."""
    world = World(crt, root)
    code: str | int = "ok"
    with world.open_files:
        try:
            scenario.step(world)
        except OSError as error:
            code = getattr(error, "winerror", None) or errno.errorcode[error.errno or 0]
    return code, {name: world.content(name) for name in scenario.after}
