"""Progress of long work: a bar on a terminal, a callable, or silence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = bool | Callable[[int, int], None] | None
"""True for a bar on standard error, a callable that gets (done, total), or None for silence."""


@contextmanager
def reporter(progress: Progress, total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A callable that is told how many more blocks are done; calls come one at a time."""
    if not progress:
        yield lambda _: None
        return
    if callable(progress):
        told = progress
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            told(done, total)

        yield tell
        return
    with _bar(total, label) as advance:
        yield advance


@contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        with _plain_bar(total, label) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _plain_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    done = shown = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        percent = 100 * done // max(total, 1)
        if percent > shown:
            shown = percent
            print(f"\r{label}: {percent:3d} %", end="", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        if shown:
            print(file=sys.stderr)
