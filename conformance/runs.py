"""Our own runs of the suite: every strategy on every kind of storage that this machine can have.

``python conformance/runs.py quick`` (``ci``, ``standard``, ``exhaustive``) runs all; ``--only s3`` one.
Reports go to ``--report DIR``; ``--docs`` writes the table of `docs/reference/conformance.md`.
Servers are started on 127.0.0.1 and stopped again; they come from ``tests/servers/install.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fstx_conformance.cases import PROFILES  # noqa: E402
from fstx_conformance.report import write  # noqa: E402
from fstx_conformance.report.text import matrix, promises, told  # noqa: E402
from fstx_conformance.results import Result, Verdict  # noqa: E402
from fstx_conformance.run import run  # noqa: E402
from fstx_conformance.subjects import Subject, subject_of  # noqa: E402
from fstx_conformance.subjects.comparisons import WRITERS, ComparisonSubject  # noqa: E402

Make = Callable[[ExitStack, Path], Subject]
_SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None  # quick: syncs cost nothing there
MARKS = ("<!-- runs: begin -->", "<!-- runs: end -->")


def _local(name: str, **options: object) -> Make:
    return lambda stack, folder: subject_of(str(folder / "local"), name=name, **options)


def _tx_local(stack: ExitStack, folder: Path) -> Subject:
    return subject_of(f"tx::{folder / 'datasets'}", name="tx:: on local")


def _windows(stack: ExitStack, folder: Path) -> Subject:
    from fstx_conformance.subjects.simulated import WindowsSubject

    return WindowsSubject(str(folder / "windows"))


def _comparison(key: str) -> Make:
    return lambda stack, folder: ComparisonSubject(WRITERS[key](), str(folder / "compared"))


def _mounted(kind: str) -> Make:
    """A file system of that kind in a file, where this machine lets it be mounted."""

    def make(stack: ExitStack, folder: Path) -> Subject:
        image, point = folder / f"{kind}.img", folder / f"mount-{kind}"
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(600 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
        stack.callback(subprocess.run, ["umount", str(point)], check=True)
        return subject_of(str(point / "local"), name=f"local ({kind})")

    return make


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


def _files(kind: str, name: str) -> Make:
    """A file server over a folder of this machine."""

    def make(stack: ExitStack, folder: Path) -> Subject:
        from fstx_conformance.subjects.fileservers import FileServerSubject
        from support import emulators

        shared, logs = folder / f"shared-{kind}", folder / f"logs-{kind}"
        shared.mkdir()
        logs.mkdir()
        server = getattr(emulators, kind)(shared, logs)
        stack.callback(server.stop)
        place = server.place()
        more = {} if kind != "Smbd" else {"login": _smb_login(place.options)}
        return FileServerSubject(place.url, str(place.root), name=name, **place.options, **more)

    return make


_TITLES = {"S3": "ministack", "GCS": "own server", "Azure": "azurite"}
SUBJECTS: dict[str, Make] = {
    "local": _local("local"),
    "local-without-exchange": _local("local, no exchange", exchange=False),
    "windows": _windows,
    "tx-local": _tx_local,
    "memory": lambda stack, folder: subject_of("memory://probe", name="memory"),
    "tx-memory": lambda stack, folder: subject_of("tx::memory://probe", name="tx:: on memory"),
    "s3": _server("S3", False),
    "tx-s3": _server("S3", True),
    "gcs": _server("GCS", False),
    "tx-gcs": _server("GCS", True),
    "azure": _server("Azure", False),
    "tx-azure": _server("Azure", True),
    "sftp": _files("OwnSftp", "sftp (asyncssh)"),
    "sshd": _files("Sshd", "sftp (OpenSSH)"),
    "smb": _files("Smbd", "smb (Samba)"),
    "fsspec-transaction": _comparison("fsspec-transaction"),
    "temp-replace": _comparison("temp-replace"),
    "zarr-localstore": _comparison("zarr-localstore"),
    "ext4": _mounted("ext4"),
    "xfs": _mounted("xfs"),
    "btrfs": _mounted("btrfs"),
    "tmpfs": lambda stack, folder: subject_of("/dev/shm/fstx-probe", name="local (tmpfs)"),
}

COMPARED = ("fsspec-transaction", "temp-replace", "zarr-localstore")
"""What people use today: expected to fail, told for comparison."""

BY_HAND = ("ext4", "xfs", "btrfs", "tmpfs")
"""Need root, mkfs and loop devices: run when named."""

NEEDS_NO_ROOT = tuple(key for key in SUBJECTS if key not in (*COMPARED, *BY_HAND))

CI = (
    ("tx-s3", "quick"),
    ("tx-gcs", "quick"),
    ("local", "quick"),
    ("local-without-exchange", "quick"),
    ("tx-local", "quick"),
    ("memory", "quick"),
    ("tx-memory", "quick"),
)
"""What CI runs, the longest first. The other servers and `standard` take longer than CI may."""


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
        return run(
            subject,
            profile=profile,
            seed=seed,
            command=f"python conformance/runs.py {profile} --only {key} --seed {seed}",
        )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?", default="quick", help="or ci: as CI runs them")
    parser.add_argument("--only", default="", help="keys, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="so many subjects at once")
    parser.add_argument("--report", type=Path, default=ROOT / ".conformance", help="a directory")
    parser.add_argument("--into", type=Path, help="the result of one subject, in this process")
    parser.add_argument("--docs", action="store_true", help="write the table of the documentation")
    given = parser.parse_args()
    plan = _plan(given.profile, [key for key in given.only.split(",") if key])
    if given.into is not None:
        [(key, profile)] = plan
        given.into.write_text(run_one(key, profile, given.seed).to_json(), encoding="utf-8")
        return 0
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda one: run_apart(*one, given.seed), plan))
    compared = {f"{key} {profile}" for key, profile in plan if key in COMPARED}
    named = {
        f"{key} {profile}": result for (key, profile), result in zip(plan, results, strict=True)
    }
    bad = [k for k, r in named.items() if k not in compared and r.verdict is not Verdict.PASS]
    for key in bad:
        print(told(named[key]))
    listed = sorted(results, key=_order)
    print(matrix(listed))
    write(listed, given.report)
    if given.docs:
        _document(listed)
    if bad:
        print(f"not passed: {', '.join(bad)}")
    return 1 if bad else 0


def _plan(profile: str, only: list[str]) -> list[tuple[str, str]]:
    """Subjects and profiles."""
    if profile == "ci":
        return [one for one in CI if not only or one[0] in only]
    return [(key, profile) for key in only or [k for k in SUBJECTS if k not in BY_HAND]]


def _order(result: Result) -> tuple[bool, int]:
    """Ours before comparisons, quick before standard."""
    return result.strategy == "adapted", PROFILES.index(result.profile)


def run_apart(key: str, profile: str, seed: int) -> Result:
    """One subject in a process of its own, to a result; one line says how it went."""
    with tempfile.TemporaryDirectory(prefix="fstx-result-") as folder:
        path = Path(folder, "result.json")
        command = [sys.executable, __file__, profile, "--only", key, "--seed", str(seed)]
        command += ["--into", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not path.exists():
            raise SystemExit(f"{key}: no result\n{done.stdout}\n{done.stderr}")
        result = Result.load(path)
    print(
        f"{result.subject}: {result.verdict.value} ({profile}, {result.seconds:.0f} s)", flush=True
    )
    return result


def _document(results: list[Result]) -> None:
    page = ROOT / "docs" / "reference" / "conformance.md"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    _, tail = rest.split(MARKS[1])
    page.write_text(
        f"{head}{MARKS[0]}\n{matrix(results)}\n{promises(results)}\n{MARKS[1]}{tail}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
