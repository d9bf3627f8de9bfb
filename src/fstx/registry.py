"""From URLs to a backend: by scheme, through the entry-point group ``fstx.backends``.

An entry point names a callable ``open_backend(urls, *, joined, **options) -> Backend``. Another package
that registers one for its scheme is found without any import of it in user code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from fstx.errors import CapabilityError, PathError, UsageError
from fstx.protocol import Backend
from fstx.stores.hiding import without_user

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "fstx.backends"
URL: TypeAlias = "str | os.PathLike[str]"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")


def as_url(url: URL) -> str:
    """A URL or plain path as text; paths of ``pathlib`` and ``upath`` are accepted.

    Raises
    ------
    PathError
        Empty, not text, or with NUL.
    """
    text: Any
    if isinstance(url, str):
        text = url
    elif hasattr(url, "protocol") and hasattr(url, "storage_options"):
        text = str(url)  # UPath: its os.fspath exists for local paths only
    elif isinstance(url, os.PathLike):
        text = os.fspath(url)
    else:
        raise PathError(f"a URL must be a str or a path, not {type(url).__name__}: {url!r}")
    if not isinstance(text, str):
        raise PathError(f"a URL must be text, not {type(text).__name__}: {text!r}")
    if not text.strip():
        raise PathError("the URL is empty; name a target, for example out/scene")
    if "\x00" in text:
        raise PathError(f"the URL {text!r} contains NUL")
    return text


def name_of(url: str) -> str:
    name = url.rstrip("/").replace(os.sep, "/").rpartition("/")[2]
    if not name or name in (".", "..") or name.endswith(":"):
        raise PathError(f"{url!r} names no file; give it a name, for example out/dem.vrt")
    return name


def sibling(url: str, name: str) -> str:
    own = name_of(url)
    return url[: len(url) - len(own)] + name


def scheme_of(url: str) -> str:
    """The scheme that selects the backend; ``file`` for a plain path (also ``C:\\...``)."""
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else "file"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {e.name: e for e in entry_points(group=GROUP)}


_BUILT_IN: dict[str, str] = {
    "file": "fstx.backends.local:open_backend",
    "local": "fstx.backends.local:open_backend",
    "memory": "fstx.backends.memory:open_backend",
    "sftp": "fstx.backends.remotefs:open_sftp",
    "ssh": "fstx.backends.remotefs:open_sftp",
    "smb": "fstx.backends.remotefs:open_smb",
    "tx": "fstx.backends.manifest:open_backend",
    "s3": "fstx.backends.plain:open_backend",
    "s3a": "fstx.backends.plain:open_backend",
    "gs": "fstx.backends.plain:open_backend",
    "gcs": "fstx.backends.plain:open_backend",
    "az": "fstx.backends.plain:open_backend",
    "abfs": "fstx.backends.plain:open_backend",
    "abfss": "fstx.backends.plain:open_backend",
}


_WAYS = (
    "Ways out: sftp:// or smb:// on the same server, a local directory and a copy of what is committed, "
    "or tx:: on another storage"
)
_NO_FTP = (
    "FTP's rename replaces what is there without telling, nothing but MKD creates exclusively, and an "
    "upload that breaks off leaves a part under its name, so that no lock, no journal and no conflict can "
    "be relied upon. " + _WAYS
)
_NO_WEBDAV = (
    "WebDAV servers check a condition and write afterwards: of writers at once several are told that they "
    "were first, and readers of a name that is replaced find nothing for a moment. " + _WAYS
)
_REFUSED = {
    "ftp": _NO_FTP,
    "ftps": _NO_FTP,
    "webdav": _NO_WEBDAV,
    "webdavs": _NO_WEBDAV,
    "dav": _NO_WEBDAV,
    "davs": _NO_WEBDAV,
    "http": _NO_WEBDAV,
    "https": _NO_WEBDAV,
}


def schemes() -> tuple[str, ...]:
    """All schemes that have a backend, sorted."""
    return tuple(sorted({*_BUILT_IN, *_entry_points()}))


def backend(urls: Sequence[str], *, joined: bool = False, **options: Any) -> Backend:
    """The backend for targets of one scheme.

    Raises
    ------
    PathError
        The targets have different schemes.
    CapabilityError
        No backend is registered for the scheme.
    """
    found = {scheme_of(u) for u in urls}
    if len(found) != 1:
        raise PathError(
            f"the targets of one transaction share a scheme; got {', '.join(sorted(found))}"
        )
    scheme = found.pop()
    point = _entry_points().get(scheme)
    if point is None and scheme in _BUILT_IN:
        from importlib.metadata import EntryPoint

        point = EntryPoint(scheme, _BUILT_IN[scheme], GROUP)
    if point is None and scheme in _REFUSED:
        raise CapabilityError(
            f"no transaction can be kept at {without_user(urls[0])}: {_REFUSED[scheme]}"
        )
    if point is None:
        raise CapabilityError(
            f"no backend for {scheme}:// ({without_user(urls[0])}); there are {', '.join(schemes())}. "
            f"A package adds one by an entry point of the group {GROUP!r}"
        )
    factory: Callable[..., Backend] = point.load()
    try:
        return factory(urls, joined=joined, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise UsageError(
                f"the backend of {scheme}:// does not know an option: {error}"
            ) from error
        raise


def enters_by_document(backend: Backend) -> bool:
    """Whether a directory can't be switched whole there, so that its document has to come last."""
    return bool(getattr(backend, "enters_by_document", False))
