"""What makes two runs the same job: a hash of the configuration, equal wherever it is computed.

The encoding is canonical: no hash seed, no order of keys, no version of Python shows in it. A change of it
is a new `VERSION`, and fingerprints of different versions never match.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from fstx.errors import UsageError

ALGORITHM = "sha256"
VERSION = 1
_READABLE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A hash, how it was made, and the configuration in words that people read.

    Two are the same job when `algorithm`, `version` and `digest` are equal; `readable` is for messages alone.
    """

    algorithm: str
    version: int
    digest: str
    readable: tuple[tuple[str, str], ...] = dataclasses.field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.algorithm}-v{self.version}:{self.digest[:16]}"


def fingerprint(config: Any) -> Fingerprint:
    """The fingerprint of a configuration: everything that changes what the job writes.

    Parameters
    ----------
    config
        Dictionaries, lists, tuples (as lists), sets, text, bytes, numbers (``1`` and ``1.0`` differ,
        numpy's count as Python's), bool, None, dates, paths, enums, dataclasses and numpy arrays, nested
        as you like. A `Fingerprint` comes back as it is.

    Raises
    ------
    UsageError
        Something else, or a key that is no text; the message names its place.
    """
    if isinstance(config, Fingerprint):
        return config
    plain = _plain(config, "config", ())
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Fingerprint(
        ALGORITHM, VERSION, hashlib.sha256(text.encode()).hexdigest(), _words(config)
    )


def differences(old: Fingerprint, new: Fingerprint) -> str:
    """What differs, as far as the readable parts tell."""
    if (old.algorithm, old.version) != (new.algorithm, new.version):
        return (
            f"fingerprints of {old.algorithm} version {old.version} and "
            f"{new.algorithm} version {new.version} can't be compared"
        )
    before, now = dict(old.readable), dict(new.readable)
    changed = [
        f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return "; ".join(changed[:5]) or "its parts read the same, its values differ"


def _words(config: Any) -> tuple[tuple[str, str], ...]:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    named = config if isinstance(config, Mapping) else {"config": config}
    return tuple(
        (str(name), repr(named[name])[:_READABLE_CHARS]) for name in sorted(named, key=str)
    )


def _plain(value: Any, place: str, above: tuple[int, ...]) -> Any:
    """`value` as JSON with a tag for each kind, so that values of different kinds never meet."""
    if id(value) in above:
        raise UsageError(f"fingerprint: {place} contains itself")
    inside = (*above, id(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"dataclass": type(value).__qualname__, "of": _plain(fields, place, inside)}
    if isinstance(value, Mapping):
        odd = [k for k in value if not isinstance(k, str)]
        if odd:
            raise UsageError(f"fingerprint: {place} has the key {odd[0]!r}; keys are text")
        return {"map": {k: _plain(v, f"{place}[{k!r}]", inside) for k, v in value.items()}}
    if isinstance(value, Set):
        members = [_plain(v, place, inside) for v in value]
        return {"set": sorted(members, key=lambda m: json.dumps(m, sort_keys=True))}
    leaf = _leaf(value)
    if leaf is not None:
        return leaf
    if isinstance(value, Sequence):
        return [_plain(v, f"{place}[{n}]", inside) for n, v in enumerate(value)]
    raise UsageError(
        f"fingerprint: {place} is a {type(value).__name__}, which has no canonical form; give what makes it "
        "the same, for example its name and version"
    )


def _leaf(value: Any) -> Any:
    """One value without parts; None for what is none."""
    if value is None:
        return {"none": 0}
    if isinstance(value, enum.Enum):
        return {"enum": f"{type(value).__qualname__}.{value.name}"}
    if isinstance(value, str):
        return {"text": value.encode("utf-8", "surrogatepass").hex()} if _odd(value) else value
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, os.PathLike):
        return {"path": os.fsdecode(os.fspath(value))}
    if isinstance(value, datetime.date | datetime.time):
        return {"time": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"span": [value.days, value.seconds, value.microseconds]}
    return _number(value)


def _number(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return None
        data = np.ascontiguousarray(value)
        data = data.astype(data.dtype.newbyteorder("<"), copy=False)
        sum_ = hashlib.sha256(data.tobytes()).hexdigest()
        return {"array": [data.dtype.str, list(data.shape), sum_]}
    if isinstance(value, np.dtype):
        return {"dtype": value.str}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    return None


def _odd(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


__all__ = ["ALGORITHM", "VERSION", "Fingerprint", "differences", "fingerprint"]
