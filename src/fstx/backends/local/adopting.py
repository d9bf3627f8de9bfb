"""Files of a transaction's file system that are staged as they are: by one more name."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable

from fstx.backends.base import BaseTransaction
from fstx.backends.local.items import Itemizer
from fstx.backends.local.staging import LocalStager, stage_copy
from fstx.errors import FencedError
from fstx.ops import FileKind, Ops
from fstx.types import StagedObject


class AdoptsFiles(BaseTransaction):
    """A transaction with an area of its own, into which names can be linked."""

    _ops: Ops
    _txid: str
    _items: Itemizer
    _stager: LocalStager
    _moved: set[str]

    @abstractmethod
    def _make_folder(self, folder: str) -> None: ...

    def _given_up(self) -> FencedError:
        return FencedError(
            f"the staging area of transaction {self.id} is gone: it was given up for dead",
            txid=self.id,
            outcome="aborted",
        )

    def adopt_files(self, files: Iterable[tuple[StagedObject, str]], /) -> None:
        """Stage and adopt files of this file system by one more name each; where that can't be, as copies.

        Raises
        ------
        FileNotFoundError
            One is not there with the length of its receipt; the ones before it are adopted.
        """
        with self._lock, self._storage("adopting what was staged"):
            self._must_be_open()
            places: dict[str, str] = {}  # of directories that were made
            for kept, source in files:
                self._allowed(kept.path)
                stat = self._ops.lstat(source)
                if stat is None or (stat.kind, stat.size_bytes) != (FileKind.FILE, kept.size_bytes):
                    raise FileNotFoundError(source)
                self._touch(kept.path)
                receipt = StagedObject(
                    kept.path, kept.key, kept.size_bytes, self._txid, kept.publisher
                )
                displaced = self._changes.add(receipt)
                try:
                    if displaced is not None or not self._linked(kept, source, places):
                        receipt = stage_copy(self._ops, source, self._stager, kept)
                        self._adopted(receipt, displaced)
                        self._changes.add(receipt)
                except BaseException as error:
                    self._failure = self._failure or error  # it is told to be there, and may not be
                    raise

    def _linked(self, kept: StagedObject, source: str, places: dict[str, str]) -> bool:
        """False where there are no links, or not to that file."""
        folder, _, name = kept.path.rpartition("/")
        place = places.get(folder)
        destination = os.path.join(place, name) if place else self._items.staged_path(kept.path)
        try:
            if place is None:
                place = os.path.dirname(destination)
                self._make_folder(place)
                if folder:  # else a target of several, which has a name of its own here
                    places[folder] = place
            self._ops.link_new(source, destination)
        except FileNotFoundError as error:
            if self._ops.lstat(source) is None:
                raise FileNotFoundError(source) from error
            raise self._given_up() from error
        except OSError:
            return False
        self._stager.settle(destination)
        self._moved.add(
            kept.key
        )  # as it would be of an object of the area: names are never drawn twice
        return True


__all__ = ["AdoptsFiles"]
