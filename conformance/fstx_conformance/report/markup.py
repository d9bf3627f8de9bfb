"""HTML by construction: what is not made by `tag` is text, and text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from fstx_conformance.report.view import visible


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "object | Iterable[object]"
_VOID = frozenset({"meta", "br", "link"})


def text(value: object) -> Markup:
    """Any value as text."""
    return value if isinstance(value, Markup) else Markup(escape(visible(value), quote=True))


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """An element. Attributes of None or False are left out; ``class_`` and ``data_label`` are spelled so."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text("" if value is True else value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{told} />")
    return Markup(f"<{name}{told}>{joined(children)}</{name}>")


def joined(children: Iterable[Child], between: str = "") -> Markup:
    """Children one behind the other; lists of them are flattened."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str) or not isinstance(child, Iterable):
            parts.append(text(child))
        else:
            parts.append(joined(child))
    return Markup(text(between).join(parts))


def code(value: object) -> Markup:
    """A name or a command."""
    return tag("code", value)


def prose(value: object) -> Markup:
    """Text with `code` between backticks."""
    pieces = str(value).split("`")
    if len(pieces) % 2 == 0:
        return text(value)
    return joined(code(p) if n % 2 else text(p) for n, p in enumerate(pieces))
