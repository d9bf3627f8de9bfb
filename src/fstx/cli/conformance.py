"""Commands of the conformance suite: run, probe, diff, matrix. The suite itself is `fstx_conformance`."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import fstx
from fstx.cli import arguments
from fstx.cli.exits import FAILED, OK, UNSETTLED, guarded, print_json
from fstx.errors import UsageError

conformance = typer.Typer(
    name="conformance",
    no_args_is_help=True,
    help="Run a storage through faults, and say what it keeps.\n\n"
    "Exit codes: 0 passed; 1 failed; 2 the call must be fixed; 4 inconclusive.",
)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Storage = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option", "-o", help="Of the storage: name=value, the value as JSON or text."
    ),
]
Url = Annotated[str, typer.Argument(metavar="URL", help="s3://bucket/probe, tx::out/probe")]


def _kit(module: str) -> Any:
    """A module of the kit; what it needs is imported only here."""
    try:
        return importlib.import_module(f"fstx_conformance.{module}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the suite needs {error.name}: pip install 'fstx[conformance]'"
        ) from error


@conformance.command()
def run(
    url: Url,
    profile: Annotated[
        str, typer.Option(help="quick, standard or exhaustive.", show_default=True)
    ] = "quick",
    seed: Annotated[int, typer.Option(help="All chance comes from it.")] = 0,
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Only this case or level; repeatable.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="SCHEDULE", help="Run one schedule, as a report has it.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="JSON, JUnit and a page, there.")
    ] = None,
    name: Annotated[str, typer.Option(help="How reports call the storage.")] = "",
    options: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the suite over a storage, below a random prefix in URL; nothing else is touched."""
    given: dict[str, Any] = {}

    def work() -> int:
        given.update(arguments.pairs(options or [], option="--storage-option"))
        found = _run(url, given, profile, seed, case or [], replay, name)
        if directory is not None:
            page = _kit("report").write(found, directory)
            print(f"report: {page}", file=sys.stderr)
        if as_json:
            print(found.to_json(), end="")
        else:
            text = _kit("report.text")
            print(text.told(found, ascii_only=text.plain(sys.stdout.encoding)), end="")
        return {"pass": OK, "n/a": OK, "fail": FAILED}.get(found.verdict.value, UNSETTLED)

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, secret=given))


def _run(
    url: str,
    given: dict[str, Any],
    profile: str,
    seed: int,
    only: list[str],
    replay: str | None,
    name: str,
) -> Any:
    schedule = None if replay is None else _kit("schedule").parse(replay)
    subject = _kit("subjects").subject_of(url, name=name, **given)
    shown = ["fstx", "conformance", "run", url, "--profile", profile, "--seed", str(seed)]
    shown += [part for case in only for part in ("--case", case)]
    shown += [] if replay is None else ["--replay", replay]
    shown += [part for option in given for part in ("-o", f"{option}=...")]  # it may be a secret
    try:
        with _told() as progress:
            return _kit("run").run(
                subject,
                profile=profile,
                seed=seed,
                only=only,
                replay=schedule,
                progress=progress,
                command=shlex.join(shown),
            )
    finally:
        subject.close()


@contextmanager
def _told() -> Iterator[Callable[[str, str], object]]:
    """On a terminal: the case and what it does, on one line that is written over."""
    if not sys.stderr.isatty():
        yield lambda case, text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda case, text: status.update(f"{case}  {text}"[:100])


@conformance.command()
def probe(
    url: Url,
    options: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is promised at URL for each mode, and what proved it; nothing is left there."""
    given: dict[str, Any] = {}

    def work() -> int:
        given.update(arguments.pairs(options or [], option="--storage-option"))
        modes: tuple[Any, ...] = ("create", "replace", "update")
        found = [fstx.guarantee(url, mode=mode, **given) for mode in modes]
        if as_json:
            print_json({g.mode: {p.capability: p.kept for p in g.promises} for g in found})
        else:
            print("\n\n".join(map(str, found)))
        return OK

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, secret=given))


@conformance.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD.json")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json")],
    debug: Debug = False,
) -> None:
    """Compare two reports; exit code 1 if the newer one is worse."""

    def work() -> int:
        result = _kit("results").Result
        found = _kit("report.diff").diff(result.load(old), result.load(new))
        print(found, end="")
        return FAILED if found.worse else OK

    raise typer.Exit(guarded(work, as_json=False, debug=debug))


@conformance.command()
def matrix(
    files: Annotated[list[Path], typer.Argument(metavar="REPORT.json ...")],
    directory: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Also one page of all, there.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Merge reports into one table, as Markdown."""

    def work() -> int:
        found = _kit("report.matrix").merge(files)
        if directory is not None:
            _kit("report").write(found, directory)
        print(_kit("report.text").matrix(found), end="")
        return OK

    raise typer.Exit(guarded(work, as_json=False, debug=debug))
