"""What a loss of power may leave: the states of a disk at one point, each with a name.

A name is text that is part of a schedule: ``lost(3,5-7)+torn(2)`` loses the changes of names with the
numbers 3, 5, 6 and 7 and tears the content whose last write is number 2; ``kept`` loses nothing.

``lost``
    changes of names that never were
``unwritten``
    a content as it was when it was last synced: of a new file, empty
``zero``
    as many zeros as there were bytes
``torn``
    half of it
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fstx.errors import UsageError
from fstx_conformance.seams.disklog import ROOT, Content, Dirty, Node, Platter, Slot

DAMAGES = ("unwritten", "zero", "torn")
LIMIT = 64
DRAWS = 12
_PART = re.compile(
    r"(?P<what>lost|unwritten|zero|torn)\((?P<numbers>\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\)"
)


@dataclass(frozen=True)
class Loss:
    """What goes when the power goes: changes of names, and contents, by their numbers in the log."""

    lost: frozenset[int] = frozenset()
    damaged: tuple[tuple[int, str], ...] = ()  # number of a write, and what became of it; sorted

    def __str__(self) -> str:
        parts = [f"lost({_ranges(self.lost)})"] if self.lost else []
        for damage in DAMAGES:
            numbers = [n for n, how in self.damaged if how == damage]
            if numbers:
                parts.append(f"{damage}({_ranges(numbers)})")
        return "+".join(parts) or "kept"

    @staticmethod
    def parse(text: str) -> Loss:
        """The loss of that name; UsageError for anything else."""
        lost: set[int] = set()
        damaged: dict[int, str] = {}
        for part in text.split("+") if text != "kept" else ():
            found = _PART.fullmatch(part)
            if found is None:
                raise UsageError(
                    f"{text!r} names no loss of power; one reads lost(3,5-7)+torn(2), or kept"
                )
            numbers = _numbers(found["numbers"])
            if found["what"] == "lost":
                lost |= set(numbers)
            else:
                damaged |= dict.fromkeys(numbers, found["what"])
        return Loss(frozenset(lost), tuple(sorted(damaged.items())))


@dataclass(frozen=True)
class Found:
    """A disk as it is when the power is back: every path, its node, and contents of files."""

    loss: Loss
    nodes: dict[str, Node] = field(repr=False)  # parents before what they hold
    contents: dict[str, Content] = field(repr=False)

    @property
    def key(self) -> frozenset[tuple[str, Node, bytes]]:
        """Equal for states that nothing can tell apart."""
        nothing = Content.of(b"", 0)
        return frozenset(
            (path, node, self.contents.get(path, nothing).digest)
            for path, node in self.nodes.items()
        )


def found_after(platter: Platter, loss: Loss) -> Found:
    """The state that a loss leaves; UsageError if the log has nothing of that number."""
    known = {c.number for c in platter.changes} | {d.number for d in platter.dirty.values()}
    if strange := sorted((loss.lost | {n for n, _ in loss.damaged}) - known):
        raise UsageError(f"{loss}: nothing loose has the number {strange[0]} at this point")
    if more := sorted(platter.closed(loss.lost) - loss.lost):
        raise UsageError(f"{loss}: number {more[0]} took what was lost, so it is lost too")
    slots = platter.without(loss.lost)
    damaged = dict(loss.damaged)
    contents = dict(platter.contents)
    for node, dirty in platter.dirty.items():
        if how := damaged.get(dirty.number):
            contents[node] = _damage(dirty, how)
    inside: dict[Node, list[tuple[str, Node]]] = {}
    for (folder, name), node in slots.items():
        inside.setdefault(folder, []).append((name, node))
    nodes: dict[str, Node] = {}
    there: dict[str, Content] = {}
    waiting = [("", ROOT)]
    while waiting:
        path, folder = waiting.pop()
        for name, node in sorted(inside.get(folder, ())):
            below = f"{path}/{name}" if path else name
            nodes[below] = node
            if node in contents:
                there[below] = contents[node]
            else:
                waiting.append((below, node))
    return Found(loss, nodes, there)


def _damage(dirty: Dirty, how: str) -> Content:
    data, before = dirty.newest.data, dirty.durable
    if how == "unwritten":
        return before
    if how == "zero":
        return Content.of(bytes(len(data)), dirty.newest.mtime_ns)
    half = len(data) // 2
    return Content.of(data[:half] + before.data[half:], dirty.newest.mtime_ns)


def states(
    platter: Platter,
    rng: random.Random,
    *,
    limit: int = LIMIT,
    draws: int = DRAWS,
    most: int | None = None,
) -> Iterator[Found]:
    """What may be found after a loss of power here: all of it while that is at most `limit`.

    Beyond: nothing lost; everything lost; all contents damaged alike; each single thing lost, and each kept,
    alone (of more than `limit`, so many drawn ones); and `draws` seeded draws of the whole. States that
    nothing can tell apart come once. Of more than `most`, so many drawn ones.
    """
    seen = set()
    losses = list(dict.fromkeys(_losses(platter, rng, limit, draws)))
    if most is not None and len(losses) > most:
        losses = rng.sample(losses, most)
    for loss in losses:
        found = found_after(platter, loss)
        if found.key not in seen:
            seen.add(found.key)
            yield found


def _losses(platter: Platter, rng: random.Random, limit: int, draws: int) -> Iterator[Loss]:
    loose = platter.loose()
    dirty = sorted(d.number for d in platter.dirty.values() if _visible(d))
    ways = len(DAMAGES) + 1
    names = len(loose) + 1 if platter.model == "ordered" else 2 ** min(len(loose), 32)
    if names * ways ** min(len(dirty), 16) <= limit:
        for lost in _all_lost(platter, loose):
            for how in itertools.product(("", *DAMAGES), repeat=len(dirty)):
                yield _loss(lost, zip(dirty, how, strict=True))
        return
    yield Loss()
    whole = platter.closed(loose)
    for damage in ("", *DAMAGES):
        yield _loss(whole, ((n, damage) for n in dirty))
        yield _loss((), ((n, damage) for n in dirty))
    for number in sorted(rng.sample(dirty, min(len(dirty), limit))):
        for damage in DAMAGES:
            yield _loss((), [(number, damage)])
    yield from (Loss(lost) for lost in _few_lost(platter, loose, rng, limit))
    for _ in range(draws):
        lost = _drawn(platter, loose, rng)
        yield _loss(lost, [(n, rng.choice(("", "", *DAMAGES))) for n in dirty])


def _all_lost(platter: Platter, loose: list[int]) -> Iterator[frozenset[int]]:
    if platter.model == "ordered":
        yield from (frozenset(loose[m:]) for m in range(len(loose), -1, -1))
        return
    for count in range(len(loose) + 1):
        for lost in itertools.combinations(loose, count):
            if platter.closed(lost) == frozenset(lost):
                yield frozenset(lost)


def _few_lost(
    platter: Platter, loose: list[int], rng: random.Random, limit: int
) -> Iterator[frozenset[int]]:
    """Each loose change lost alone, and kept alone; of many, as many as the limit."""
    some = sorted(rng.sample(loose, min(len(loose), limit)))
    if platter.model == "ordered":
        yield from (frozenset(n for n in loose if n >= first) for first in some)
        return
    closed = {number: platter.closed([number]) for number in loose}
    for number in some:
        yield closed[number]
    for number in some:
        # with what it takes from: every other one is lost whose loss does not cost this one
        yield frozenset(n for n in loose if number not in closed[n])


def _drawn(platter: Platter, loose: list[int], rng: random.Random) -> frozenset[int]:
    if platter.model == "ordered":
        return frozenset(loose[rng.randint(0, len(loose)) :])
    share = rng.choice((0.1, 0.3, 0.5, 0.8))
    return platter.closed(n for n in loose if rng.random() < share)


def smaller(loss: Loss) -> Iterator[Loss]:
    """Losses of less, the smallest first: of names or contents alone, of a half, of all but one thing."""
    if loss.lost and loss.damaged:
        yield Loss(frozenset(), loss.damaged)
        yield Loss(loss.lost)
    lost = sorted(loss.lost)
    if len(lost) > 3:
        yield Loss(frozenset(lost[: len(lost) // 2]), loss.damaged)
        yield Loss(frozenset(lost[len(lost) // 2 :]), loss.damaged)
    for i in range(len(loss.damaged)):
        yield Loss(loss.lost, loss.damaged[:i] + loss.damaged[i + 1 :])
    for number in lost:
        yield Loss(loss.lost - {number}, loss.damaged)


def _visible(dirty: Dirty) -> bool:
    """Whether any damage would show."""
    return dirty.newest.digest != dirty.durable.digest


def _loss(lost: Iterable[int], damaged: Iterable[tuple[int, str]]) -> Loss:
    return Loss(frozenset(lost), tuple(sorted((n, how) for n, how in damaged if how)))


def _ranges(numbers: Iterable[int]) -> str:
    """``3,5-7`` for 3, 5, 6, 7."""
    told: list[str] = []
    for _, group in itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = [n for _, n in group]
        told.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(told)


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def slots_of(nodes: dict[str, Node]) -> dict[Slot, Node]:
    """Names as slots, for paths given with their parents first."""
    slots: dict[Slot, Node] = {}
    for path, node in nodes.items():
        folder, _, name = path.rpartition("/")
        slots[(nodes[folder] if folder else ROOT, name)] = node
    return slots
