"""Arguments of the public functions: checked, and in the form that the rest takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

from fstx import registry
from fstx.errors import PathError, UsageError
from fstx.integers import plain_numbers
from fstx.registry import URL
from fstx.resuming import RESUMES
from fstx.types import Capability

Require: TypeAlias = Capability | str | Iterable[Capability | str] | None

MODES = ("create", "replace", "update")
DURABILITIES = ("none", "data")
SIZES = frozenset({"chunks", "shards", "level", "tile_size"})


def urls_of(url: URL | Sequence[URL]) -> tuple[list[str], bool]:
    if isinstance(url, str | os.PathLike) or hasattr(url, "protocol"):
        return [registry.as_url(cast("URL", url))], False
    if not isinstance(url, list | tuple):
        raise PathError(f"a target is a URL or a list of them, not {type(url).__name__}")
    if not url:
        raise PathError("the list of targets is empty")
    return [registry.as_url(u) for u in url], True


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value!r}; it is one of {', '.join(map(repr, allowed))}")


def check_id(id: object) -> None:
    if id is not None and (not isinstance(id, str) or not id or len(id) > 1024 or "\n" in id):
        raise UsageError(f"id={id!r}; it is a short text on one line")


def size_number(option: str, value: Any) -> Any:
    """Sizes and levels may come as numpy's numbers; data values such as nodata stay as they are."""
    return plain_numbers(value) if option in SIZES else value


def capabilities(require: Require) -> frozenset[Capability]:
    if require is None:
        return frozenset()
    listed: list[Any] = [require]
    if not isinstance(require, str) and isinstance(require, Iterable):
        listed = list(require)
    try:
        return frozenset(Capability(c) for c in listed)
    except ValueError as error:
        raise UsageError(f"require: {error}; there are {', '.join(Capability)}") from error


def check_resume(resume: str | None, fingerprint: Any) -> bool:
    """Whether to resume; `UsageError` unless both are there and `resume` is a mode, or none is."""
    if resume is None:
        if fingerprint is not None:
            raise UsageError(
                "fingerprint= says what a resumed job is compared by; pass resume= too"
            )
        return False
    check_choice("resume", resume, RESUMES)
    if fingerprint is None:
        raise UsageError(
            f"resume={resume!r} needs fingerprint=: all that changes what the job writes, for example its "
            "configuration as a dictionary, or units of two different jobs could be mixed"
        )
    return True
