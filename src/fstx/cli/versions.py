"""Commands for the versions of a dataset: log, ls, verify, collect, restore."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fstx
from fstx.cli import arguments
from fstx.cli.bars import growing_bar
from fstx.cli.exits import OK, UNSETTLED, guarded, print_json
from fstx.cli.report import size_text
from fstx.errors import UsageError

if TYPE_CHECKING:
    from fstx.versions import VersionedDataset

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="tx::s3://bucket/cube, tx::out/cube")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option", "-o", help="Of the storage: name=value, the value as JSON or text."
    ),
]

_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d|w)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(option: str, text: str) -> float:
    """``90s``, ``30min``, ``12h``, ``7d``, ``2w`` as seconds."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{option} {text!r}: a time such as 90s, 30min, 12h, 7d or 2w")
    return float(found[1]) * _UNITS[found[2]]


def kept(text: str | None) -> int | timedelta | list[int] | None:
    """``5``, ``7d`` or ``versions:3,8`` as `collect` takes it."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    if text.startswith("versions:"):
        try:
            return [int(part) for part in text.removeprefix("versions:").split(",")]
        except ValueError as error:
            raise UsageError(f"--keep {text!r}: numbers, such as versions:3,8") from error
    return timedelta(seconds=seconds("--keep", text))


def _run(
    url: str,
    options: list[str] | None,
    work: Callable[[VersionedDataset], int],
    *,
    as_json: bool,
    debug: bool,
) -> None:
    given: dict[str, Any] = {}

    def opened() -> int:
        given.update(arguments.pairs(options or [], option="--storage-option"))
        try:
            return work(fstx.dataset(url, **given))
        except FileNotFoundError as error:
            raise UsageError(str(error)) from error

    raise typer.Exit(guarded(opened, as_json=as_json, debug=debug, secret=given))


def log(
    url: Url,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="At most so many.")] = None,
    retired: Annotated[
        bool, typer.Option("--retired", help="Also versions that can't be read any more.")
    ] = False,
    options: Options = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the versions of a dataset, newest first."""

    def work(dataset: VersionedDataset) -> int:
        rows = dataset.log(limit, retired=retired)
        if not as_json:
            print(rows)
            return OK
        versions = [
            {
                "version": row.version,
                "when": row.when.isoformat(),
                "when_s": row.when_s,
                "writer": row.writer,
                "message": row.message,
                "paths": row.paths,
                "size_bytes": row.size_bytes,
                "txid": row.txid,
                "kind": row.kind,
                "retired": row.retired,
            }
            for row in rows
        ]
        print_json({"ok": True, "url": dataset.url, "versions": versions})
        return OK

    _run(url, options, work, as_json=as_json, debug=debug)


def ls(
    url: Url,
    version: Annotated[int | None, typer.Option(help="By default the newest one.")] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="With sizes.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All files below.")] = False,
    options: Options = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List what lies at URL in one version of its dataset."""

    def work(dataset: VersionedDataset) -> int:
        snapshot = dataset.snapshot(version)
        rows = list(_listed(snapshot, recursive))
        if not rows and dataset.prefix and not snapshot.is_dir():
            raise UsageError(f"{url}: no such path in version {snapshot.version}")
        if as_json:
            entries = [
                {"path": path, "kind": "directory" if size is None else "file", "size_bytes": size}
                for path, size in rows
            ]
            print_json(
                {"ok": True, "url": dataset.url, "version": snapshot.version, "entries": entries}
            )
            return OK
        for path, size in rows:
            name = path + "/" if size is None else path
            if long:
                print(f"{'-' if size is None else size_text(size):>10}  {name}")
            else:
                print(name)
        return OK

    _run(url, options, work, as_json=as_json, debug=debug)


def _listed(snapshot: Any, recursive: bool) -> Any:
    if recursive:
        for path, entry in snapshot.items():
            yield path, None if entry.directory else entry.size_bytes
        return
    found = False
    for name, entry in snapshot.children():
        found = True
        yield name, None if entry is None or entry.directory else entry.size_bytes
    if not found and (entry := snapshot.itself()) is not None and not entry.directory:
        yield snapshot.url.rpartition("/")[2], entry.size_bytes


def verify(
    url: Url,
    version: Annotated[int | None, typer.Option(help="By default all that are kept.")] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Also read all data and compare checksums.")
    ] = False,
    options: Options = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that all that versions need is there, as it was committed."""

    def work(dataset: VersionedDataset) -> int:
        with growing_bar("verify") as progress:
            told = dataset.verify(version, data=data, progress=progress)
        if as_json:
            print_json(
                {
                    "ok": told.ok,
                    "url": told.url,
                    "versions": list(told.versions),
                    "records": told.records,
                    "nodes": told.nodes,
                    "paths": told.paths,
                    "objects": told.objects,
                    "size_bytes": told.size_bytes,
                    "unchecked": told.unchecked,
                    "problems": [
                        {"key": p.key, "what": p.what, "needed_by": p.needed_by}
                        for p in told.problems
                    ],
                }
            )
        else:
            print(told)
        return OK if told.ok else UNSETTLED

    _run(url, options, work, as_json=as_json, debug=debug)


def collect(
    url: Url,
    keep: Annotated[
        str | None,
        typer.Option(
            help="So many newest versions (5), those of a time (7d), or these (versions:3,8); by default all."
        ),
    ] = None,
    older_than: Annotated[
        str, typer.Option(help="Give up writers that staged nothing for so long.")
    ] = "1d",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; else only say what.")] = False,
    options: Options = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what no kept version needs; with --yes remove it. Writers and readers may go on meanwhile."""

    def work(dataset: VersionedDataset) -> int:
        idle_s = seconds("--older-than", older_than)
        with growing_bar("collect") as progress:
            told = dataset.collect(
                kept(keep), older_than_s=idle_s, dry_run=not yes, progress=progress
            )
        if as_json:
            print_json(
                {
                    "ok": True,
                    "url": told.url,
                    "dry_run": told.dry_run,
                    "kept": list(told.kept),
                    "retired": list(told.retired),
                    "pins": [
                        {"version": p.version, "name": p.name, "reader": p.reader}
                        for p in told.pins
                    ],
                    "fenced": told.fenced,
                    "waiting": told.waiting,
                    "data": len(told.data),
                    "nodes": len(told.nodes),
                    "records": len(told.records),
                    "other": len(told.other),
                    "uploads": told.uploads,
                    "size_bytes": told.size_bytes,
                }
            )
        else:
            print(told)
            if told and told.dry_run:
                print("nothing was changed; --yes does it")
        return OK

    _run(url, options, work, as_json=as_json, debug=debug)


def restore(
    url: Url,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="As fstx log shows it.")],
    message: Annotated[str | None, typer.Option("--message", "-m", help="For the log.")] = None,
    options: Options = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Commit what VERSION holds as the newest version. Nothing is copied, no version goes."""

    def work(dataset: VersionedDataset) -> int:
        told = dataset.restore(version, message=message)
        if as_json:
            print_json(
                {"ok": True, "url": dataset.url, "restored": version, "version": told.version}
            )
        else:
            print(f"{dataset.url}: version {told.version} is what version {version} was")
        return OK

    _run(url, options, work, as_json=as_json, debug=debug)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (log, ls, verify, collect, restore):
        app.command()(command)


__all__ = ["register"]
