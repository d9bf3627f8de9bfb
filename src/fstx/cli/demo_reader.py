"""What a reader finds: opens the index, then every tile that it names. Knows nothing of fstx."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import numpy as np

from fstx.cli.demo_writer import blocks


@dataclass(frozen=True)
class Seen:
    """One look at a mosaic: is there an index, how many tiles lie there, and what reading gave."""

    index: bool
    files: int
    old: int = 0
    new: int = 0
    broken: int = 0
    missing: int = 0

    @property
    def verdict(self) -> str:
        """nothing | leftovers | old | new | broken | mixture"""
        if not self.index:
            return "leftovers" if self.files else "nothing"
        if self.broken or self.missing:
            return "broken"
        if self.old and self.new:
            return "mixture"
        return "new" if self.new else "old"

    def sentence(self) -> str:
        """The same in words."""
        if not self.index:
            if not self.files:
                return "no index and no tiles: the reader finds nothing, as before"
            return f"no index, but {self.files} tile files in the final place, {self.broken} of them broken"
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.new, "new"),
                (self.old, "old"),
                (self.broken, "broken"),
                (self.missing, "missing"),
            )
            if count
        ]
        whole = self.verdict in ("old", "new")
        return f"the index opens; tiles: {', '.join(parts)}" + (", all whole" if whole else "")


def look(path: str, old: Any, new: Any) -> Seen:
    """Read the mosaic at `path` and compare each tile with both versions of the raster."""
    folder = path.removesuffix(".vrt") + "_tiles"
    files = [os.path.join(at, n) for at, _, names in os.walk(folder) for n in names]
    if not os.path.exists(path):
        return Seen(False, len(files), broken=sum(_read(f) is None for f in files))
    counts = dict.fromkeys(("old", "new", "broken", "missing"), 0)
    named = sources(path)
    for region in blocks(new).values():
        name = named.get((region[0].start, region[1].start))
        if name is None or not os.path.exists(name):
            counts["missing"] += 1
            continue
        block = _read(name)
        if block is None:
            counts["broken"] += 1
        elif np.array_equal(block, new[region]):
            counts["new"] += 1
        elif np.array_equal(block, old[region]):
            counts["old"] += 1
        else:
            counts["broken"] += 1
    return Seen(True, len(files), **counts)


def sources(path: str) -> dict[tuple[int, int], str]:
    """Tile files by the place of their first pixel (row, column)."""
    found = {}
    for source in ET.parse(path).iter("SimpleSource"):
        name, place = source.findtext("SourceFilename"), source.find("DstRect")
        if name is not None and place is not None:
            at = int(place.get("yOff", "0")), int(place.get("xOff", "0"))
            found[at] = os.path.join(os.path.dirname(path), name)
    return found


def _read(name: str) -> Any:
    """The pixels of a TIFF, or None where it can't be read whole."""
    import tifffile

    try:
        return tifffile.imread(name)
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError):
        return None
