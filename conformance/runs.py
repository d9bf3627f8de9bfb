"""Our own runs of the suite: every strategy on every kind of storage that this machine can have.

``python conformance/runs.py quick`` (``ci``, ``standard``, ``exhaustive``) runs all; ``--only s3`` one.
Reports go to ``--report DIR``. ``--docs`` notes the results in `docs/reference/conformance.json`, where those
of other subjects stay, and writes the tables of `docs/reference/conformance.md` from there.
Servers are started on 127.0.0.1 and stopped again; they come from ``tests/servers/install.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fstx_conformance.cases import PROFILES  # noqa: E402
from fstx_conformance.report import ledger, write  # noqa: E402
from fstx_conformance.report.text import matrix, told  # noqa: E402
from fstx_conformance.results import Result, Verdict  # noqa: E402
from fstx_conformance.run import run  # noqa: E402
from fstx_conformance.subjects import Subject, subject_of  # noqa: E402
from fstx_conformance.subjects.comparisons import WRITERS, ComparisonSubject  # noqa: E402

Make = Callable[[ExitStack, Path], Subject]


class CannotRunError(RuntimeError):
    """This machine lacks what a subject needs; the message says what."""


_SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None  # quick: syncs cost nothing there
PAGE = ROOT / "docs" / "reference" / "conformance.md"
LEDGER = PAGE.with_suffix(".json")
_SYS_ADMIN = 21  # the number of that capability, capabilities(7)
_TOOLS = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}


def _local(name: str, **options: object) -> Make:
    return lambda stack, folder: subject_of(str(folder / "local"), name=name, **options)


def _tx_local(stack: ExitStack, folder: Path) -> Subject:
    return subject_of(f"tx::{folder / 'datasets'}", name="tx:: on local")


def _windows(stack: ExitStack, folder: Path) -> Subject:
    from fstx_conformance.subjects.simulated import WindowsSubject

    return WindowsSubject(str(folder / "windows"))


def _tmpfs(stack: ExitStack, folder: Path) -> Subject:
    if not os.path.isdir("/dev/shm"):
        raise CannotRunError("this machine has no /dev/shm")
    return subject_of("/dev/shm/fstx-probe", name="local (tmpfs)")


def _comparison(key: str) -> Make:
    return lambda stack, folder: ComparisonSubject(WRITERS[key](), str(folder / "compared"))


def _mounted(kind: str, title: str = "", chained: bool = False, **options: object) -> Make:
    """A file system of that kind in a file, where this machine lets it be mounted."""

    def make(stack: ExitStack, folder: Path) -> Subject:
        image, point = folder / f"{kind}.img", folder / f"mount-{kind}"
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(600 << 20)
        _mount_step(kind, f"mkfs.{kind}", "-q", str(image))
        _mount_step(kind, "mount", "-o", "loop", str(image), str(point))
        stack.callback(_unmount, str(point))
        name = title or f"local ({kind})"
        return subject_of(f"{'tx::' if chained else ''}{point / 'local'}", name=name, **options)

    return make


def _mount_step(kind: str, *command: str) -> None:
    program = _program(command[0])
    if program is None:
        raise CannotRunError(f"{command[0]} is not there; Debian has it in {_TOOLS[kind]}")
    done = subprocess.run([program, *command[1:]], check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        raise CannotRunError("; ".join([f"this machine can't mount {kind}: {said[0]}", *_lacks()]))


def _lacks() -> Iterator[str]:
    """What mounting a file needs and is not here."""
    if os.geteuid() != 0:
        yield "that needs root"
    elif not int(_status("CapEff"), 16) >> _SYS_ADMIN & 1:
        yield "root lacks CAP_SYS_ADMIN here"
    if not os.path.exists("/dev/loop-control"):
        yield "there is no /dev/loop-control"


def _status(name: str) -> str:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def _unmount(point: str) -> None:
    """What looks around on the machine may be in there for a moment."""
    for _ in range(50):
        if subprocess.run(["umount", point], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "--lazy", point], check=True)


def _program(name: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def _server(kind: str, chained: bool) -> Make:
    def make(stack: ExitStack, folder: Path) -> Subject:
        from support import emulators

        logs = folder / f"logs-{kind}"
        logs.mkdir(exist_ok=True)
        emulator = getattr(emulators, kind)(logs)
        stack.callback(emulator.server.stop)
        place = stack.enter_context(emulator.place())
        url = place.url.rpartition("/")[
            0
        ]  # as few directories above as can be: begin looks into each
        scheme = url.partition(":")[0]
        name = f"tx:: on {scheme} ({_TITLES[kind]})" if chained else f"{scheme} ({_TITLES[kind]})"
        return subject_of(f"tx::{url}" if chained else url, name=name, **place.options)

    return make


def _smb_login(options: dict[str, Any]) -> Callable[[], object]:
    """How a process logs in on its own: by the settings of smbclient, as a password does not travel."""
    import smbclient

    named = {key: options[key] for key in ("username", "password")}
    return partial(smbclient.ClientConfig, **named)


def _files(kind: str, name: str, chained: bool = False) -> Make:
    """A file server over a folder of this machine."""

    def make(stack: ExitStack, folder: Path) -> Subject:
        from fstx_conformance.subjects.fileservers import FileServerSubject
        from support import emulators

        shared, logs = folder / f"shared-{kind}", folder / f"logs-{kind}"
        shared.mkdir()
        logs.mkdir()
        try:
            server = getattr(emulators, kind)(shared, logs)
        except RuntimeError as error:
            raise CannotRunError(str(error)) from error
        stack.callback(server.stop)
        place = server.place()
        if chained:
            return subject_of(f"tx::{place.url}", name=name, **place.options)
        more = {} if kind != "Smbd" else {"login": _smb_login(place.options)}
        return FileServerSubject(place.url, str(place.root), name=name, **place.options, **more)

    return make


_TITLES = {"S3": "ministack", "GCS": "own server", "Azure": "azurite"}
SUBJECTS: dict[str, Make] = {
    "local": _local("local"),
    "local-without-exchange": _local("local, no exchange", exchange=False),
    "tmpfs": _tmpfs,
    "ext4": _mounted("ext4"),
    "ext4-without-exchange": _mounted("ext4", "local, no exchange (ext4)", exchange=False),
    "xfs": _mounted("xfs"),
    "btrfs": _mounted("btrfs"),
    "windows": _windows,
    "memory": lambda stack, folder: subject_of("memory://probe", name="memory"),
    "sftp": _files("OwnSftp", "sftp (asyncssh)"),
    "sshd": _files("Sshd", "sftp (OpenSSH)"),
    "smb": _files("Smbd", "smb (Samba)"),
    "s3": _server("S3", False),
    "gcs": _server("GCS", False),
    "azure": _server("Azure", False),
    "tx-local": _tx_local,
    "tx-ext4": _mounted("ext4", "tx:: on local (ext4)", chained=True),
    "tx-memory": lambda stack, folder: subject_of("tx::memory://probe", name="tx:: on memory"),
    "tx-s3": _server("S3", True),
    "tx-gcs": _server("GCS", True),
    "tx-azure": _server("Azure", True),
    "tx-sftp": _files("OwnSftp", "tx:: on sftp (asyncssh)", True),
    "fsspec-transaction": _comparison("fsspec-transaction"),
    "temp-replace": _comparison("temp-replace"),
    "zarr-localstore": _comparison("zarr-localstore"),
}
"""In the order of the tables."""

COMPARED = ("fsspec-transaction", "temp-replace", "zarr-localstore")
"""What people use today: expected to fail, told for comparison."""

MOUNTED = ("ext4", "ext4-without-exchange", "tx-ext4", "xfs", "btrfs")
"""Need root, mkfs and loop devices: run when named."""

INSTALLED = ("sshd", "smb")
"""Need Debian's servers (`python tests/servers/install.py files`): run when named."""

BY_HAND = (*MOUNTED, *INSTALLED, "tmpfs")

CANNOT_RUN = 69
"""The exit status of a subject that this machine can't run."""

CI = (
    ("local", "standard"),
    ("tx-s3", "standard"),
    ("azure", "quick"),
    ("s3", "quick"),
    ("tx-azure", "quick"),
    ("sftp", "quick"),
    ("gcs", "quick"),
    ("tx-gcs", "quick"),
    ("tx-sftp", "quick"),
    ("windows", "quick"),
    ("local-without-exchange", "quick"),
    ("tx-local", "quick"),
    ("memory", "quick"),
    ("tx-memory", "quick"),
)
"""What CI runs, the longest first: all that needs neither root nor a server of Debian's."""


@contextlib.contextmanager
def opened(key: str, folder: Path) -> Iterator[Subject]:
    """A subject, with its server for as long as it is needed."""
    with ExitStack() as stack:
        subject = SUBJECTS[key](stack, folder)
        try:
            yield subject
        finally:
            subject.close()


def run_one(key: str, profile: str, seed: int) -> Result:
    """One subject, to a result."""
    with (
        tempfile.TemporaryDirectory(prefix="fstx-conformance-", dir=_SCRATCH) as place,
        opened(key, Path(place)) as subject,
    ):
        command = f"python conformance/runs.py {profile} --only {key} --seed {seed}"
        result = run(subject, profile=profile, seed=seed, command=command)
    return replace(result, environment={**result.environment, **_served(key)})


def _served(key: str) -> dict[str, str]:
    """The version of a subject's server."""
    from servers import install

    known: dict[str, Callable[[], str]] = {
        "s3": lambda: f"ministack {install.MINISTACK}",
        "gcs": lambda: "the project's own",
        "azure": lambda: f"azurite {install.AZURITE}",
        "sftp": lambda: f"asyncssh {version('asyncssh')}",
        "sshd": lambda: _said("ssh", "-V").split(",")[0],
        "smb": lambda: _said("smbd", "-V").replace("Version", "Samba"),
    }
    found = known.get(key.removeprefix("tx-"))
    return {} if found is None else {"server": found()}


def _said(name: str, option: str) -> str:
    done = subprocess.run(
        [_program(name) or name, option], check=True, capture_output=True, text=True
    )
    return (done.stdout or done.stderr).strip()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?", default="quick", help="or ci: as CI runs them")
    parser.add_argument("--only", default="", help="keys, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="so many subjects at once")
    parser.add_argument("--report", type=Path, default=ROOT / ".conformance", help="a directory")
    parser.add_argument("--into", type=Path, help="the result of one subject, in this process")
    parser.add_argument("--docs", action="store_true", help="note the results in the documentation")
    given = parser.parse_args()
    plan = _plan(given.profile, [key for key in given.only.split(",") if key])
    if unknown := [key for key, _ in plan if key not in SUBJECTS]:
        parser.error(f"no subject {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if given.into is not None:
        [(key, profile)] = plan
        try:
            result = run_one(key, profile, given.seed)
        except CannotRunError as error:
            print(error, file=sys.stderr)
            return CANNOT_RUN
        given.into.write_text(result.to_json(), encoding="utf-8")
        return 0
    results: dict[tuple[str, str], Result] = {}
    with ThreadPoolExecutor(given.jobs) as pool:
        for one, result in zip(
            plan, pool.map(lambda one: run_apart(*one, given.seed), plan), strict=True
        ):
            if result is not None:
                results[one] = result
                if given.docs:  # at once: hours may have gone into it
                    document({one: result})
    bad = [
        one
        for one, r in results.items()
        if one[0] not in COMPARED and r.verdict is not Verdict.PASS
    ]
    for one in bad:
        print(told(results[one]))
    listed = sorted(results.values(), key=_order)
    if listed:
        print(matrix(listed))
        write(listed, given.report)
    bad += [one for one in plan if one not in results]
    if bad:
        print(f"not passed: {', '.join(map(' '.join, bad))}")
    return 1 if bad else 0


def _plan(profile: str, only: list[str]) -> list[tuple[str, str]]:
    """Subjects and profiles."""
    if profile == "ci":
        return [one for one in CI if not only or one[0] in only]
    return [(key, profile) for key in only or [k for k in SUBJECTS if k not in BY_HAND]]


def _order(result: Result) -> tuple[bool, int]:
    """Ours before comparisons, quick before standard."""
    return result.strategy == "adapted", PROFILES.index(result.profile)


def run_apart(key: str, profile: str, seed: int) -> Result | None:
    """One subject in a process of its own; one line says how it went. None: there is no result, and why."""
    with tempfile.TemporaryDirectory(prefix="fstx-result-") as folder:
        path = Path(folder, "result.json")
        command = [sys.executable, __file__, profile, "--only", key, "--seed", str(seed)]
        command += ["--into", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == CANNOT_RUN:
            print(f"{key}: not run ({profile}): {done.stderr.strip()}", flush=True)
            return None
        if not path.exists():
            print(f"{key}: no result ({profile})\n{done.stdout}\n{done.stderr}", flush=True)
            return None
        result = Result.load(path)
    print(
        f"{result.subject}: {result.verdict.value} ({profile}, {result.seconds:.0f} s)", flush=True
    )
    return result


# --- what is kept in the repository ---------------------------------------------------------------------


def document(results: Mapping[tuple[str, str], Result]) -> None:
    """Note results in the ledger, others stay; the tables of the page are made of it."""
    new = [ledger.Row.of(key, result) for (key, _), result in results.items()]
    rows = ledger.updated(ledger.load(LEDGER), new, list(SUBJECTS))
    LEDGER.write_text(ledger.spelled(rows), encoding="utf-8")
    PAGE.write_text(shown(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


def shown(page: str, rows: Sequence[ledger.Row]) -> str:
    """The page with the tables of these rows."""
    ours = [row for row in rows if row.key not in COMPARED]
    compared = [row for row in rows if row.key in COMPARED]
    parts = {
        "runs": ledger.table(ours),
        "promises": ledger.promise_table(ours),
        "compared": ledger.table(compared),
    }
    for name, text in parts.items():
        head, rest = page.split(f"<!-- {name}: begin -->\n")
        _, tail = rest.split(f"<!-- {name}: end -->")
        page = f"{head}<!-- {name}: begin -->\n{text}<!-- {name}: end -->{tail}"
    return page


if __name__ == "__main__":
    sys.exit(main())
