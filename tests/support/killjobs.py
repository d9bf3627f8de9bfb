"""A job of many small objects by several processes that are killed at random, and started again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
from collections import deque
from multiprocessing.connection import Connection, wait
from typing import Any

import fstx

_CONTEXT = multiprocessing.get_context("fork")


def content(tile: int) -> bytes:
    """What a tile holds."""
    return f"tile {tile} ".encode() * (1 + tile % 97)


def work(mail: Connection) -> None:
    """Stage the tiles that come by number until None comes."""
    stager = mail.recv()
    while (tile := mail.recv()) is not None:
        mail.send((tile, stager.stage(f"t/{tile // 100}/{tile}", content(tile))))


class Crew:
    """Workers, each with the tile that it is at."""

    def __init__(self, stager: Any, workers: int) -> None:
        self.stager = stager
        self.kills = 0
        self.running: dict[Connection, tuple[Any, int | None]] = {}
        for _ in range(workers):
            self.hire()

    def hire(self) -> None:
        mine, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_alone, args=(theirs, [*self.running, mine]), daemon=True)
        process.start()
        theirs.close()
        mine.send(self.stager)
        self.running[mine] = (process, None)

    def give(self, mail: Connection, tile: int | None) -> None:
        self.running[mail] = (self.running[mail][0], tile)
        with contextlib.suppress(OSError):  # it was killed: its end is read soon
            mail.send(tile)

    def kill(self, mail: Connection) -> None:
        self.kills += 1
        os.kill(self.running[mail][0].pid, signal.SIGKILL)

    def bury(self, mail: Connection) -> int | None:
        """The tile that a dead one was at; another worker takes its place."""
        process, tile = self.running.pop(mail)
        process.join()
        mail.close()
        self.hire()
        return tile

    def dismiss(self) -> None:
        for mail in self.running:
            self.give(mail, None)
        for process, _ in self.running.values():
            process.join()


def _alone(mail: Connection, others: list[Connection]) -> None:
    for other in others:
        other.close()  # or the end of a brother would not be seen
    work(mail)


def run(url: str, tiles: int, workers: int, every: int, seed: int) -> dict[str, int]:
    """Commit `tiles`; a worker is killed about once for `every` tiles. Counts of what happened."""
    chance = random.Random(seed)
    lost = doubled = 0
    with fstx.begin(url, mode="create") as tx:
        crew = Crew(tx.stager(), workers)
        left, done = deque(range(tiles)), set[int]()
        for mail in list(crew.running):
            crew.give(mail, left.popleft())
        while len(done) < tiles:
            for mail in list(crew.running):
                if chance.random() < 1 / every:
                    crew.kill(mail)
            for mail in wait(list(crew.running)):
                assert isinstance(mail, Connection)
                try:
                    tile, receipt = mail.recv()
                    doubled += tile in done
                    tx.adopt([receipt])
                    done.add(tile)
                    if chance.random() < 0.05:
                        left.append(tile)  # again, as a scheduler that lost the answer would
                    if left:
                        crew.give(mail, left.popleft())
                    else:
                        crew.running[mail] = (crew.running[mail][0], None)
                except (EOFError, OSError):
                    tile = crew.bury(mail)
                    if tile is not None and tile not in done:
                        lost += 1
                        left.append(tile)
                    for idle in [m for m, (_, at) in crew.running.items() if at is None]:
                        if left:
                            crew.give(idle, left.popleft())
        crew.dismiss()
    return {"kills": crew.kills, "lost": lost, "doubled": doubled}


if __name__ == "__main__":
    print(run(sys.argv[1], *map(int, sys.argv[2:6])))
