"""The tests on a Windows Python under wine: see ``nox -s wine``."""
