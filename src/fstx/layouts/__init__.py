"""Layouts spell formats: names and bytes, decided before any work. One module each, loaded on demand."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fstx.errors import UsageError

_MODULES = {"npy": "npy", "ragged": "ragged", "vrt": "vrt", "zarr": "zarr3"}
_SUFFIXES = {".npy": "npy", ".vrt": "vrt", ".zarr": "zarr"}
SUFFIXES = tuple(_SUFFIXES)


def choose(name: str, layout: str | None = None) -> ModuleType:
    """The layout module for a target's name, or the one that is named.

    Every layout module has ``plan(name, spec, **options)``; ``OPTIONS``, the names of the options;
    ``targets(name)``, what the transaction covers; ``describe(array, given)``, the options that a labelled
    array tells itself beside those given; ``OVERWRITE_MODE``; ``ENTERED_BY_NAME``, whether readers
    enter by the file `name`; and ``DOCUMENT``, the file in the directory `name` that they start at, or None.
    Raises UsageError for an unknown layout, and for a suffix that tells none.
    """
    known = ", ".join(_MODULES)
    if layout is not None:
        if layout not in _MODULES:
            raise UsageError(f"layout={layout!r} is unknown; known: {known}")
        return import_module(f"fstx.layouts.{_MODULES[layout]}")
    for suffix, found in _SUFFIXES.items():
        if name.lower().endswith(suffix):
            return import_module(f"fstx.layouts.{_MODULES[found]}")
    raise UsageError(
        f"the suffix of {name!r} names no layout; known: {', '.join(_SUFFIXES)}; or pass layout= ({known})"
    )
