"""What is done with many names at once: one commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fstx.backends.manifest import joining
from fstx.filesystem import operations as op
from fstx.filesystem.sessions import give_up
from fstx.filesystem.single import OneName
from fstx.filesystem.threads import aside, to_the_end, waited


class ManyNames(OneName):
    """Methods of `TxFileSystem` that take many names, patterns or trees."""

    @asynccontextmanager
    async def _one_commit(self, name: str, *, directory: bool = False) -> AsyncIterator[None]:
        """A block whose calls make one commit: of the running transaction or of their own."""
        session = self._session
        session.writable()
        place = await aside(session.places.for_writing, name, directory=directory, check=False)
        if place.dataset is None or session.transaction(place, writing=True) is not None:
            yield
            return
        session.must_not_be_covered(place.name)
        tx = await aside(session.begin, place, "last")
        try:
            with joining.belonging(place.dataset.identity, tx):
                yield
        except BaseException as error:
            await to_the_end(give_up, tx, error)
            raise
        await to_the_end(session.commit, place, tx)

    async def _pipe(
        self, path: Any, value: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> None:
        files = {path: value} if isinstance(path, str) else dict(path)
        if not files:
            return
        if len(files) == 1:
            ((name, data),) = files.items()
            await self._pipe_file(name, data, **kwargs)
            return
        async with self._one_commit(self._strip(next(iter(files)))):
            for name, data in files.items():
                await self._pipe_file(name, data, **kwargs)

    async def _put(self, lpath: Any, rpath: Any, *args: Any, **kwargs: Any) -> Any:
        first = rpath if isinstance(rpath, str) else next(iter(rpath))
        tree = _makes_tree(lpath, rpath, kwargs)
        async with self._one_commit(self._strip(first), directory=tree):
            return await super()._put(lpath, rpath, *args, **kwargs)

    async def _copy(self, path1: Any, path2: Any, *args: Any, **kwargs: Any) -> Any:
        first = path2 if isinstance(path2, str) else next(iter(path2))
        tree = _makes_tree(path1, path2, kwargs)
        async with self._one_commit(self._strip(first), directory=tree):
            return await super()._copy(path1, path2, *args, **kwargs)

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = [path] if isinstance(path, str) else list(path)
        if not given:
            return
        first = self._strip(given[0])
        if maxdepth is None and len(given) == 1 and not _is_pattern(first):
            await to_the_end(op.remove, self._session, self._at(first), recursive=recursive)
            return
        async with self._one_commit(first, directory=True):
            names = await self._expand_path(
                path, recursive=recursive and maxdepth is not None, maxdepth=maxdepth
            )
            for name in reversed(names):
                await to_the_end(self._remove_found, name, recursive, maxdepth)

    def _remove_found(self, name: str, recursive: bool, maxdepth: int | None) -> None:
        place = self._at(name)
        if maxdepth is not None and self.isdir(name) and self.ls(name):
            return  # holds what lies too deep
        op.remove(self._session, place, recursive=recursive and maxdepth is None)

    async def _mv(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        if path1 == path2:
            return
        first = path2 if isinstance(path2, str) else next(iter(path2))
        tree = _makes_tree(path1, path2, {"recursive": recursive})
        async with self._one_commit(self._strip(first), directory=tree):
            await super()._copy(
                path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise"
            )
            await self._rm(path1, recursive=recursive)

    async def _mv_file(self, path1: str, path2: str) -> None:
        await self._mv(path1, path2)

    pipe = waited("_pipe")
    put = waited("_put")
    copy = waited("_copy")
    rm = waited("_rm")
    mv = waited("_mv")


def _makes_tree(source: Any, goal: Any, options: dict[str, Any]) -> bool:
    """Whether `goal` is meant as a directory: of one file it is the file's own name."""
    if not isinstance(source, str) or not isinstance(goal, str) or options.get("recursive"):
        return True
    return _is_pattern(source) or goal.endswith("/")


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


__all__ = ["ManyNames"]
