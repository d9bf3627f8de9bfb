"""Texts of the command line as the values that layouts take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fstx.errors import UsageError


def lengths(option: str, text: str | None) -> int | tuple[int, ...] | None:
    """``256`` or ``256,256`` as one number or a tuple; None stays None."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r}: whole numbers separated by commas, such as 256,256"
        ) from error
    return numbers[0] if len(numbers) == 1 else numbers


def transform(text: str | None) -> tuple[float, ...] | str | None:
    """Six numbers in GDAL's order ``x0,dx,0,y0,0,dy``; ``none`` stays as it is."""
    if text is None or text == "none":
        return text
    parts = text.replace(",", " ").split()
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"--transform {text!r}: six numbers x0,dx,0,y0,0,dy") from error
    if len(numbers) != 6:
        raise UsageError(f"--transform {text!r}: {len(numbers)} numbers, not six (x0,dx,0,y0,0,dy)")
    return numbers


def number(option: str, text: str | None) -> int | float | None:
    """An integer where it is one, so that 64-bit values stay exact; also ``nan``."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no number") from error


_SUCH = {"--option": "tile_size=512", "--storage-option": "anon=true"}


def pairs(texts: Sequence[str], *, option: str = "--option") -> dict[str, Any]:
    """``name=value`` each; the value is JSON where it can be read so, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            shown = "" if option == "--storage-option" else f" {text!r}"  # it may be a secret
            raise UsageError(f"{option}{shown}: write name=value, such as {_SUCH[option]}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
