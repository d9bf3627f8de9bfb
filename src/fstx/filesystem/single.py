"""What is done with one name: directly in the caller's thread, or aside from its event loop."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import Any, NoReturn

from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK

from fstx.errors import UsageError
from fstx.filesystem import listing
from fstx.filesystem import operations as op
from fstx.filesystem.files import Compressed, ReadFile, TextFile, WriteFile
from fstx.filesystem.places import Place
from fstx.filesystem.sessions import Session
from fstx.filesystem.threads import aside, to_the_end


class OneName(AsyncFileSystem):  # type: ignore[misc]
    """Methods of `TxFileSystem` that take one name (two to copy)."""

    _session: Session
    target: Any

    def _at(self, path: str, *, file: bool = False) -> Place:
        return self._session.places.at(self._strip(path), file=file)

    def _to(self, path: str, *, directory: bool = False) -> Place:
        return self._session.places.for_writing(self._strip(path), directory=directory)

    # --- one name, in the caller's thread -------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Details: name, size, type, and for files ``etag`` and the ``version`` that is read."""
        return listing.info(self._session, self._at(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What lies directly below a directory."""
        rows = listing.ls(self._session, self._at(path))
        return rows if detail else [row["name"] for row in rows]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """All files at or below a path."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        prefix = str(kwargs.get("prefix") or "")
        found = listing.find(self._session, self._at(path), maxdepth, withdirs, prefix)
        return found if detail else list(found)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Bytes of a file; `start` and `end` as for a slice."""
        return op.cat(self._session, self._at(path, file=True), start, end)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write one whole file; ``mode="create"``: it must be absent."""
        op.pipe(self._session, self._to(path), value, new=mode == "create")

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:
        """Write one local file."""
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        op.put(self._session, lpath, self._to(rpath), new=mode == "create", callback=callback)

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copy one file to the local disk."""
        if outfile is None and not hasattr(lpath, "write") and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        op.get(self._session, self._at(rpath, file=True), outfile or lpath, callback)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy one file; within a dataset no byte is moved."""
        op.copy(self._session, self._at(path1), self._to(path2))

    def rm_file(self, path: str, **kwargs: Any) -> None:
        """Remove one file."""
        op.remove(self._session, self._at(path), recursive=False)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory, which stays when it is empty."""
        self._make(path, exist_ok=False, parents_too=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        self._make(path, exist_ok=exist_ok)

    def _make(self, path: str, *, exist_ok: bool, parents_too: bool = True) -> None:
        place = self._at(path)
        if place.dataset is None and not self.target.exists(place.real):
            place = self._to(path, directory=True)
        op.make_directory(self._session, place, exist_ok=exist_ok, parents_too=parents_too)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        op.remove_directory(self._session, self._at(path))

    def created(self, path: str) -> NoReturn:
        raise NotImplementedError("a dataset does not record when a path was first written")

    def modified(self, path: str) -> datetime:
        """When the content was staged; of small files, when the version that is read was committed."""
        place = self._at(path)
        if place.dataset is None:
            found: datetime = self.target.modified(place.real)
            return found
        seen, entry = op.entry_of(self._session, place)
        return datetime.fromtimestamp(listing.staged_s(seen, entry), UTC)

    def ukey(self, path: str) -> str:
        """Changes with the content, not with other commits."""
        found = self.info(path)
        found.pop("version", None)
        return hashlib.sha256(str(sorted(found.items(), key=str)).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int(self.ukey(path), 16)

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            "a path of a dataset has no URL of its own: its content may be packed with others"
        )

    # --- files ----------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file: ``r``, ``w``, ``x`` or ``a``, as text or binary.

        A reader keeps the content that it opened. A writer publishes when it is closed, and nothing
        when its ``with`` block is left by an exception.
        """
        if "b" not in mode:
            texts = ("encoding", "errors", "newline")
            options = {k: kwargs.pop(k) for k in texts if k in kwargs}
            binary = self.open(
                path, mode.replace("t", "") + "b", block_size, cache_options, compression, **kwargs
            )
            return TextFile(binary, **options)
        file = self._open(path, mode, block_size, cache_options=cache_options, **kwargs)
        if compression is None:
            return file
        from fsspec.compression import compr
        from fsspec.core import get_compression

        name = get_compression(path, compression)
        if name is None:
            return file
        stream = compr[name](file, mode=mode[0])
        return Compressed(stream, file) if isinstance(file, WriteFile) else stream

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
        if mode == "rb":
            place = self._at(path, file=True)
            if place.dataset is None:
                return self.target.open(place.real, "rb", block_size=block_size, **kwargs)
            options = {
                "block_size": block_size or "default",
                "cache_options": cache_options,
                **kwargs,
            }
            return ReadFile(self, self._session, place, **options)
        if mode not in ("wb", "xb", "ab"):
            raise UsageError(
                f"mode {mode!r} is not for objects: they are written whole; read the file, change it, and "
                "write it by 'wb', or add to its end by 'ab'"
            )
        return WriteFile(
            self,
            self._session,
            self._to(path),
            append=mode == "ab",
            new=mode == "xb",
            autocommit=autocommit,
        )

    # --- the same from an event loop --------------------------------------------------------------------

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return await aside(self.info, path)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        return await aside(self.ls, path, detail)

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        return await aside(self.find, path, maxdepth, withdirs, detail, **kwargs)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        return await aside(self.cat_file, path, start, end)

    async def _pipe_file(
        self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        await to_the_end(self.pipe_file, path, value, mode)

    async def _put_file(
        self, lpath: str, rpath: str, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        await to_the_end(self.put_file, lpath, rpath, mode=mode, **kwargs)

    async def _get_file(self, rpath: str, lpath: Any, **kwargs: Any) -> None:
        await aside(self.get_file, rpath, lpath, **kwargs)

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        await to_the_end(self.cp_file, path1, path2)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await to_the_end(self.rm_file, path)

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        await to_the_end(self.mkdir, path, create_parents)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await to_the_end(self.makedirs, path, exist_ok)

    async def _rmdir(self, path: str) -> None:
        await to_the_end(self.rmdir, path)

    async def set_session(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the file system below keeps its own."""


__all__ = ["OneName"]
