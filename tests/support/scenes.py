"""The transactions that the model explores; budgets are as small as every mutant's death allows."""

from __future__ import annotations

from dataclasses import replace

from fstx.machines.vocabulary import Item, Kind
from support.modelfs import Scene

FILE = Item(Kind.PUBLISH, occupied=True)
NEW_TREE = Item(Kind.PUBLISH, tree=True)
TREE = Item(Kind.PUBLISH, occupied=True, tree=True)
GONE = Item(Kind.REMOVE)

RENAMES = {"create": NEW_TREE, "place": FILE, "exchange": TREE}
SETS = {"file": (FILE,), "file+tree": (FILE, NEW_TREE), "file+tree+removal": (FILE, NEW_TREE, GONE)}


def _scenes() -> list[Scene]:
    made: list[Scene] = []
    for how, item in RENAMES.items():
        made += [
            Scene(f"rename {how}, faults", "rename", (item,), how, faults=2, crashes=2),
            Scene(
                f"rename {how}, strangers",
                "rename",
                (item,),
                how,
                strangers=2 if how == "exchange" else 1,  # only there can two meet
                crashes=2,
            ),
            Scene(
                f"rename {how}, a stranger and a fault",
                "rename",
                (item,),
                how,
                strangers=1,
                faults=1,
                crashes=1,
            ),
            Scene(
                f"rename {how}, not strict",
                "rename",
                (item,),
                how,
                strict=False,
                strangers=1,
                faults=1,
                crashes=1,
            ),
        ]
    for strategy in ("swap", "redo"):
        for name, items in SETS.items():
            made += [
                Scene(f"{strategy} {name}, faults", strategy, items, faults=1, crashes=2),
                Scene(f"{strategy} {name}, two faults", strategy, items, faults=2, crashes=1),
                Scene(
                    f"{strategy} {name}, a stranger",
                    strategy,
                    items,
                    strangers=1,
                    crashes=2 if len(items) == 1 else 1,
                ),
            ]
        made.append(
            Scene(f"{strategy} file, two strangers", strategy, SETS["file"], strangers=2, crashes=1)
        )
        made.append(
            Scene(
                f"{strategy} file+tree, not strict",
                strategy,
                SETS["file+tree"],
                strict=False,
                strangers=1,
                crashes=1,
            )
        )
        made.append(
            Scene(
                f"{strategy} file, a stranger and a fault",
                strategy,
                SETS["file"],
                strangers=1,
                faults=1,
                crashes=1,
            )
        )
    return made


def _places() -> list[Scene]:
    """Targets that aren't simply there or not."""
    made = [
        Scene(
            "rename create, empty, faults", "rename", (NEW_TREE,), faults=1, crashes=2, empty=True
        )
    ]
    for strategy in ("swap", "redo"):
        name = f"{strategy} over"
        made += [
            Scene(
                f"{name} empty, faults",
                strategy,
                SETS["file+tree"],
                faults=1,
                crashes=2,
                empty=True,
            ),
            Scene(
                f"{name} removal, faults",
                strategy,
                (GONE, NEW_TREE),
                faults=1,
                crashes=2,
                clash=True,
            ),
        ]
    return made


def _kills() -> list[Scene]:
    """durability="none": nothing is synced, processes are killed, power stays."""
    made = [
        Scene(f"rename {how}, kills", "rename", (item,), how, faults=2, crashes=2, strangers=1)
        for how, item in RENAMES.items()
    ]
    made += [
        Scene(f"{strategy} {name}, kills", strategy, items, faults=1, crashes=2, strangers=1)
        for strategy in ("swap", "redo")
        for name, items in SETS.items()
    ]
    return [replace(scene, durable=False, keyed=False) for scene in made]


def _rivals() -> list[Scene]:
    """Another writer that takes the target locks."""
    made = [
        Scene(f"rename {how}, a rival", "rename", (item,), how, rivals=1, crashes=1)
        for how, item in RENAMES.items()
    ]
    made += [
        Scene(f"{strategy} {name}, a rival", strategy, items, rivals=1, crashes=1)
        for strategy in ("swap", "redo")
        for name, items in SETS.items()
    ]
    return made


SCENES = [*_scenes(), *_places(), *_kills(), *_rivals()]
RACES = [
    *(Scene(f"rename {how}, fenced", "rename", (item,), how) for how, item in RENAMES.items()),
    *(
        Scene(f"{strategy} {name}, fenced", strategy, items)
        for strategy in ("swap", "redo")
        for name, items in SETS.items()
    ),
]
"""An owner that was given up for dead goes on beside its recoverer."""

PAIRS = [
    Scene("rename exchange, two recoverers", "rename", (TREE,), "exchange", strangers=1, crashes=1),
    Scene("swap file, two recoverers", "swap", (FILE,), crashes=1),
    Scene("redo file, two recoverers", "redo", (FILE,), crashes=1),
]
"""Two recoverers of one area."""

ALL = {scene.name: scene for scene in (*SCENES, *RACES, *PAIRS)}
