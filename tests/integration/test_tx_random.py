"""Random calls through ``tx::`` against a model of a tree: in and out of transactions, committed and not."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.txplaces import KINDS, leftovers, opened, targets

NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f/g/a")


class Tree:
    """Files and directories that were made on purpose; directories above files are there by themselves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: set[str] = set()

    def is_dir(self, path: str) -> bool:
        return path in self.made or any(p.startswith(path + "/") for p in [*self.files, *self.made])

    def fits(self, path: str) -> bool:
        above = [path[:i] for i, c in enumerate(path) if c == "/"]
        return not self.is_dir(path) and not any(p in self.files for p in above)

    def remove(self, path: str) -> None:
        self.files = {p: d for p, d in self.files.items() if not (p + "/").startswith(path + "/")}
        self.made = {p for p in self.made if not (p + "/").startswith(path + "/")}


def _step(fs: Any, root: str, tree: Tree, chance: random.Random) -> str:
    """One random call, made if the model says that it can be; returns what it was."""
    kind = chance.choice(["pipe", "open", "append", "rm", "rmr", "mv", "cp", "mkdir", "rmdir"])
    one, two = chance.choice(NAMES), chance.choice(NAMES)
    data = chance.randbytes(chance.choice([0, 10, 5000]))
    name, other = f"{root}/{one}", f"{root}/{two}"
    if kind in ("pipe", "open") and tree.fits(one):
        if kind == "pipe":
            fs.pipe_file(name, data)
        else:
            with fs.open(name, "wb") as file:
                file.write(data)
        tree.files[one] = data
    elif kind == "append" and tree.fits(one):
        with fs.open(name, "ab") as file:
            file.write(data)
        tree.files[one] = tree.files.get(one, b"") + data
    elif kind == "rm" and one in tree.files:
        fs.rm(name)
        tree.remove(one)
    elif kind == "rmr" and (one in tree.files or tree.is_dir(one)):
        fs.rm(name, recursive=True)
        tree.remove(one)
    elif kind in ("mv", "cp") and one in tree.files and tree.fits(two) and one != two:
        (fs.mv if kind == "mv" else fs.cp)(name, other)
        tree.files[two] = tree.files[one]
        if kind == "mv":
            del tree.files[one]
    elif kind == "mkdir" and one not in tree.files and tree.fits(one):
        fs.mkdir(name)
        tree.made.add(one)
    elif kind == "rmdir" and tree.is_dir(one):
        below = [p for p in [*tree.files, *tree.made] if p.startswith(one + "/")]
        if below:
            with pytest.raises(OSError, match="not empty"):
                fs.rmdir(name)
        else:
            fs.rmdir(name)
            tree.made.discard(one)
    else:
        return ""
    return f"{kind} {one} {two} {len(data)}"


def _compare(fs: Any, root: str, tree: Tree, story: list[str]) -> None:
    found = {n[len(root) + 1 :]: fs.cat_file(n) for n in fs.find(root)} if fs.exists(root) else {}
    assert found == tree.files, story
    for path in NAMES:
        assert fs.isdir(f"{root}/{path}") == tree.is_dir(path), (path, story)
        assert fs.isfile(f"{root}/{path}") == (path in tree.files), (path, story)
    if fs.exists(root):
        names = {n[len(root) + 1 :] for n in fs.find(root, withdirs=True)} - {""}
        dirs = {p for p in {*NAMES, "f", "f/g"} if tree.is_dir(p)}
        assert names == dirs | set(tree.files), story


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a target that is not there yet."""
    yield from targets(request.param, tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_random_calls(target: str, seed: int) -> None:
    """Protects every mixture of calls: what is read is what the model says, within and after each block."""
    chance = random.Random(seed)
    fs, root = opened("tx::" + target)
    tree, story = Tree(), []
    for _ in range(12):
        before = copy.deepcopy(tree)
        if chance.random() < 0.3:
            story.append(_step(fs, root, tree, chance))
        else:
            fail = chance.random() < 0.3
            try:
                with fs.transaction as block:
                    story.append("begin")
                    if chance.random() < 0.2:
                        assert block.url
                        story.append("url")
                    for _ in range(chance.randrange(1, 9)):
                        story.append(_step(fs, root, tree, chance))
                        _compare(fs, root, tree, story)
                    if fail:
                        raise KeyError("on purpose")
                story.append("commit")
            except KeyError:
                story.append("rollback")
                tree = before
        _compare(fs, root, tree, story)
        fresh, _ = opened("tx::" + target)
        _compare(fresh, root, tree, story)
    assert not [n for n in leftovers(target) if "held" in n]
