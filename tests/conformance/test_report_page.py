"""The page is one document that shows everything, runs nothing, and is readable by everyone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import fstx_conformance.report as report
from fstx_conformance.report.markup import tag
from fstx_conformance.report.page import page
from fstx_conformance.report.subject import LAST_LINES, OPEN_LINES
from fstx_conformance.results import Failure, PromiseRow, Result, Verdict
from support.madeup import FAILURE, case, hostile, mixed, result

VOID = {"meta"}
PAGES = {
    "one": [mixed()],
    "several": [mixed(), hostile(), result(subject="bare")],
    "hostile": [hostile()],
}


class _Reader(HTMLParser):
    """Elements, their attributes and the text, as a browser's parser finds them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).replace("\u00ad", "").split())


@pytest.fixture(params=PAGES)
def results(request: pytest.FixtureRequest) -> list[Result]:
    return PAGES[request.param]


def _xml(document: str) -> ET.Element:
    return ET.fromstring(document.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_is_well_formed(results: list[Result]) -> None:
    """A strict parser takes it, and a lenient one finds every element closed in order."""
    document = page(results)
    root = _xml(document)
    assert root.tag == "html"
    assert root.get("lang") == "en"
    assert {"table", "section", "main"} <= {name for name, _ in _Reader(document).elements}
    document.encode()


def test_nothing_is_loaded_and_nothing_runs(results: list[Result]) -> None:
    """No script, no handler, no address outside of the page, and a policy that forbids them."""
    document = page(results)
    elements = _Reader(document).elements
    assert {n for n, _ in elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "form",
        "base",
    } == set()
    names = {name for _, attributes in elements for name in attributes}
    assert not {n for n in names if n.startswith("on") or n in ("src", "style", "srcset", "action")}
    links = [a["href"] for _, a in elements if "href" in a]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    assert "url(" not in document.split("</style>")[0]
    assert "@import" not in document
    policy = next(a for n, a in elements if n == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in (policy["content"] or "")


def test_hostile_text_is_text() -> None:
    """What a result holds is shown as it is or as escapes, and makes no element or attribute."""
    plain = {n for n, _ in _Reader(page(PAGES["one"])).elements}
    reader = _Reader(page(hostile()))
    assert {n for n, _ in reader.elements} <= plain
    assert "<script>alert('x')</script>&\"|`*_\\x1b[31m\\x00\\u202e\\udc80" in reader.words
    assert {c for c in "".join(reader.text) if not c.isprintable()} <= {"\n", "\u00ad"}


def test_markup_is_made_by_tags_alone() -> None:
    """Text ends no attribute and no element; what is None or False is left out, lists are flattened."""
    assert tag("p", ["<b>", [1, None]], title='"x"', hidden=None, open=True, class_="a") == (
        '<p title="&quot;x&quot;" open="" class="a">&lt;b&gt;1</p>'
    )
    assert tag("p", tag("b", "&")) == "<p><b>&amp;</b></p>"


def test_every_failure_is_shown_whole() -> None:
    """Message, schedule, scene, every line of history and the replay line, as they were given."""
    text = "".join(_Reader(page(mixed())).text)
    for part in (
        FAILURE.message,
        FAILURE.schedule,
        FAILURE.scene,
        FAILURE.replay,
        *FAILURE.history,
    ):
        assert part in text
    assert "a second one" in text
    assert "3 of 10 runs" in text
    marked = [e.text for e in _xml(page(mixed())).iterfind(".//strong")]
    assert marked == ["writer: rename_new /T/scene -> kill"]


def test_a_long_history_is_there_to_its_first_line() -> None:
    """Earlier lines are folded, numbered on, and none is left out."""
    lines = tuple(f"line {n}" for n in range(OPEN_LINES + 1))
    failing = case("crash.kill", Verdict.FAIL, failures=(Failure("x", history=lines),))
    root = _xml(page(result(failing)))
    lists = root.findall(".//article//ol")
    assert [len(o) for o in lists] == [OPEN_LINES + 1 - LAST_LINES, LAST_LINES]
    assert [o.get("start") for o in lists] == ["1", str(OPEN_LINES + 2 - LAST_LINES)]
    assert "".join("".join(o.itertext()) for o in lists) == "".join(lines)


def test_a_broken_promise_without_a_case_is_a_failure() -> None:
    """What makes the verdict fail stands among the failures."""
    promise = PromiseRow("DURABLE", True, "broken", "gone after a cut")
    text = _Reader(page(result(case("crash.kill"), promises=(promise,)))).words
    assert "1 failure" in text
    assert "declared and broken: gone after a cut" in text


def test_every_part_is_there() -> None:
    """Levels, cases with reasons and counts, promises, rules, UNTESTED ones, environment and command."""
    text = _Reader(page(mixed())).words
    for part in (
        "semantics.modes",
        "no disk",
        "never fired",
        "faults: kill 40",
        "seen: commit 9",
        "kept, yet not declared",
        "declared, and not shown",
        "UNTESTED owed by every backend: BACKEND 1; OPS 2",
        "Owed by every backend: of 7 rules 1 proven",
        "names every capability once",
        "ext4",
        "fstx conformance run file:///here --seed 7",
        "seed 7",
    ):
        assert part in text


def test_the_matrix_has_every_level_of_every_subject() -> None:
    """A row for each subject, a cell for each level of any; each cell says its verdict in a word."""
    root = _xml(page(PAGES["several"]))
    table = next(t for t in root.iter("table") if t.get("class") == "matrix")
    head = ["".join(th.itertext()) for th in table.findall("thead/tr/th")]
    assert head == [
        "subject", "all", "semantics", "crash", "power", "fencing", "scale", "hygiene",
    ]  # fmt: skip
    rows = [[_said(td) for td in tr.findall("td")] for tr in table.findall("tbody/tr")]
    assert rows[0] == ["fail", "pass", "fail", "n/a", "inconclusive", "n/a", "n/a"]
    assert rows[2] == ["n/a"] * 7
    assert len(rows) == 3


def _said(cell: ET.Element) -> str:
    """What a screen reader says of a cell: without the signs that are hidden from it."""
    hidden = {e for e in cell.iter() if e.get("aria-hidden")}
    words = [(e.text or "") if e not in hidden else "" for e in cell.iter()]
    words += [e.tail or "" for e in cell.iter() if e is not cell]
    return "".join(words).replace("\u00ad", "").strip()


def test_a_verdict_is_a_word_and_a_sign() -> None:
    """No verdict is told by colour alone: beside each sign stands a word."""
    verdicts = [
        e for e in _xml(page(mixed())).iter("span") if "verdict" in (e.get("class") or "").split()
    ]
    assert len(verdicts) > 20
    for element in verdicts:
        sign = element.find("span")
        assert sign is not None
        assert sign.text in {"✓", "✗", "?", "–", "·"}
        assert len(_said(element)) > 2


def test_anchors_are_unique_and_links_lead_to_them(results: list[Result]) -> None:
    """Each link of the matrix leads to what its cell is made of."""
    root = _xml(page(results))
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    named = {e.get("href", "").removeprefix("#") for e in root.iter("a")}
    named |= {e.get("aria-labelledby", "") for e in root.iter() if e.get("aria-labelledby")}
    assert named <= set(ids)


def test_cells_carry_the_names_of_their_columns(results: list[Result]) -> None:
    """On a narrow screen rows become blocks: each cell then names its column, and stays a cell."""
    for table in _xml(page(results)).iter("table"):
        head = ["".join(th.itertext()) for th in table.findall("thead/tr/th")]
        for row in table.findall("tbody/tr"):
            cells = row.findall("td")
            assert [td.get("data-label") for td in cells] == head[1:]
            assert {td.get("role") for td in cells} == {"cell"}
            assert row[0].get("scope") == "row"


# --- the style sheet ----------------------------------------------------------------------------------

CSS = Path(report.__file__).with_name("page.css").read_text(encoding="utf-8")
PAIRS = [
    (fore, back)
    for fore in ("fore", "soft", "link", "pass", "fail", "open", "none")
    for back in ("back", "shade")
] + [(n, f"{n}-back") for n in ("pass", "fail", "open")] + [
    ("soft", "pass-back"), ("soft", "fail-back"), ("soft", "open-back"),
]  # fmt: skip


def _colours(scheme: str) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark, _ = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", b)) for b in blocks)
    return light if scheme == "light" else light | dark


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme: str) -> None:
    """Every text has a contrast of 4.5 to 1 at least with what it stands on, by light and by dark."""
    colours = _colours(scheme)
    weak = {}
    for fore, back in PAIRS:
        high, low = sorted((_luminance(colours[fore]), _luminance(colours[back])), reverse=True)
        if (ratio := (high + 0.05) / (low + 0.05)) < 4.5:
            weak[fore, back] = round(ratio, 2)
    assert not weak


def test_the_style_sheet_serves_all() -> None:
    """There is a form for the dark, for narrow screens and for paper, and no width that is fixed."""
    assert "@media (prefers-color-scheme: dark)" in CSS
    assert "@media screen and (max-width: 30rem)" in CSS
    assert "@media print" in CSS
    assert re.search(r"(?<![-\w])width: \d+px", CSS.replace("width: 1px", "")) is None
