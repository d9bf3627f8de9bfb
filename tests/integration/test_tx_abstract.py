"""fsspec's abstract suite over ``tx::`` on memory and on disk, outside and inside of a transaction.

Patterns are tried inside of a transaction in memory, and on disk outside of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.tests import abstract

from support.txabstract import Fixtures
from support.txplaces import commits, targets


class Memory(Fixtures):
    """A fresh target in memory."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for url in targets("memory", tmp_path):
            yield url, {}


class Local(Fixtures):
    """A fresh target on disk."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for url in targets("file", tmp_path):
            yield url, {}


class TestMemoryCopy(abstract.AbstractCopyTests, Memory):
    pass


class TestMemoryGet(abstract.AbstractGetTests, Memory):
    pass


class TestMemoryPut(abstract.AbstractPutTests, Memory):
    pass


class TestMemoryOpen(abstract.AbstractOpenTests, Memory):
    pass


class TestMemoryPipe(abstract.AbstractPipeTests, Memory):
    pass


class TestMemoryCopyInside(abstract.AbstractCopyTests, Memory):
    inside = True


class TestMemoryGetInside(abstract.AbstractGetTests, Memory):
    inside = True


class TestMemoryPutInside(abstract.AbstractPutTests, Memory):
    inside = True


class TestMemoryOpenInside(abstract.AbstractOpenTests, Memory):
    inside = True


class TestMemoryPipeInside(abstract.AbstractPipeTests, Memory):
    inside = True


class TestLocalCopy(abstract.AbstractCopyTests, Local):
    pass


class TestLocalGet(abstract.AbstractGetTests, Local):
    pass


class TestLocalPut(abstract.AbstractPutTests, Local):
    pass


class TestLocalOpen(abstract.AbstractOpenTests, Local):
    pass


class TestLocalPipe(abstract.AbstractPipeTests, Local):
    pass


class TestLocalCopyInside(abstract.AbstractCopyTests, Local):
    inside = True
    test_copy_glob_edge_cases = None


class TestLocalGetInside(abstract.AbstractGetTests, Local):
    inside = True
    test_get_glob_edge_cases = None


class TestLocalPutInside(abstract.AbstractPutTests, Local):
    inside = True
    test_put_glob_edge_cases = None


class TestLocalOpenInside(abstract.AbstractOpenTests, Local):
    inside = True


class TestLocalPipeInside(abstract.AbstractPipeTests, Local):
    inside = True


class TestInside(Memory):
    """That the suite's transaction is one."""

    inside = True

    def test_calls_are_made_in_one_transaction(
        self, fs: Any, fs_path: str, target: tuple[str, dict[str, Any]]
    ) -> None:
        """Protects the tests above from running outside of what they are about."""
        fs.pipe_file(f"{fs_path}/a", b"1")
        fs.pipe_file(f"{fs_path}/b", b"1")
        assert fs.find(fs_path) == [f"{fs_path}/a", f"{fs_path}/b"]
        assert commits(target[0]) == 0
        fs.end(fs._fs)
        assert commits(target[0]) == 1
