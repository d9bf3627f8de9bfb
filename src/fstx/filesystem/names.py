"""``tx`` URLs as fsspec hands them over: one link of a chain, or a name with its protocol before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROTOCOL = "tx"
_LINK = "tx://"
_CHAIN = "tx::"


@dataclass(frozen=True)
class Link:
    """The own part of a chained URL: ``tx://[@ID[/]][INNER]``.

    ``inner`` with a leading slash is a name of the target, as UPath spells it; else it lies in the root.
    """

    inner: str = ""
    reference: str = ""

    @property
    def rooted(self) -> bool:
        """Whether names lie in the target's root instead of being the target's own names."""
        return bool(self.inner) and not self.inner.startswith("/")


def parse_link(bit: str) -> Link:
    """The parts of one link; of what is no ``tx`` link an empty one."""
    body = bit.partition("::")[0]
    if not body.startswith(_LINK):
        return Link()
    body = body[len(_LINK) :]
    if not body.startswith("@"):
        return Link(body.rstrip("/"))
    reference, _, inner = body[1:].partition("/")
    return Link(inner.strip("/"), reference)


def options_of(bit: str) -> dict[str, Any]:
    """Options that a URL carries: the transaction that it joins, and whether names lie in the root."""
    link = parse_link(bit)
    found: dict[str, Any] = {}
    if link.reference:
        found["join"] = link.reference
    if link.rooted:
        found["inner"] = True
    return found


def own_part(path: str) -> str:
    """`path` without ``tx://`` or ``tx::``, as fsspec asks of the class; "": the target names it."""
    if path.startswith(_CHAIN):
        return path[len(_CHAIN) :]
    if path.startswith(_LINK):
        return parse_link(path).inner
    return path.rstrip("/") if len(path) > 1 else path


def target_part(path: str) -> tuple[str, str]:
    """A whole chained URL, or a name: what names the target, and what lies below that ("" mostly)."""
    if path.startswith(_CHAIN):
        return path[len(_CHAIN) :], ""
    if path.startswith(_LINK):
        inner = parse_link(path).inner
        _, chained, target = path.partition("::")
        if not chained or inner.startswith("/"):
            return inner, ""
        return target, inner
    return path, ""


__all__ = ["PROTOCOL", "Link", "options_of", "own_part", "parse_link", "target_part"]
