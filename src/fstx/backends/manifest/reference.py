"""One version of a dataset as a document that plain ``reference://`` reads: kerchunk's JSON, version 1.

Readers need fsspec, and nothing of ours. Good up to about 100,000 paths: the document is read whole.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from fstx.backends.manifest.names import REFS
from fstx.state.entries import Entry, escape

if TYPE_CHECKING:
    from fstx.backends.manifest.dataset import Dataset, Version


def reference_key(version: int) -> str:
    """Where the document of a version lies in the control directory."""
    return f"{REFS}{version:020d}.json"


def reference_json(version: Version, url: str, prefix: str = "") -> bytes:
    """The document of one version.

    Parameters
    ----------
    version
        The version.
    url
        Of the dataset's root, as readers reach it, without ``tx::``. The document names objects by
        absolute URLs: of a dataset that was moved it is made anew.
    prefix
        Only what lies below this path, named relative to it.
    """
    control = f"{url.rstrip('/')}/.fstx"
    start = len(prefix) + 1 if prefix else 0
    refs = {
        path[start:]: _reference(entry, control)
        for path, entry in version.items(prefix)
        if not entry.directory and path != prefix
    }
    return json.dumps({"version": 1, "refs": refs}, separators=(",", ":")).encode()


def write_reference(dataset: Dataset, version: int | None = None, prefix: str = "") -> str:
    """Put the document of a version beside the log; returns its URL.

    It is readable for as long as the version is kept: what it names goes with `collect`.

    Raises
    ------
    FileNotFoundError
        There is no such version.
    """
    found = dataset.view(version)
    key = reference_key(found.version)
    if prefix:
        key = key.replace(".json", f"-{escape(prefix)}.json")
    dataset.store.put(key, reference_json(found, dataset.url, prefix))
    return f"{dataset.store.url.rstrip('/')}/{key}"


def _reference(entry: Entry, control: str) -> str | list[Any]:
    if entry.inline is not None:
        return _inline(entry.inline)
    place = f"{control}/{entry.key}"
    if entry.offset is None:
        return [place]
    return [place, entry.offset, entry.size_bytes]


def _inline(data: bytes) -> str:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if text and not text.startswith("base64:") and "{{" not in text:
        return text
    return "base64:" + base64.b64encode(data).decode()


__all__ = ["reference_json", "reference_key", "write_reference"]
