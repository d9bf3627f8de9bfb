"""The page on resuming, against what the library refuses."""

from __future__ import annotations

import inspect
from pathlib import Path

import fstx
from fstx.resuming import RESUMES

PAGE = (Path(__file__).parents[2] / "docs/how-to/resume-a-killed-job.md").read_text("utf-8")

CONDITIONS = {
    "nothing to resume": "nothing to resume",
    "another configuration": "another configuration",
    "a damaged record, or one that lacks a field": "lacks a field",
    "no fingerprint, or none that can be computed": "no canonical form",
    "another size of batches": "`rows_per_batch` differs",
    "fewer rows": "can grow, not shrink",
    "other rows after post-processing": "after post-processing",
    "post-processing that was cut off": "`post` was begun and not finished",
    "batches that may grow": "`allow_resize=True`",
    "a target that was replaced": "was replaced while the job waited",
    "one file, regions": "a `.npy` file, `region=` or `append_dim=`",
    "a storage without units": "`CapabilityError`",
    "parts that are not whole": "cut off, or without a readable footer",
    "damaged pages": "`verify=True`",
    "two runs at once": "a second one takes over",
}


def test_the_page_names_modes_and_conditions() -> None:
    """D31: all three modes, each condition that is refused, and every argument that has to do with one."""
    assert [mode for mode in RESUMES if f'`"{mode}"` |' not in PAGE] == []
    assert [what for what, words in CONDITIONS.items() if words not in PAGE] == []
    plain = {"url", "compression", "level", "durability", "require", "storage_options"}
    arguments = set(inspect.signature(fstx.batches).parameters) - plain
    assert [name for name in sorted(arguments) if name not in PAGE] == []
