"""fsspec's own abstract suite over ``tx::``: what a test module inherits for one target.

Subclass `Fixtures` with a fixture ``target`` (the URL of a target that is not there yet, and options of its
file system), then the suites. ``inside`` says whether the whole of each test runs in ``with fs.transaction``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, cast

import pytest
from fsspec.tests import abstract

from support.txplaces import opened


class Fixtures(abstract.AbstractFixtures):
    """The suite's fixtures, over a dataset."""

    inside = False

    @pytest.fixture
    def target(self) -> Iterator[tuple[str, dict[str, Any]]]:
        raise NotImplementedError

    @pytest.fixture
    def opened_target(self, target: tuple[str, dict[str, Any]]) -> tuple[Any, str]:
        url, options = target
        fs, path = opened("tx::" + url, **options)
        fs.makedirs(path)
        return fs, path

    @pytest.fixture
    def fs(self, opened_target: tuple[Any, str]) -> Iterator[Any]:
        fs, _ = opened_target
        if not self.inside:
            yield fs
            return
        # A fixture's context is not the test's: the block is entered and left in each test's call.
        yield Within(fs)
        Within.end(fs)

    @pytest.fixture
    def fs_path(self, opened_target: tuple[Any, str]) -> str:
        return opened_target[1]

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(str(p) for p in parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return True


def third(test: Callable[..., None], n: int) -> Callable[..., None]:
    """Every third case of a parametrised test, from case `n` on.

    Where copying, getting and putting take a third each, every case is tried on that storage; each of the
    three with every case is tried on memory.
    """
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    names, cases = mark.args
    part = FunctionType(test.__code__, test.__globals__, test.__name__)  # type: ignore[attr-defined]
    return cast("Callable[..., None]", pytest.mark.parametrize(names, cases[n::3])(part))


class Within:
    """A file system all of whose calls are made inside one ``fs.transaction``, whatever context calls."""

    _blocks: dict[int, Any] = {}  # noqa: RUF012 - a registry of this process
    _names = itertools.count()

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    @classmethod
    def end(cls, fs: Any) -> None:
        """Commit what the test did."""
        block = cls._blocks.pop(id(fs), None)
        if block is not None:
            block._end(None)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._fs, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            block = self._blocks.get(id(self._fs))
            if block is None:
                block = self._blocks[id(self._fs)] = self._fs.transaction
                block._place, block._tx = block._begin()
            with block._tx.current():
                return found(*args, **kwargs)

        return call
