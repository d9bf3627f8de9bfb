"""What is checked, by name. ``nox`` runs all that CI runs.

``bench``, ``ceph``, ``exhaustive``, ``files``, ``wine``, ``tests-3.12``, ``tests-3.13`` are run on purpose.
With ``--no-venv`` the sessions use the environment that nox itself lies in.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = [
    "lint",
    "types",
    "imports",
    "tests",
    "model",
    "crash",
    "servers",
    "conformance",
    "example",
    "docs",
]
nox.options.reuse_existing_virtualenvs = True

WINDOWS = (
    "tests/wine/suite",
    "tests/unit/backends/test_errors.py",
    "tests/unit/backends/test_memory.py",
    "tests/unit/stores/test_local.py",
)
CODE = ("src", "conformance", "tests", "benchmarks", "noxfile.py")
SPREAD = ("-n", "2", "--dist", "worksteal")


def install(session: nox.Session, *what: str) -> None:
    """Install what a session needs, unless it runs in an environment that has it."""
    if session.venv_backend != "none":
        session.install(*what)


def python(session: nox.Session, *arguments: str) -> None:
    """Run the session's Python; without an environment of its own, the one that runs nox."""
    if session.venv_backend == "none":
        session.run(sys.executable, *arguments, external=True)
    else:
        session.run("python", *arguments)


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run tests; arguments after ``--`` are added."""
    install(session, ".[test]")
    python(session, "-m", "pytest", *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout of the code."""
    install(session, "ruff>=0.8")
    python(session, "-m", "ruff", "check", *CODE)
    python(session, "-m", "ruff", "format", "--check", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    install(session, ".[test,lint]")
    python(session, "-m", "mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Imports go downwards only (contracts in pyproject.toml)."""
    install(session, ".", "import-linter>=2.1")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    python(session, "-c", command)


@nox.session
def tests(session: nox.Session) -> None:
    """Unit and integration tests on real input."""
    folders = ("tests/unit", "tests/integration", "--ignore=tests/unit/test_docs_examples.py")
    pytest(session, *folders, *SPREAD)
    pytest(session, "tests/conformance", "-m", "not slow", *SPREAD)


@nox.session
def model(session: nox.Session) -> None:
    """Every answer of storage, every crash, every mutant of a rule."""
    by_file = ("-n", "2", "--dist", "loadfile")  # each file explores its scenes once
    pytest(session, "tests/model", *by_file)


@nox.session
def crash(session: nox.Session) -> None:
    """Real processes, killed."""
    pytest(session, "tests/crash", *SPREAD)


@nox.session
def servers(session: nox.Session) -> None:
    """Real servers of S3, GCS, Azure and SFTP, and liars among them."""
    python(session, "tests/servers/install.py")
    pytest(session, "tests/remote", "--ignore=tests/remote/test_kit_wire.py", *SPREAD)


@nox.session
def files(session: nox.Session) -> None:
    """Real sshd and samba; installs Debian packages where they are missing."""
    python(session, "tests/servers/install.py", "files")
    session.env["FSTX_FILES"] = "1"
    pytest(session, "tests/files", "-n", "2", "--dist", "loadgroup")


@nox.session
def ceph(session: nox.Session) -> None:
    """Ceph's S3 gateway, a real server with quirks; installs Debian packages, so on purpose only."""
    packages = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common", "uuid-runtime")
    if shutil.which("radosgw") is None:
        root = () if os.geteuid() == 0 else ("sudo",)
        session.env["DEBIAN_FRONTEND"] = "noninteractive"
        apt = (*root, "apt-get", "install", "--yes", "--no-install-recommends", *packages)
        session.run(*root, "apt-get", "update", external=True)
        session.run(*apt, external=True)
    session.env["FSTX_CEPH"] = "1"
    pytest(session, "tests/ceph")


@nox.session
def wine(session: nox.Session) -> None:
    """The local backend on a Windows Python under wine; installs Debian packages, so on purpose only."""
    folder = os.environ.get("FSTX_WINE") or str(Path(".wine-fstx").absolute())
    session.env["FSTX_WINE"] = folder
    python(session, "tests/wine/install.py")
    pytest(session, "tests/wine")
    quiet = ("-p", "no:cacheprovider", "-o", "faulthandler_timeout=0")  # campaigns take minutes
    python(session, "tests/wine/run.py", "-m", "pytest", *quiet, *WINDOWS)


@nox.session
def conformance(session: nox.Session) -> None:
    """The conformance suite over all that needs no root: quick; on local files and S3 standard."""
    install(session, ".[test]")
    python(session, "tests/servers/install.py")
    python(session, "conformance/runs.py", *(session.posargs or ("ci", "--jobs", "2")))


@nox.session
def exhaustive(session: nox.Session) -> None:
    """The conformance suite without limits, and the kill table; hours, so on purpose only."""
    pytest(session, "tests/conformance", "-m", "slow")
    pytest(session, "tests/remote/test_kit_wire.py")
    python(session, "tests/servers/install.py")
    python(session, "conformance/runs.py", "exhaustive", "--jobs", "2", *session.posargs)
    python(session, "-m", "fstx_conformance.broken.table")


@nox.session
def example(session: nox.Session) -> None:
    """The example backend as a stranger has it: installed beside fstx, in an environment of its own."""
    package = Path("conformance/example_backend")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # each put is synced otherwise
    with (
        tempfile.TemporaryDirectory() as place,
        tempfile.TemporaryDirectory(dir=memory) as data,
    ):
        session.run(sys.executable, "-m", "venv", place, external=True)
        scripts = Path(place, "Scripts" if os.name == "nt" else "bin")
        run = [str(scripts / "python"), "-W", "error"]
        if session.venv_backend == "none":  # what fstx needs is there already
            outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
            code = (
                "import pathlib, sys, sysconfig; "
                "packages = pathlib.Path(sysconfig.get_path('purelib')); "
                "(packages / 'outer.pth').write_text('\\n'.join(sys.argv[1:]))"
            )
            session.run(*run, "-c", code, *sorted(outer), external=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet"]
        session.run(*pip, "--disable-pip-version-check", ".", f"./{package}[test]", external=True)
        quiet = ["-q", "-p", "no:cacheprovider", f"--basetemp={data}/tests"]
        session.run(*run, "-m", "pytest", str(package), *quiet, *session.posargs, external=True)
        url = f"sqlitefs://{data}/probe.db/suite"
        session.run(str(scripts / "fstx"), "conformance", "run", url, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Every code block of README and docs runs."""
    pytest(session, "tests/unit/test_docs_examples.py", *SPREAD)


@nox.session(name="tests-3.12", python="3.12")
def tests_312(session: nox.Session) -> None:
    """All tests on Python 3.12; not part of CI."""
    pytest(session, "tests")


@nox.session(name="tests-3.13", python="3.13")
def tests_313(session: nox.Session) -> None:
    """All tests on Python 3.13; not part of CI."""
    pytest(session, "tests")


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of the README, or some of them: ``nox -s bench -- tiles``. Minutes, on a quiet machine."""
    install(session, ".[test]")
    scripts = sorted(p.stem for p in Path("benchmarks").glob("*.py") if "__main__" in p.read_text())
    for name in session.posargs or scripts:
        python(session, f"benchmarks/{name}.py")
