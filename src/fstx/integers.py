"""Whole numbers as callers have them: Python's, or numpy's alone and in lists and arrays."""

from __future__ import annotations

import sys
from typing import Any


def plain_numbers(value: Any) -> Any:
    """`value` with numpy's whole numbers, also in lists and arrays of them, as Python's."""
    if type(value) in (list, tuple):
        return type(value)(plain_numbers(v) for v in value)
    np = sys.modules.get("numpy")  # without it no value is numpy's
    if np is None:
        return value
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        return tuple(value.tolist())
    return value
