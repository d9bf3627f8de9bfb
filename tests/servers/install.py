"""Installs the servers that have dependencies of their own, once: ``python tests/servers/install.py``.

``ministack`` (S3) pins botocore, so it gets an environment of its own; ``azurite`` (Azure) comes from npm.
Both go to ``.servers/`` in the repository, or to the folder that FSTX_SERVERS names. What is there
already is left alone. Needs the standard library only, and node with npm for azurite. With the argument
``files`` it installs Debian's sshd and smbd instead, as root or by sudo.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MINISTACK = "1.5.33"
CRC32C = "google-crc32c>=1.5"
AZURITE = "3.35.0"
COMMAND = "python tests/servers/install.py"


class InstallError(RuntimeError):
    """A server is not there and can't be installed; the message says what to run."""


def folder() -> Path:
    """Where the servers are kept."""
    return Path(os.environ.get("FSTX_SERVERS") or Path(__file__).parents[2] / ".servers")


def ministack() -> list[str]:
    """The command that starts the S3 server, installed first if it is not there."""
    home = folder() / "ministack"
    script = home / ("Scripts" if os.name == "nt" else "bin") / "ministack"
    # pip installs a package after those it needs, and writes RECORD last
    record = f"**/site-packages/ministack-{MINISTACK}.dist-info/RECORD"
    pip = [str(script.with_name("python")), "-m", "pip", "install", "--quiet"]
    with _alone("ministack"):
        if not any(home.glob(record)):
            shutil.rmtree(home, ignore_errors=True)
            _run("ministack", sys.executable, "-m", "venv", str(home))
            _run(
                "ministack", *pip, "--disable-pip-version-check", f"ministack=={MINISTACK}", CRC32C
            )
        elif not any(home.glob("**/site-packages/google_crc32c-*.dist-info/RECORD")):
            _run("ministack", *pip, "--disable-pip-version-check", CRC32C)
    return [str(script.with_name("python")), str(Path(__file__).with_name("ministack_main.py"))]


def azurite() -> list[str]:
    """The command that starts the Azure blob server, installed first if it is not there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise InstallError(f"azurite needs node and npm: install them, then run {COMMAND}")
    home = folder() / "azurite"
    package = home / "node_modules" / "azurite"
    with _alone("azurite"):
        if not _azurite_is_there(package):
            if npm is None:
                raise InstallError(f"azurite needs npm: install it, then run {COMMAND}")
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
            _run("azurite", npm, "install", *quiet, "--prefix", str(home), f"azurite@{AZURITE}")
    return [node, str(package / "dist" / "src" / "blob" / "main.js")]


def file_servers() -> None:
    """Debian's openssh-server and samba, where they are not there."""
    wanted = {"sshd": "openssh-server", "smbd": "samba"}
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    missing = [package for name, package in wanted.items() if not shutil.which(name, path=path)]
    if not missing:
        return
    apt = [
        *(() if os.geteuid() == 0 else ("sudo",)),
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
    ]
    _run(" and ".join(missing), *apt, "update")
    _run(" and ".join(missing), *apt, "install", "--yes", "--no-install-recommends", *missing)


def _azurite_is_there(package: Path) -> bool:
    finished = package.with_name(".package-lock.json")  # npm writes it last
    if not finished.exists() or not (package / "package.json").exists():
        return False
    return bool(json.loads((package / "package.json").read_text())["version"] == AZURITE)


def _run(what: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(
            f"{what} could not be installed; run {COMMAND} with access to the package registries.\n"
            f"{' '.join(command)} said:\n{done.stdout}{done.stderr}"
        )


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Holds a lock of this name: parallel test workers find the server missing at the same time."""
    try:
        import fcntl
    except ImportError:  # Windows: install before running tests in parallel
        yield
        return
    folder().mkdir(parents=True, exist_ok=True)
    with open(folder() / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["files"]:
            file_servers()
        else:
            for command in (ministack(), azurite()):
                print(*command)
    except InstallError as error:
        sys.exit(str(error))
