"""A simulated disk: real directories whose every change is logged, and what a loss of power leaves of them.

`Disk` is the machine with its disk at a real directory. `diskops.DiskOps` and `diskfiles.DiskFiles` are the
calls of processes on it. Nothing is lost while the processes run. Afterwards ``disk.states(k)`` are the
states that a loss of power right after the k-th entry of the log may leave, and ``disk.boot(state)`` puts
one of them where the disk lay and is the disk of the machine that came up again.

Inode numbers are the simulation's own: they outlive the loss of power, as real ones do, and are never used
twice. Contents are taken when they have changed by the next call, so writes need no seam.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator

from fstx_conformance.seams.disklog import (
    ROOT,
    Change,
    Content,
    Data,
    Entry,
    Logged,
    Mark,
    Model,
    Node,
    Platter,
    Slot,
    Start,
    Sync,
)
from fstx_conformance.seams.losses import DRAWS, LIMIT, Found, Loss, found_after, slots_of, states

__all__ = ["Disk", "Found", "Loss", "Model", "UnseenError"]

_RACY_NS = 50_000_000  # a file written so shortly before it was read may be written again unnoticed
_DEVICE = 1


class UnseenError(Exception):
    """Something was made on the disk by a call that it did not see: it can't judge then."""


class _Watch:
    """A file that is written, until it is `closed`: its content is taken again when it may have changed."""

    fd = -1

    def __init__(self, path: str, node: Node, closed: Callable[[], bool]) -> None:
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.node = node
        self.closed = closed
        self.taken: tuple[int, int] = (0, 0)
        self.at_ns = 0

    def close(self) -> None:
        """Nothing is written any more."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def changed(self) -> Content | None:
        """The new content, if it may be one."""
        found = os.fstat(self.fd)
        now = (found.st_size, found.st_mtime_ns)
        if now == self.taken and self.at_ns > found.st_mtime_ns + _RACY_NS:
            return None
        self.at_ns, self.taken = time.time_ns(), now
        return Content.of(_read(self.fd, found.st_size), found.st_mtime_ns)


class Disk:
    """One machine whose disk is the directory `root`. What lies there now is durable.

    Parameters
    ----------
    root
        A real directory.
    fs_name
        The file system that it is said to have of.
    known, next_node, boots
        Of a disk that was there before: nodes keep their numbers; how often the power was gone.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fs_name: str = "ext4",
        known: dict[str, Node] | None = None,
        next_node: Node = ROOT,
        boots: int = 0,
    ) -> None:
        self.root = os.path.realpath(root)
        self.fs_name = fs_name
        self.boots = boots
        self.log: list[Logged] = []
        self.guard = threading.RLock()
        self._nodes: dict[tuple[int, int], Node] = {}
        self._next = next_node
        self._newest: dict[Node, Content] = {}
        self._watched: list[_Watch] = []
        self.new_node(self.root, ROOT if known is not None else None)
        self._start = self._look(known or {})

    def __repr__(self) -> str:
        return f"<Disk {self.root}: {len(self.log)} entries>"

    # --- what it was asked to do ------------------------------------------------------------------

    def mark(self, text: str) -> int:
        """Note that something happened; its number in the log."""
        with self.guard:
            self.look_at_open_files()
            self._add(Mark(text), text)
            return len(self.log)

    def history(self, upto: int | None = None) -> tuple[str, ...]:
        """The log as lines, numbered."""
        return tuple(f"{n}: {e.told}" for n, e in enumerate(self.log[:upto], 1))

    def forget_open_files(self) -> None:
        """The processes are gone: nothing is written any more."""
        with self.guard:
            self.look_at_open_files()
            for watch in self._watched:
                watch.close()
            self._watched = []

    # --- what a loss of power leaves ----------------------------------------------------------------

    def states(
        self,
        upto: int,
        model: Model,
        rng: random.Random,
        *,
        limit: int = LIMIT,
        draws: int = DRAWS,
        most: int | None = None,
    ) -> Iterator[Found]:
        """What may be found when the power goes after entry `upto`. See `losses.states`."""
        platter = Platter(self._start, self.log, upto, model)
        return states(platter, rng, limit=limit, draws=draws, most=most)

    def state(self, upto: int, loss: Loss) -> Found:
        """The state of that name."""
        return found_after(Platter(self._start, self.log, upto, "posix"), loss)

    def boot(self, found: Found) -> Disk:
        """Put a state where this disk lies, and start a machine on it."""
        self.forget_open_files()
        if os.path.lexists(self.root):
            shutil.rmtree(self.root)
        os.mkdir(self.root)
        placed: dict[Node, str] = {}
        for path, node in found.nodes.items():
            place = os.path.join(self.root, *path.split("/"))
            content = found.contents.get(path)
            if node in placed:
                os.link(placed[node], place, follow_symlinks=False)
                continue
            placed[node] = place
            _put(place, content)
        return Disk(
            self.root,
            fs_name=self.fs_name,
            known=found.nodes,
            next_node=self._next,
            boots=self.boots + 1,
        )

    # --- for seams ----------------------------------------------------------------------------------

    def inside(self, path: str) -> bool:
        """Whether a path lies on this disk."""
        return path == self.root or path.startswith(self.root + os.sep)

    def slot(self, path: str) -> Slot | None:
        """The slot that a path names; None off this disk."""
        folder, name = os.path.split(path)
        node = self.node(folder)
        return None if node is None else (node, name)

    def node(self, path: str, *, follow: bool = True) -> Node | None:
        """The node at a path; None off this disk or where nothing is."""
        try:
            found = os.stat(path, follow_symlinks=follow)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self.node_of(found, path)

    def node_of(self, found: os.stat_result, path: str) -> Node | None:
        """The node that the system tells of; None off this disk."""
        node = self._nodes.get((found.st_dev, found.st_ino))
        if node is None and self.inside(path):
            raise UnseenError(
                f"{path} was made by a call that the simulated disk did not see; a loss of power "
                "can be judged only where every change goes through its seam"
            )
        return node

    def named(self, path: str) -> tuple[Slot, Node] | None:
        """Slot and node of a path, its last part not followed; None off this disk or for nothing."""
        node = self.node(path, follow=False)
        slot = self.slot(path) if node is not None else None
        return None if node is None or slot is None else (slot, node)

    def knows(self, path: str) -> bool:
        """Whether what lies at `path` was seen to be made, or lies off this disk."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) in self._nodes or not self.inside(path)

    def new_node(self, path: str, node: Node | None = None) -> Node:
        """A node for what was just made at `path`."""
        found = os.lstat(path)
        if node is None:
            node, self._next = self._next, self._next + 1
        self._nodes[(found.st_dev, found.st_ino)] = node
        return node

    def change(self, call: str, change: Change, told: str) -> None:
        """Log a change of names."""
        self._add(change, f"{call} {told.replace(self.root + os.sep, '')}")

    def created(self, call: str, path: str, closed: Callable[[], bool] | None = None) -> None:
        """Log a new file, and watch what is written to it until it is `closed`."""
        slot = self.slot(path)
        if slot is None:
            return
        node = self.new_node(path)
        empty = Content.of(b"", os.lstat(path).st_mtime_ns)
        self._newest[node] = empty
        self.change(call, Change(call, ((slot, node),), made=(node, empty)), path)
        if closed is not None:
            self._watched.append(_Watch(path, node, closed))

    def opened(self, path: str, closed: Callable[[], bool]) -> None:
        """Watch an existing file until it is `closed`."""
        node = self.node(path)
        if node is not None:
            self._watched.append(_Watch(path, node, closed))

    def synced(self, sync: Sync, told: str) -> None:
        """Log a sync."""
        self._add(sync, f"sync {sync.kind} {told.replace(self.root + os.sep, '')}")

    def take(self, node: Node, fd: int) -> None:
        """The content of a file by a descriptor, if it is new."""
        found = os.fstat(fd)
        self._took(node, Content.of(_read(fd, found.st_size), found.st_mtime_ns))

    def look_at_open_files(self) -> None:
        """Log what was written since the last call."""
        left = []
        for watch in self._watched:
            closed = watch.closed()
            content = watch.changed()
            if content is not None:
                self._took(watch.node, content)
            if closed:
                watch.close()
            else:
                left.append(watch)
        self._watched = left

    def _took(self, node: Node, content: Content) -> None:
        if self._newest[node] != content:
            self._newest[node] = content
            self._add(Data(node, content), f"write {len(content.data)} bytes to file {node}")

    def _add(self, entry: Entry, told: str) -> None:
        self.log.append(Logged(entry, told))

    def _look(self, known: dict[str, Node]) -> Start:
        """All that lies here, with a node each; hard links share one."""
        nodes: dict[str, Node] = {}
        contents: dict[Node, Content] = {}
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with os.scandir(os.path.join(self.root, folder)) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    found = entry.stat(follow_symlinks=False)
                    node = self._nodes.get((found.st_dev, found.st_ino))
                    if node is None:
                        node = self.new_node(entry.path, known.get(path))
                        if not entry.is_dir(follow_symlinks=False):
                            contents[node] = _content(entry.path, found)
                    nodes[path] = node
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
        self._newest.update(contents)
        return Start(slots_of(nodes), contents)


def _read(fd: int, size_bytes: int) -> bytes:
    pieces = []
    at = 0
    while piece := os.pread(fd, max(size_bytes - at, 1), at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _content(path: str, found: os.stat_result) -> Content:
    if stat.S_ISLNK(found.st_mode):
        return Content.of(os.fsencode(os.readlink(path)), found.st_mtime_ns, link=True)
    with open(path, "rb") as file:
        return Content.of(file.read(), found.st_mtime_ns)


def _put(path: str, content: Content | None) -> None:
    if content is None:
        os.mkdir(path)
    elif content.link:
        os.symlink(os.fsdecode(content.data), path)
    else:
        with open(path, "wb") as file:
            file.write(content.data)
        os.utime(path, ns=(content.mtime_ns, content.mtime_ns))
