"""The file system ``tx``: the shell that fsspec sees. What it does is in the modules beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from fsspec.implementations.chained import ChainedFileSystem
from fsspec.utils import stringify_path

from fstx.backends.manifest.pins import Holder
from fstx.errors import UsageError
from fstx.filesystem.blocks import TransactionBlock
from fstx.filesystem.many import ManyNames
from fstx.filesystem.names import PROTOCOL, options_of, own_part
from fstx.filesystem.places import Places, Target
from fstx.filesystem.sessions import Session

_FSSPEC = frozenset({"use_listings_cache", "listings_expiry_time", "max_paths"})


class TxFileSystem(ManyNames, ChainedFileSystem):  # type: ignore[misc]
    """Versioned datasets on any fsspec file system: all writes of a transaction appear at once.

    ``tx::s3://bucket/ds``, ``tx://INNER::s3://bucket/ds`` (names lie in the root), ``tx://@ID::...`` (joins
    transaction ID). A write outside of a transaction is a commit of its own. An instance reads one version
    of a dataset, the newest one at its first read; it moves on when it writes, when a transaction that it
    took part in ends, and by `invalidate_cache`. Instances are not shared: each ``fsspec.open`` or
    ``url_to_fs`` makes one, so each reads the newest version.

    Parameters
    ----------
    fs
        The file system below, or
    target_protocol, target_options
        what makes it; other options are passed on to it.
    fo
        The target's path, as fsspec passes it on.
    root
        The dataset's root. Otherwise it is the nearest dataset at or above a path, else `fo`, once
        something is written below it.
    version
        Read this version only; nothing can be written.
    snapshot
        True: hold the version of the first read for good; nothing can be written.
    join
        The reference of a transaction (from its URL).
    inner
        Names are paths in the root (from the URL).
    """

    protocol: ClassVar[str] = PROTOCOL
    cachable = False  # an instance holds a version; what is expensive is shared by dataset
    async_impl = True
    transaction_type = TransactionBlock

    def __init__(
        self,
        fs: Any = None,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        root: str | None = None,
        version: int | None = None,
        snapshot: bool = False,
        join: str | None = None,
        inner: bool = False,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        own = {k: options.pop(k) for k in _FSSPEC & set(options)}
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **own)
        if fs is not None and options:
            raise UsageError(f"tx takes no options {', '.join(sorted(options))} beside fs=")
        target = Target(fs, target_protocol, {**options, **(target_options or {})})
        self.target = target.fs
        self._session = Session(
            Places(target, fo or "", root, inner),
            reference=join or "",
            version=version,
            hold=snapshot,
        )
        self.root_marker = "" if inner else target.fs.root_marker
        self.__dict__["_strip_protocol"] = (
            self._strip
        )  # as the target spells names, not as the class does

    # --- names ------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        return own_part(stringify_path(path))

    def _strip(self, path: Any) -> Any:
        if isinstance(path, list):
            return [self._strip(p) for p in path]
        return self._session.places.strip(stringify_path(path))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return options_of(path)

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a name, without options."""
        places = self._session.places
        if places.inner:
            return f"tx://{self._strip(name)}::{places.target.url(places.root)}"
        return f"tx::{places.target.url(self._strip(name))}"

    def __repr__(self) -> str:
        places = self._session.places
        about = places.root or places.given
        text = f"<TxFileSystem tx::{places.target.url(about) if about else self.target.protocol}"
        if self._session.reference:
            text += f", joins {self._session.reference[:12]}"
        for root, version in self._session.versions().items():
            text += f", version {version}" + (f" of {root}" if root != about else "")
        return text + ">"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        options = dict(self.storage_options)
        if not self._session.reference:
            reference = self._running_reference()
            if reference:
                options["join"] = reference
        return _revive, (type(self), self.storage_args, options, self._session.versions())

    def _running_reference(self) -> str:
        """Of the transaction that the running code belongs to: sent elsewhere, writes still go into it."""
        places = self._session.places
        if not (places.root or places.given) or self._session.read_only:
            return ""
        place = places.at(places.strip("") if places.inner else places.root or places.given)
        tx = None if place.dataset is None else self._session.transaction(place)
        if tx is None or not hasattr(tx, "url"):
            return ""
        tx.dataset.create()
        return str(tx.url).partition("::")[0].removeprefix("tx://@")

    def __dask_tokenize__(self) -> Any:
        return (self._fs_token, sorted(self._session.versions().items()))

    # --- versions and transactions ------------------------------------------------------------------

    def invalidate_cache(self, path: str | None = None) -> None:
        """The next read takes the newest version."""
        self._session.forget()
        self.target.invalidate_cache(path)

    @contextmanager
    def reading(self, version: int | None = None, *, pin: bool = False) -> Iterator[TxFileSystem]:
        """A block with a file system that reads one version, the newest one by default.

        Parameters
        ----------
        pin
            True: pin the version while the block lasts, so that no collection takes it. Pins need
            write access; without one the version is readable as long as it is kept.
        """
        options: dict[str, Any] = dict(self.storage_options)
        make: Any = type(self)
        if not pin:
            options.update(version=version, snapshot=version is None)
            yield make(*self.storage_args, **options)
            return
        places = self._session.places
        dataset = places.root_place(places.dataset_root()).dataset
        assert dataset is not None
        holder = Holder(dataset, dataset.refresh().version if version is None else version)
        try:
            options.update(version=holder.pin.version, snapshot=False)
            yield make(*self.storage_args, **options)
        finally:
            holder.release()

    @property
    def transaction(self) -> TransactionBlock:
        """``with fs.transaction:`` one commit for all that the block writes."""
        return self.transaction_type(self)

    @transaction.setter
    def transaction(self, value: Any) -> None:
        raise AttributeError("a transaction is no state of the file system")

    def start_transaction(self) -> None:
        """Begin a transaction for the running context; `end_transaction` commits it."""
        self.transaction.start()

    def end_transaction(self) -> None:
        """Commit what `start_transaction` began in this context."""
        TransactionBlock.running(self).complete()


def _revive(
    cls: type[TxFileSystem],
    args: tuple[Any, ...],
    options: dict[str, Any],
    versions: dict[str, int],
) -> TxFileSystem:
    made = cls(*args, **options)
    made._session.take(versions)
    return made


__all__ = ["TxFileSystem"]
