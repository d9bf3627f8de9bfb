"""Where a name lies: in which dataset and at which path of it, or outside of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from fstx import seams
from fstx.backends.manifest.dataset import Dataset, dataset_of, marked_above
from fstx.errors import PathError, UsageError
from fstx.filesystem.names import target_part
from fstx.paths import CONTROL_NAME
from fstx.stores import Store
from fstx.stores.opening import store_of

_KNOWN = 1024
_known: dict[tuple[str, str], None] = {}  # target and root of datasets that were found
seams.at_end_of_process(_known.clear)
_known_lock = threading.Lock()


class Target:
    """The file system below ``tx``: always a synchronous instance, used from any thread.

    Parameters
    ----------
    fs
        Given by the caller; an asynchronous one is made anew.
    protocol, options
        Or what makes it.
    """

    def __init__(self, fs: Any, protocol: str | None, options: dict[str, Any]) -> None:
        import fsspec

        if fs is None:
            if not protocol:
                raise UsageError(
                    "tx needs a file system below it: tx::s3://bucket/ds, or "
                    'fsspec.filesystem("tx", target_protocol="s3", ...)'
                )
            plain = {k: v for k, v in options.items() if k not in ("asynchronous", "loop")}
            fs = fsspec.filesystem(protocol, **plain)
        elif getattr(fs, "asynchronous", False):
            plain = {
                k: v for k, v in fs.storage_options.items() if k not in ("asynchronous", "loop")
            }
            fs = type(fs)(*fs.storage_args, **plain)
        if "tx" in _protocols(fs):
            raise UsageError("tx:: lies on tx:: already; name it once")
        self.fs = fs
        self.token = str(fs._fs_token)

    def strip(self, name: str) -> str:
        """The target's own spelling of a name or URL of it."""
        stripped: str = self.fs._strip_protocol(name)
        return stripped

    def url(self, name: str) -> str:
        """The URL of a name, without options."""
        return str(self.fs.unstrip_protocol(name or "/"))

    def dataset(self, root: str) -> Dataset:
        """The dataset whose root is `root`, whether it is there or not."""
        return dataset_of(self.store(f"{root.rstrip('/')}/{CONTROL_NAME}"))

    def store(self, name: str) -> Store:
        """The store whose root is `name`."""
        from fsspec.implementations.dirfs import DirFileSystem

        fs = self.fs
        while isinstance(fs, DirFileSystem):  # a prefix and no more: the storage itself is proven
            name, fs = fs._join(name.strip("/")), fs.fs
        return store_of(fs, name)

    def nearest(self, name: str) -> str | None:
        """The root of the nearest dataset at or above `name`, by the markers."""
        top, path = _top(name)
        for marked in marked_above(self.store(top), path):
            root = f"{top.rstrip('/')}/{marked}".rstrip("/") if marked else top
            self.remember(root)
            return root
        return None

    def remember(self, root: str) -> None:
        """`root` is a dataset's: no marker needs to be looked for below it."""
        with _known_lock:
            _known[(self.token, root)] = None
            while len(_known) > _KNOWN:
                del _known[next(iter(_known))]

    def unremember(self, root: str) -> None:
        """`root` did not become a dataset's after all."""
        with _known_lock:
            _known.pop((self.token, root), None)

    def known(self, name: str) -> str | None:
        """The nearest root at or above `name` that was found before."""
        return next((r for r in above(name) if (self.token, r) in _known), None)


@dataclass(frozen=True)
class Place:
    """A name and where it lies.

    Parameters
    ----------
    name
        As callers spell it and results show it.
    real
        The target's name for it.
    dataset
        None: in no dataset, a plain object of the target.
    root, path
        The dataset's root as a name of the target, and the path below it; "" is the root itself.
    """

    name: str
    real: str
    dataset: Dataset | None = None
    root: str = ""
    path: str = ""

    def within(self, path: str) -> str:
        """The name of another path of the same dataset."""
        base = self.name[: len(self.name) - len(self.path)].rstrip("/") if self.path else self.name
        if not path:
            return base
        return f"{base}/{path}" if base else path


class Places:
    """Finds the place of a name.

    Parameters
    ----------
    target
        The file system below.
    given
        The target's path of the URL (fsspec's ``fo``); "" where there was none.
    root
        The dataset's root, where the caller names it.
    inner
        Names are paths in the root, which is `given`.
    """

    def __init__(self, target: Target, given: str, root: str | None, inner: bool) -> None:
        self.target = target
        self.inner = inner
        self.given = target.strip(given) if given else ""
        if inner and not self.given:
            raise UsageError("tx://INNER:: needs the root behind it, as in tx://INNER::s3://bucket")
        self.root = self.given if inner else target.strip(root) if root else ""
        self._absent: set[str] = set()  # no marker at or above, as far as this instance looked
        self._free: set[str] = set()  # nothing plain lay there
        self._identities: dict[str, str] = {}
        self.running: Callable[[], Container[str]] = tuple
        """Identities of datasets with a transaction that the running code may belong to."""

    def forget(self) -> None:
        """Look for markers anew."""
        self._absent.clear()
        self._free.clear()

    def strip(self, name: str) -> str:
        """`name` as this file system spells it."""
        target, below = target_part(name)
        if self.inner:
            return below or target.strip("/")
        stripped = self.target.strip(target)
        return f"{stripped.rstrip('/')}/{below}" if below else stripped

    def at(self, name: str, *, file: bool = False) -> Place:
        """The place of a stripped name. `file`: no dataset's root is expected right there."""
        real = name
        if self.inner:
            real = f"{self.root.rstrip('/')}/{name}" if name else self.root
        if CONTROL_NAME in real.split("/"):
            raise FileNotFoundError(2, f"{CONTROL_NAME} is the library's own", name)
        root = self._root_of(real, file)
        if root is None:
            return Place(name, real)
        return self._in(name, real, root)

    def for_writing(self, name: str, *, directory: bool = False, check: bool = True) -> Place:
        """As `at`; where there is no dataset yet and `name` lies below the given path, that is its root.

        Parameters
        ----------
        directory
            The given path itself may be meant as the root.
        check
            Refuse a root where plain objects lie.

        Raises
        ------
        UsageError
            Plain objects lie there: a place is one or the other.
        """
        place = self.at(name, file=not directory)
        if place.dataset is not None or not self._roots_here(place.real, directory):
            return place
        if check:
            self.must_be_free(self.given)
        return self._in(name, place.real, self.given)

    def dataset_root(self) -> str:
        """The root that this instance is about: named, found at or above the given path, or that path.

        Raises
        ------
        UsageError
            Neither a root nor a path was given.
        """
        if self.root:
            return self.root
        if not self.given:
            raise UsageError(
                "this file system knows no dataset: open it by a URL (fsspec.core.url_to_fs("
                '"tx::s3://bucket/ds")), pass root="bucket/ds" to fsspec.filesystem, or write '
                'with fstx.begin("tx::s3://bucket/ds")'
            )
        found = self._root_of(self.given, False)
        if found is None:
            self.must_be_free(self.given)
        return found or self.given

    def root_place(self, root: str) -> Place:
        """The place of a dataset's root."""
        name = real = root
        if self.inner:
            name = root[len(self.root) :].strip("/")
        return self._in(name, real, root)

    def must_be_free(self, root: str) -> None:
        """UsageError where something lies at `root` that was not written through ``tx::``."""
        if root in self._free:
            return
        fs = self.target.fs
        fs.invalidate_cache()
        try:
            held = [
                n
                for n in fs.ls(root, detail=False)
                if n.rstrip("/").rpartition("/")[2] != CONTROL_NAME
            ]
        except (FileNotFoundError, NotADirectoryError):
            held = []
        if held:
            raise UsageError(
                f"{self.target.url(root)} is no dataset and holds plain objects ({held[0]}, ...), which "
                "would not be part of it; name another place, or this one by root="
            )
        self._free.add(root)

    def created(self, root: str) -> None:
        """A dataset is at `root` now."""
        self.target.remember(root)
        self._absent.clear()

    # --- pieces ---------------------------------------------------------------------------------

    def _in(self, name: str, real: str, root: str) -> Place:
        path = real[len(root) :].strip("/")
        return Place(name, real, self.target.dataset(root), root, path)

    def _roots_here(self, real: str, directory: bool) -> bool:
        given = self.given.rstrip("/")
        if not given:
            return False
        return real.startswith(given + "/") or (directory and real == given)

    def _root_of(self, real: str, file: bool) -> str | None:
        if self.root and _covers(self.root, real):
            return self.root
        start = real.rpartition("/")[0] if file and "/" in real.strip("/") else real
        found = self.target.known(real) or self._begun(start)
        if found is not None:
            return found
        found = self._marked(start)
        if found is None and start != real and real == self.given:
            found = self._marked(real)
        return found

    def _begun(self, real: str) -> str | None:
        """The root of a running transaction at or above: the marker comes with its commit only."""
        running = self.running()
        if not running:
            return None
        for root in above(real):
            identity = self._identities.get(root)
            if identity is None:
                store = self.target.store(f"{root.rstrip('/')}/{CONTROL_NAME}")
                identity = self._identities[root] = store.identity
            if identity in running:
                return root
        return None

    def _marked(self, start: str) -> str | None:
        if start in self._absent:
            return None
        found = self.target.nearest(start)
        if found is None:
            self._absent.add(start)
        return found


def above(name: str) -> Iterator[str]:
    """`name` and all names above it, nearest first."""
    yield name
    while "/" in name.rstrip("/"):
        name = name.rstrip("/").rpartition("/")[0] or "/"
        yield name
        if name == "/":
            return


def _covers(root: str, name: str) -> bool:
    return name == root or name.startswith(root.rstrip("/") + "/")


def _top(name: str) -> tuple[str, str]:
    """The outermost name that may be a root, and the path below it: a bucket, or the top directory."""
    if name.startswith("/"):
        return "/", name.strip("/")
    top, _, path = name.partition("/")
    return top, path.strip("/")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def bad_path(place: Place) -> PathError:
    """For a name that is a dataset's root where a file is meant."""
    return PathError(
        f"{place.name} is the root of a dataset, so it can't be a file; name a path in it"
    )


__all__ = ["Place", "Places", "Target", "above", "bad_path"]
