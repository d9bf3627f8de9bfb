"""What the readers of the command line give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from fstx.errors import UsageError

KINDS = ".npy, .npz, GeoTIFF, Zarr, or an image that Pillow reads (.jpg, .png)"

LAZY_FROM_BYTES = 64 << 20
"""A source that can be read by blocks is read so from this size on."""


@dataclass
class Loaded:
    """An array and the options that its file suggests; `notes` are for people.

    `origins` says for an option where in the file it stands.
    """

    array: Any
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)


def need(module: str, extra: str, what: str) -> None:
    """UsageError that says what to install where `module` is missing."""
    if find_spec(module) is None:
        raise UsageError(f"{what} needs {module}; run: pip install 'fstx[{extra}]'")
