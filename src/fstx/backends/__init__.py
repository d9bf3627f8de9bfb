"""Performers: the only code that touches files and file systems."""
