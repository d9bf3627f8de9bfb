"""From a ``tx`` URL to a dataset and a place in it.

tx::TARGET                the nearest dataset at or above TARGET, else TARGET itself is the root
tx://INNER::TARGET        TARGET is the root, INNER a path in it
tx://@ID[/INNER]::TARGET  as above, joining transaction ID
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from fstx.backends.manifest.dataset import Dataset, dataset_of, marked_above
from fstx.errors import PathError, UsageError
from fstx.paths import CONTROL_NAME, is_below
from fstx.stores import Store
from fstx.stores.opening import open_store

_TX = re.compile(r"tx(?:://(?P<inner>.*))?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OWN = ("root", "version", "policy")


@dataclass(frozen=True)
class TxUrl:
    """A ``tx`` URL in its parts."""

    target: str
    inner: str = ""
    reference: str = ""
    rooted: bool = False  # the target is the root, whatever lies above it


def parse(url: str) -> TxUrl:
    """The parts of a ``tx`` URL.

    Raises
    ------
    PathError
        No such URL, or a chain that has more layers below ``tx``.
    """
    first, separator, target = url.partition("::")
    found = _TX.fullmatch(first)
    if found is None or not separator or not target:
        raise PathError(
            f"{url!r} is no URL of a transaction; write tx::TARGET, such as tx::s3://bucket/cube"
        )
    if "::" in target:
        raise PathError(f"{url!r}: nothing can lie between tx:: and the storage")
    inner = (found["inner"] or "").strip("/")
    reference = ""
    if inner.startswith("@"):
        reference, _, inner = inner[1:].partition("/")
    return TxUrl(target.rstrip("/") or target, inner, reference, bool(inner))


def split_options(options: dict[str, Any], target: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the chain itself, and those of its storage, as fsspec nests them."""
    found = _SCHEME.match(target)
    scheme = found[1].lower() if found else "file"
    own = dict(options.pop("tx", {}))
    storage = dict(options.pop(scheme, {}))
    for name, value in options.items():
        (own if name in _OWN else storage)[name] = value
    if unknown := sorted(set(own) - set(_OWN)):
        raise UsageError(f"tx:: takes no options {', '.join(unknown)}; there are {', '.join(_OWN)}")
    return own, storage


def top_of(url: str) -> tuple[str, str]:
    """The URL of the outermost place that may hold a dataset above `url`, and the path below it."""
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    if scheme in ("file", "local"):
        path = url[found.end() :] if found else url
        absolute = os.path.abspath(os.path.expanduser(path))
        drive, rest = os.path.splitdrive(absolute)
        return drive + os.sep, rest.replace(os.sep, "/").strip("/")
    assert found is not None
    rest = url[found.end() :].strip("/")
    if scheme == "memory":
        return "memory://", rest
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}", path.strip("/")


def find(
    url: str, storage: dict[str, Any], *, root: str | None = None
) -> tuple[Dataset, str, bool]:
    """The dataset that `url` lies in, the path of `url` in it, and whether its marker was found.

    Parameters
    ----------
    url
        Of the storage, without ``tx``.
    storage
        Its options.
    root
        The dataset's root, where the caller names it.
    """
    top_url, path = top_of(url)
    top = open_store(top_url, **storage)
    if CONTROL_NAME in path.casefold().split("/"):
        raise PathError(f"{url} lies in {CONTROL_NAME}/, which is the library's own")
    if root is not None:
        root_top, root_path = top_of(root)
        if root_top != top_url or not (not root_path or is_below(path, root_path)):
            raise PathError(f"{url} does not lie in the root {root}")
        return dataset_at(top, root_path), path[len(root_path) :].strip("/"), False
    for marked in marked_above(top, path):
        return dataset_at(top, marked), path[len(marked) :].strip("/"), True
    return dataset_at(top, path), "", False


def dataset_at(top: Store, path: str) -> Dataset:
    """The dataset whose root is `path` below the store `top`."""
    return dataset_of(top.below(f"{path}/{CONTROL_NAME}" if path else CONTROL_NAME))
