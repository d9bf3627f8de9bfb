"""Backends with one thing wrong each: a kit that can't fail them proves nothing. `table` runs them."""
