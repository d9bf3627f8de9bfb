"""Verdicts in HTML: a sign for the eye, a word for everyone."""

from __future__ import annotations

from fstx_conformance.report.markup import Markup, tag
from fstx_conformance.report.view import SIGNS, UNTESTED
from fstx_conformance.results import Verdict

_CLASSES = {Verdict.NOT_APPLICABLE: "none"}
_BROKEN_AT = {"inconclusive": "incon\u00adclusive"}  # a soft hyphen, for narrow columns


def css_class(verdict: Verdict) -> str:
    """The name that a verdict has in the style sheet."""
    return _CLASSES.get(verdict, verdict.value)


def verdict(value: Verdict | None, said: str = "") -> Markup:
    """A verdict, in its own word or another; None is UNTESTED."""
    if value is None:
        return word(UNTESTED)
    name = said or _BROKEN_AT.get(value.value, value.value)
    sign = tag("span", SIGNS[value], class_="sign", aria_hidden="true")
    return tag("span", sign, " ", name, class_=f"verdict {css_class(value)}")


def word(text: str) -> Markup:
    """A state that is no verdict of the suite."""
    sign = tag("span", "·", class_="sign", aria_hidden="true")
    return tag("span", sign, " ", text, class_="verdict untested")


def matrix_cell(value: Verdict, column: str, href: str | None) -> Markup:
    """A cell of the matrix; it leads to what it is made of."""
    shown = verdict(value)
    return tag(
        "td",
        tag("a", shown, href=href) if href else shown,
        class_=css_class(value),
        data_label=column,
        role="cell",
    )


__all__ = ["css_class", "matrix_cell", "verdict", "word"]
