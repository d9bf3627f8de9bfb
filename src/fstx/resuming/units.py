"""Records of a resumable job: its configuration, and one line for each finished unit. Pure."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fstx.depot import Depot
from fstx.errors import RecoveryError, ResumeError, UsageError
from fstx.resuming.fingerprint import Fingerprint
from fstx.state.sealing import FORMAT, intact, seal, seal_text, unseal
from fstx.types import StagedObject

UnitId: TypeAlias = str | int | tuple[str | int, ...]
"""Names a unit of work within its job: text, a number, or a tuple of them."""

_BATCH = 1000
_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_quoted = json.encoder.encode_basestring_ascii
_FIELDS: dict[str, type] = {
    "token": str,
    "key": str,
    "mode": str,
    "targets": list,
    "algorithm": str,
    "version": int,
    "digest": str,
    "readable": list,
    "id": str,
    "begun_s": int,
    "host": str,
    "boot": str,
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One object of a finished unit: its receipt and the checksum of its bytes."""

    object: StagedObject
    checksum: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A finished unit: what it wrote (nothing is an answer, too) and what it wants to be remembered."""

    id: str
    objects: tuple[Kept, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its objects."""
        return sum(k.object.size_bytes for k in self.objects)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The configuration of a job, as its first run wrote it."""

    token: str
    key: str
    mode: str
    targets: tuple[str, ...]
    fingerprint: Fingerprint
    id: str
    begun_s: int
    host: str
    boot: str
    chosen: bool = False  # the id is the caller's


def id_text(unit: UnitId) -> str:
    """The canonical text of a unit's id; ``1`` and ``"1"`` are the same unit.

    Raises
    ------
    UsageError
        It is no id.
    """
    if type(unit) is int:
        return str(unit)
    if isinstance(unit, tuple):
        if not unit:
            raise UsageError("a unit's id is empty")
        return ",".join(id_text(part) for part in unit)
    given: Any = unit
    if isinstance(given, bool) or not (isinstance(given, str) or hasattr(given, "__index__")):
        raise UsageError(f"unit id {unit!r}: text, a whole number or a tuple of them is needed")
    text = given if isinstance(given, str) else str(operator.index(given))
    if not text or len(text) > 512 or not text.isprintable():
        raise UsageError(f"unit id {unit!r}: 1 to 512 printable characters are needed")
    return text


def encode_job(job: JobRecord) -> bytes:
    """The record of the configuration."""
    print_ = job.fingerprint
    return seal(
        {
            "format": FORMAT,
            "token": job.token,
            "key": job.key,
            "mode": job.mode,
            "targets": list(job.targets),
            "algorithm": print_.algorithm,
            "version": print_.version,
            "digest": print_.digest,
            "readable": [list(pair) for pair in print_.readable],
            "id": job.id,
            "begun_s": job.begun_s,
            "host": job.host,
            "boot": job.boot,
            "chosen": job.chosen,
        }
    )


def decode_job(data: bytes, where: str) -> JobRecord:
    """The configuration; ResumeError that names the file, what is wrong with it, and the way out."""
    way = "Continue with resume='never', which leaves it as it is, or drop it: fstx.jobs(url)"
    try:
        value = unseal(data, where, way)
    except RecoveryError as error:
        raise ResumeError(f"the record of a job can't be read: {error}") from error
    for name, kind in _FIELDS.items():
        if name not in value:
            raise ResumeError(f"the record of a job, {where}, lacks the field {name!r}. {way}")
        if not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
            raise ResumeError(f"{where}: the field {name!r} is no {kind.__name__}. {way}")
    pairs = [p for p in value["readable"] if isinstance(p, list) and len(p) == 2]
    return JobRecord(
        token=value["token"],
        key=value["key"],
        mode=value["mode"],
        targets=tuple(str(t) for t in value["targets"]),
        fingerprint=Fingerprint(
            value["algorithm"],
            value["version"],
            value["digest"],
            tuple((str(a), str(b)) for a, b in pairs),
        ),
        id=value["id"],
        begun_s=value["begun_s"],
        host=value["host"],
        boot=value["boot"],
        chosen=value.get("chosen") is True,
    )


def record_of(depot: Depot) -> JobRecord:
    """The configuration in a depot; FileNotFoundError where it is of no job, ResumeError as `decode_job`."""
    return decode_job(depot.get_job(), f"{depot.url}/job.json")


def encode_unit(unit: Unit) -> bytes:
    """One line."""
    return encode_record(unit.id, [(k.object, k.checksum) for k in unit.objects], unit.info)


def encode_record(
    id: str, objects: Iterable[tuple[StagedObject, str]], info: Mapping[str, Any]
) -> bytes:
    """One line, of objects with their checksums: the sealed JSON with sorted keys."""
    rows = ",".join(
        [
            f"[{_quoted(o.path)},{_quoted(o.key)},{o.size_bytes},{_quoted(sum_)},"
            f"{'true' if o.publisher else 'false'}]"
            for o, sum_ in objects
        ]
    )
    more = _encoder.encode(info) if info else "{}"
    text = f'{{"format":{FORMAT},"info":{more},"objects":[{rows}],"unit":{_quoted(id)}}}'
    return seal_text(text.encode())


def text_in(line: bytes) -> bytes:
    """The JSON of a line that `encode_unit` made."""
    return line[line.index(b" ") + 1 : -1]


def decode_records(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What lines say, in order, and their JSON. A damaged line is left out, as if its unit were not finished.

    Quick, for a job may have 10^5 of them: lines are parsed many at a time, nothing is made of them here, and
    paths and keys are checked where they are used.
    """
    waiting = iter(lines)
    while batch := list(itertools.islice(waiting, _BATCH)):
        texts = intact(batch)
        for value, text in zip(_parsed(texts), texts, strict=True):
            if _fits(value):
                yield value, text


def decode_units(lines: Iterable[bytes], token: str) -> Iterator[Unit]:
    """As `decode_records`: the units."""
    return (unit_of(value, token) for value, _ in decode_records(lines))


def unit_of(value: dict[str, Any], token: str) -> Unit:
    """The unit of a record."""
    objects = tuple(
        Kept(StagedObject(path, key, size_bytes, token, publisher), sum_)
        for path, key, size_bytes, sum_, publisher in value["objects"]
    )
    info = value.get("info")
    return Unit(value["unit"], objects, info if type(info) is dict else {})


def _parsed(texts: list[bytes]) -> list[Any]:
    """The values of all, in order; None for what is no JSON."""
    try:
        found: list[Any] = json.loads(b"[" + b",".join(texts) + b"]")
    except (ValueError, RecursionError):
        if len(texts) == 1:
            return [None]
    else:
        if len(found) == len(texts):
            return found
    return [value for text in texts for value in _parsed([text])]


def _fits(value: Any) -> bool:
    """Whether it is the record of a unit."""
    try:
        if value["format"] != FORMAT or type(value["unit"]) is not str:
            return False
        for path, key, size_bytes, sum_, publisher in value["objects"]:
            if (
                type(path) is not str
                or type(key) is not str
                or type(size_bytes) is not int
                or type(sum_) is not str
                or type(publisher) is not bool
            ):
                return False
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return type(value) is dict


__all__ = [
    "JobRecord",
    "Kept",
    "Unit",
    "UnitId",
    "decode_job",
    "decode_records",
    "decode_units",
    "encode_job",
    "encode_record",
    "encode_unit",
    "id_text",
    "record_of",
    "text_in",
    "unit_of",
]
