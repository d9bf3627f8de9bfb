"""Pins: objects by which readers hold a version while others collect.

A reader puts its pin and then reads the log again; a collector writes the retirement into the log and
then lists the pins: one of the two sees the other.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fstx import seams
from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.names import PIN
from fstx.backends.manifest.survey import alive
from fstx.errors import RecoveryError, UsageError
from fstx.state.sealing import seal, unseal

FORMAT = 1
TTL_S = 3600.0
"""A pin that was not renewed for so long counts no more."""

_KEY = re.compile(rf"{PIN}(\d{{20}})-([0-9a-f]{{32}})")
_CLOCK = f"{PIN}clock-"


@dataclass(frozen=True)
class Pin:
    """One pin as it lies in the storage."""

    version: int
    name: str
    ttl_s: float = TTL_S
    reader: str = ""
    modified_s: float | None = None

    @property
    def key(self) -> str:
        return f"{PIN}{self.version:020d}-{self.name}"

    def expired(self, now_s: float) -> bool:
        """Whether it was not renewed in time, by the storage's clock; without a clock it never is."""
        return self.modified_s is not None and self.modified_s + self.ttl_s < now_s

    def __str__(self) -> str:
        return f"{self.version}-{self.name}"


def pins_of(dataset: Dataset) -> Iterator[Pin]:
    """All pins that are there. One that can't be read counts with the time that is usual."""
    for info in dataset.store.list(PIN):
        found = _KEY.fullmatch(info.key)
        if not found:
            continue
        ttl_s, reader = TTL_S, ""
        try:
            value = unseal(dataset.store.get(info.key), f"{dataset.store.url}/{info.key}")
            if type(value.get("ttl_s")) in (int, float):
                ttl_s, reader = float(value["ttl_s"]), str(value.get("reader", ""))
        except FileNotFoundError:
            continue  # let go between listing and reading
        except RecoveryError:
            reader = "unreadable"
        yield Pin(int(found[1]), found[2], ttl_s, reader, info.modified_s)


def put_pin(dataset: Dataset, version: int, ttl_s: float = TTL_S) -> Pin:
    """Pin a version: from here on it stays readable until `drop_pin`, or `ttl_s` without `renew`.

    Raises
    ------
    FileNotFoundError
        There is no such version, or it was retired.
    OSError
        The pin can't be written: pins need write access.
    """
    if not ttl_s > 0:
        raise UsageError(f"ttl_s={ttl_s}; a pin lasts some seconds at least")
    pin = Pin(version, seams.token_hex(16), ttl_s)
    try:
        renew(dataset, pin)
    except PermissionError as error:
        error.add_note(
            "a pin needs write access to the dataset; without it a version stays readable as long as "
            "collect(keep=...) keeps it"
        )
        raise
    try:
        head = dataset.refresh().head
        if not 0 <= version <= head.seq or (version and not alive(head.state, version)):
            raise FileNotFoundError(gone(dataset, version, head.seq))
    except BaseException:
        drop_pin(dataset, pin)
        raise
    return pin


def renew(dataset: Dataset, pin: Pin) -> None:
    """The time of `pin` begins anew."""
    reader = f"{platform.node()}:{os.getpid()}"
    value = {"format": FORMAT, "version": pin.version, "ttl_s": pin.ttl_s, "reader": reader}
    dataset.store.put(pin.key, seal(value))


def drop_pin(dataset: Dataset, pin: Pin) -> None:
    """`pin` is there no more."""
    dataset.store.delete([pin.key])


def gone(dataset: Dataset, version: int, newest: int) -> str:
    """For messages: a version that is not there."""
    if version > newest:
        return f"{dataset.url} has no version {version}; the newest one is {newest}"
    return (
        f"version {version} of {dataset.url} was retired and may be collected; pin a version while you read "
        "it, or keep more of them"
    )


def storage_now(dataset: Dataset) -> float:
    """What time it is by the storage's clock: an object is written and looked at."""
    key = f"{_CLOCK}{seams.token_hex(16)}"
    dataset.store.put(key, b"\n")
    try:
        info = dataset.store.info(key)
    finally:
        dataset.store.delete([key])
    return time.time() if info is None or info.modified_s is None else info.modified_s


def left_clocks(dataset: Dataset, now_s: float) -> list[str]:
    """Objects of `storage_now` that a killed process left."""
    infos = dataset.store.list(_CLOCK)
    return [i.key for i in infos if i.modified_s is None or i.modified_s + TTL_S < now_s]


class Holder:
    """Holds a pin and renews it, from a thread of its own, until `release`."""

    def __init__(self, dataset: Dataset, version: int, ttl_s: float = TTL_S) -> None:
        self.dataset = dataset
        self.pin = put_pin(dataset, version, ttl_s)
        self.lost: BaseException | None = None  # why nothing holds the version any more
        self._renewed = time.monotonic()
        self._end = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._keep, name="fstx-pin", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """The pin goes; a forked child lets its parent's pin lie."""
        if self._pid != os.getpid():
            return
        self._end.set()
        self._thread.join()
        drop_pin(self.dataset, self.pin)

    def _keep(self) -> None:
        while not self._end.wait(self.pin.ttl_s / 3) and self.lost is None:
            self._once()

    def _once(self) -> None:
        late = time.monotonic() - self._renewed > self.pin.ttl_s
        begun = time.monotonic()
        try:
            renew(self.dataset, self.pin)
            if late and not alive(self.dataset.refresh().head.state, self.pin.version):
                # a collector may have passed while the pin was too old: it holds nothing now
                drop_pin(self.dataset, self.pin)
                raise FileNotFoundError(gone(self.dataset, self.pin.version, self.pin.version))
            self._renewed = begun
        except FileNotFoundError as error:
            self.lost = error
        except Exception as error:  # noqa: BLE001 - tried again until the pin's time is over
            if time.monotonic() - self._renewed > self.pin.ttl_s:
                self.lost = error


__all__ = [
    "TTL_S",
    "Holder",
    "Pin",
    "drop_pin",
    "gone",
    "left_clocks",
    "pins_of",
    "put_pin",
    "renew",
    "storage_now",
]
