"""From URLs to backends: schemes, entry points of other packages (I8)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fstx import registry
from fstx.backends.local import LocalBackend
from fstx.backends.memory import MemoryBackend
from fstx.errors import CapabilityError, PathError, UsageError

THIRD_PARTY = """
from fstx.backends.memory import open_backend as memory


def open_backend(urls, *, joined=False, flavour="plain"):
    backend = memory([u.replace("third://", "memory://") for u in urls], joined=joined)
    backend.flavour = flavour
    return backend
"""


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("a/b", "file"),
        ("/a/b", "file"),
        ("./a:b", "file"),
        ("C:\\data\\x", "file"),
        ("C:/data/x", "file"),
        ("file:///a", "file"),
        ("FILE:///a", "file"),
        ("memory://a", "memory"),
        ("s3://b/k", "s3"),
        ("tx::s3://b/k", "tx"),
        ("git+ssh://x", "git+ssh"),
        ("a://b", "file"),
    ],
)
def test_scheme(url: str, scheme: str) -> None:
    """A drive letter is no scheme; a plain path is a file."""
    assert registry.scheme_of(url) == scheme


def test_built_in_backends() -> None:
    """Plain paths, file and local URLs are local; memory is memory."""
    assert isinstance(registry.backend(["/tmp/x"]), LocalBackend)
    assert isinstance(registry.backend(["file:///tmp/x"]), LocalBackend)
    assert isinstance(registry.backend(["memory://x"]), MemoryBackend)
    assert {"file", "local", "memory"} <= set(registry.schemes())


def test_unknown_scheme_names_the_ways_out() -> None:
    """No backend: CapabilityError names the scheme, what there is, and how to add one."""
    with pytest.raises(CapabilityError, match=r"nosuch://.*memory.*fstx\.backends"):
        registry.backend(["nosuch://x"])


def test_mixed_schemes() -> None:
    """The targets of one transaction share a scheme."""
    with pytest.raises(PathError, match="file, memory"):
        registry.backend(["/tmp/x", "memory://y"])


def test_unknown_option() -> None:
    """An option that the backend does not know is a UsageError naming it."""
    with pytest.raises(UsageError, match="nosuch"):
        registry.backend(["/tmp/x"], nosuch=1)
    with pytest.raises(UsageError, match="nosuch"):
        registry.backend(["memory://x"], nosuch=1)


def test_url_forms() -> None:
    """as_url: text and paths; anything else is refused by type."""
    assert registry.as_url("a/b") == "a/b"
    assert registry.as_url(Path("a") / "b") == "a/b"
    for bad in (b"x", 3, None, object()):
        with pytest.raises(PathError, match=type(bad).__name__):
            registry.as_url(bad)  # type: ignore[arg-type]

    class Bytes:
        def __fspath__(self) -> bytes:
            return b"x"

    with pytest.raises(PathError, match="bytes"):
        registry.as_url(Bytes())  # type: ignore[arg-type]


def test_backend_of_another_package(tmp_path: Path) -> None:
    """I8: an entry point of another package is found by its scheme, with no import of it in user code."""
    (tmp_path / "third_backend.py").write_text(THIRD_PARTY)
    info = tmp_path / "third_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fstx.backends]\nthird = third_backend:open_backend\n")
    code = (
        "import sys, fstx, fsspec\n"
        "from fstx import registry\n"
        "assert 'third' in registry.schemes()\n"
        "assert 'third_backend' not in sys.modules\n"
        "with fstx.begin('third://bucket/x', flavour='own') as tx:\n"
        "    tx.stage('a', b'A')\n"
        "assert tx._backend.flavour == 'own'\n"
        "print(fsspec.filesystem('memory').cat('/bucket/x/a').decode())\n"
        "print(fstx.guarantee('third://bucket/x').strategy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{Path(registry.__file__).parents[1]}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["A", "memory"], done.stderr


def test_entry_point_wins_over_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers a built-in scheme replaces it: what was installed on purpose wins."""

    class Point:
        name = "memory"

        @staticmethod
        def load() -> Any:
            return lambda urls, *, joined: ("mine", urls, joined)

    monkeypatch.setattr(registry, "_entry_points", lambda: {"memory": Point()})
    assert registry.backend(["memory://x"], joined=True) == ("mine", ["memory://x"], True)


def test_type_error_of_a_backend_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an unknown keyword is the caller's fault."""

    class Point:
        @staticmethod
        def load() -> Any:
            def broken(urls: Any, *, joined: bool) -> None:
                raise TypeError("a bug")

            return broken

    monkeypatch.setattr(registry, "_entry_points", lambda: {"broken": Point()})
    with pytest.raises(TypeError, match="a bug"):
        registry.backend(["broken://x"])
