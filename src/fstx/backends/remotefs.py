"""Transactions over SFTP and SMB, and over any storage that can rename: the local machinery, elsewhere.

`SwapBackend(ops, targets)` is for third parties: write the calls of `fstx.ops.Ops`, and `rename`, `swap` and
`redo`, recovery, fencing and conflicts are there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from fstx import seams
from fstx.backends.base import storage_errors
from fstx.backends.local.backend import LocalBackend
from fstx.errors import PathError, UsageError
from fstx.ops import Ops
from fstx.stores.hiding import without_user

__all__ = ["SwapBackend", "open_sftp", "open_smb"]


class SwapBackend(LocalBackend):
    """One or several targets on storage that renames.

    Parameters
    ----------
    ops
        The calls: see `fstx.ops.Ops`, and section 7.3 of the specification for what each one owes.
    targets
        Absolute paths, as `ops` takes them.
    joined
        True when logical paths begin with a target's name, False for one target that is a tree.
    """

    def __init__(self, ops: Ops, targets: Sequence[str], *, joined: bool = False) -> None:
        place = ", ".join(ops.place + t for t in targets)
        with storage_errors(f"{place} can't be reached"):
            super().__init__(list(targets), joined=joined, ops=ops, syncfs=False)

    def __repr__(self) -> str:
        return f"SwapBackend({self.url})"


def open_sftp(
    urls: Sequence[str], *, joined: bool = False, ops: Ops | None = None, **options: Any
) -> SwapBackend:
    """Entry point of the schemes ``sftp`` and ``ssh``.

    Parameters
    ----------
    urls
        ``sftp://user@host:port/path``, of one server.
    joined
        Logical paths begin with the name of a target.
    ops
        Calls to use instead of a connection by `options`.
    **options
        For `fstx.ops.sftp.SftpOps`: ``username``, ``password``, ``client_keys``, ``lease_s``, ...; what the
        URL says goes first.
    """
    server, paths = _parse(urls, options)
    if ops is None:
        from fstx.ops.sftp import SftpOps

        ops = SftpOps(server.pop("host"), **server)
    return SwapBackend(seams.around_ops(ops), paths, joined=joined)


def open_smb(
    urls: Sequence[str], *, joined: bool = False, ops: Ops | None = None, **options: Any
) -> SwapBackend:
    """Entry point of the scheme ``smb``: ``smb://user@host:port/share/path``.

    As `open_sftp`, with options for `fstx.ops.smb.SmbOps`.
    """
    server, paths = _parse(urls, options)
    for url, path in zip(urls, paths, strict=True):
        if path.count("/") < 2:
            raise PathError(
                f"{without_user(url)} is a share, not a place in one; name smb://host/share/target"
            )
    if ops is None:
        from fstx.ops.smb import SmbOps

        ops = SmbOps(server.pop("host"), **server)
    return SwapBackend(seams.around_ops(ops), paths, joined=joined)


def _parse(urls: Sequence[str], options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options of the one server, and the paths on it."""
    servers, paths = [], []
    for url in urls:
        parts = urlsplit(url.replace("#", "%23").replace("?", "%3F"))
        try:
            port = parts.port
        except ValueError:
            raise PathError(f"{without_user(url)} has a port that is no number") from None
        told = {
            "host": parts.hostname,
            "port": port,
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
        }
        server = {**options, **{k: v for k, v in told.items() if v is not None}}
        if "user" in server:
            server.setdefault("username", server.pop("user"))
        if not server.get("host"):
            raise PathError(
                f"{without_user(url)} names no host; write {parts.scheme}://user@host/path"
            )
        path = parts.path.replace("%23", "#").replace("%3F", "?")
        if not path.strip("/"):
            raise PathError(f"{without_user(url)} names no path on the server")
        servers.append(server)
        paths.append(posixpath.normpath("/" + path.lstrip("/")))
    if any(server != servers[0] for server in servers[1:]):
        raise UsageError("the targets of one transaction lie on one server, reached as one user")
    return servers[0], paths
