"""Half-open spans of paths in code point order: how trees of paths lie in the order of all paths.

What lies below ``a`` is the span from ``a/`` to ``a0`` ("0" follows "/"); ``a`` itself lies apart from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from fstx.state.entries import OWN

Span: TypeAlias = "tuple[str, str | None]"
"""First path, and the first one behind; None: no end."""

OWN_END = f"{OWN[:-1]}0"
EVERYTHING: Span = ("", None)


def below(directory: str) -> Span:
    """Everything strictly below a directory; "" is everything."""
    return (f"{directory}/", f"{directory}0") if directory else EVERYTHING


def only(path: str) -> Span:
    """One path."""
    return (path, f"{path}\0")


def covered(removed: Iterable[str]) -> list[Span]:
    """What removals cover, sorted and disjoint; the library's own paths never."""
    spans: list[Span] = []
    for top in removed:
        if not top:
            return [("", OWN), (OWN_END, None)]
        spans += [only(top), below(top)]
    merged: list[Span] = []
    for start, stop in sorted(spans, key=lambda span: span[0]):
        last = merged[-1][1] if merged else ""
        if merged and (last is None or start <= last):
            if last is not None and (stop is None or stop > last):
                merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def without(span: Span, holes: Iterable[Span]) -> Iterator[Span]:
    """What is left of a span, in order, where the sorted `holes` are not."""
    start, end = span
    for first, stop in holes:
        if end is not None and first >= end:
            break
        if stop is not None and stop <= start:
            continue
        if first > start:
            yield (start, first)
        if stop is None:
            return
        start = max(start, stop)
    if end is None or start < end:
        yield (start, end)
