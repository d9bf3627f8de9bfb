"""The commands: arguments in, public functions called, results printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Sequence
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

import fstx
from fstx import layouts
from fstx.cli import arguments, report, versions
from fstx.cli.conformance import conformance
from fstx.cli.exits import (
    FAILED,
    INTERRUPTED,
    OK,
    UNSETTLED,
    guarded,
    heard_of_interrupt,
    last_word,
    print_json,
)
from fstx.cli.loaded import KINDS, Loaded
from fstx.errors import UsageError
from fstx.registry import as_url
from fstx.types import OutcomeState

app = typer.Typer(
    name="fstx",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Writes that are published whole or not at all.\n\n"
    "Exit codes: 0 done; 1 failed, nothing was published; 2 the call must be fixed; 3 the target exists "
    "or another writer won, may be tried again; 4 not settled yet, see fstx recover; 130 interrupted, "
    "nothing is left behind.",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Storage = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option", "-o", help="Of the storage: name=value, the value as JSON or text."
    ),
]


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        app(args=None if argv is None else list(argv), prog_name="fstx")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else (OK if end.code is None else FAILED)
        if code == INTERRUPTED and not heard_of_interrupt():  # typer ends so, without a word
            return last_word()
        return code
    return OK


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fstx {version('fstx')}")
        raise typer.Exit


@app.callback()
def _main(
    show: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before a command."""


@app.command()
def write(
    src: Annotated[str, typer.Argument(metavar="SRC", help=KINDS)],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="out/dem.vrt, out/dem.zarr, out/dem.npy")
    ],
    layout: Annotated[
        str | None, typer.Option(help="vrt, zarr or npy, where the suffix doesn't say.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Which array of SRC, where it holds several.")
    ] = None,
    chunks: Annotated[str | None, typer.Option(help="Lengths of a block: 256 or 256,256.")] = None,
    shards: Annotated[str | None, typer.Option(help="zarr: lengths of a shard.")] = None,
    compression: Annotated[str | None, typer.Option(help="zstd, deflate, none, ...")] = None,
    level: Annotated[int | None, typer.Option(help="Of the compression.")] = None,
    crs: Annotated[str | None, typer.Option(help="EPSG:4326, WKT, or none.")] = None,
    transform: Annotated[str | None, typer.Option(help="x0,dx,0,y0,0,dy (GDAL's order).")] = None,
    nodata: Annotated[str | None, typer.Option(help="A number, nan, or none.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="Another option of the layout: name=value."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    keep_previous: Annotated[
        bool, typer.Option(help="vrt: keep the replaced tiles for readers that have them open.")
    ] = True,
    durability: Annotated[
        str, typer.Option(help="data: survives loss of power. none: only kills.")
    ] = "data",
    require: Annotated[
        list[str] | None, typer.Option(help="Capability that must be promised [ATOMIC_SET].")
    ] = None,
    max_workers: Annotated[int | None, typer.Option(help="Blocks at once.")] = None,
    id: Annotated[
        str | None, typer.Option(help="Idempotency key: a second run with it does nothing.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="if_possible, always or never: keep finished blocks, go on with kept ones."
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(help="With --resume: text that changes whenever the values of SRC do."),
    ] = None,
    storage: Annotated[
        list[str] | None,
        typer.Option(
            "--storage-option", "-s", help="Of the storage: name=value, the value as JSON or text."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write SRC to URL: all of it becomes visible, or nothing."""
    where: dict[str, Any] = {}

    def work() -> int:
        from fstx.cli.readers import opened

        where.update(_storage(storage))
        given: dict[str, Any] = {
            "chunks": arguments.lengths("--chunks", chunks),
            "shards": arguments.lengths("--shards", shards),
            "compression": compression,
            "level": level,
            "crs": crs,
            "transform": arguments.transform(transform),
            "nodata": nodata if nodata == "none" else arguments.number("--nodata", nodata),
        }
        explicit = {k: v for k, v in given.items() if v is not None}
        explicit |= arguments.pairs(option or [])
        common: dict[str, Any] = {
            "layout": layout,
            "overwrite": overwrite,
            "durability": durability,
            "max_workers": max_workers,
            "keep_previous": keep_previous,
            "id": id,
            "storage_options": where,
        }
        if resume is not None:
            if fingerprint is None:
                raise UsageError(
                    "--resume needs --fingerprint: text that changes whenever the values of SRC do, such as "
                    "its checksum"
                )
            common |= {"resume": resume, "fingerprint": fingerprint}
        elif fingerprint is not None:
            raise UsageError("--fingerprint goes with --resume")
        if require:
            common["require"] = [r.upper() for r in require]
        module = layouts.choose(as_url(url).rstrip("/").rpartition("/")[2], layout)
        placeless = crs == "none" or "transform" not in module.OPTIONS
        with opened(src, name, given=explicit, placeless=placeless) as loaded:
            return _write(src, url, loaded, module, explicit, common, as_json)

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, place=url, secret=where))


def _storage(texts: Sequence[str] | None) -> dict[str, Any]:
    return arguments.pairs(texts or [], option="--storage-option")


def _write(
    src: str,
    url: str,
    loaded: Loaded,
    module: ModuleType,
    explicit: dict[str, Any],
    common: dict[str, Any],
    as_json: bool,
) -> int:
    lost = [k.replace("_", " ") for k in _lost(loaded, module.OPTIONS) if k not in explicit]
    if lost:
        loaded.notes.append(f"this layout has no place for {', '.join(lost)} of {src}")
    suggested = {k: v for k, v in loaded.options.items() if k in module.OPTIONS and v is not None}
    options = {**suggested, **explicit}
    for key in ("crs", "transform", "nodata"):
        if isinstance(options.get(key), str) and options[key] == "none":
            del options[key]
    if "transform" not in options and "crs" not in explicit:
        options.pop("crs", None)
    for note in loaded.notes:
        print(f"fstx: note: {note}", file=sys.stderr)
    begun_s = time.perf_counter()
    try:
        snapshot = fstx.write(
            loaded.array, url, progress=sys.stderr.isatty() or None, **common, **options
        )
    except UsageError as error:
        for key in set(suggested) - set(explicit):
            if str(error).startswith(f"{key}="):
                error.add_note(f"so says {loaded.origins.get(key, f'SRC {src}')}; pass --{key}")
        raise
    seconds = time.perf_counter() - begun_s
    promised = report.promised_of_write(url, common)
    if as_json:
        print_json(report.write_json(url, loaded.array, snapshot, promised, common, seconds))
    else:
        report.write_text(url, loaded.array, snapshot, promised, common, seconds)
    return UNSETTLED if snapshot.pending else OK


def _lost(loaded: Loaded, known: Container[str]) -> list[str]:
    """What the source says and the layout has no place for; what any reader assumes anyway is no loss."""
    harmless = {"axis_order"}
    if not loaded.options.get("fill_value", 1):
        harmless.add("fill_value")
    said = [key for key, value in loaded.options.items() if value is not None]
    return [key for key in said if key not in known and key not in harmless]


@app.command()
def guarantee(
    url: Annotated[str, typer.Argument(metavar="URL")],
    mode: Annotated[
        str | None,
        typer.Option(
            help="create, replace or update; by default what fstx write --overwrite uses."
        ),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="vrt, zarr or npy, where the suffix doesn't say.")
    ] = None,
    durability: Annotated[str, typer.Option(help="data or none.")] = "data",
    entry: Annotated[str | None, typer.Option(help="The path that readers open first.")] = None,
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is promised at URL, why, and what proved it. Leaves nothing there."""
    where: dict[str, Any] = {}

    def work() -> int:
        where.update(_storage(storage))
        chosen: dict[str, Any] = {"mode": mode, "durability": durability, "entry": entry}
        chosen["layout"] = layout
        found = fstx.guarantee(url, **chosen, **where)
        if as_json:
            print_json(report.guarantee_json(found))
        else:
            report.guarantee_text(url, found, Console(soft_wrap=True, highlight=False))
        return OK

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, secret=where))


@app.command()
def recover(
    url: Annotated[str, typer.Argument(metavar="URL", help="A target, or a directory of targets.")],
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Settle what killed writers left at URL: each is then wholly published or wholly gone."""
    where: dict[str, Any] = {}

    def work() -> int:
        where.update(_storage(storage))
        try:
            found = fstx.recover(url, **where)
        except KeyboardInterrupt as error:
            error.add_note("not settled to the end")
            raise
        if as_json:
            print_json(report.recovery_json(found))
        else:
            print(found)
        pending = any(s.state is OutcomeState.PENDING for s in found.settled)
        return UNSETTLED if pending else OK

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, place=url, secret=where))


@app.command()
def outcome(
    url: Annotated[str, typer.Argument(metavar="URL")],
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The caller's id, or that of the transaction.")
    ],
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what became of transaction ID: committed, pending, active, aborted or unknown."""
    where: dict[str, Any] = {}

    def work() -> int:
        where.update(_storage(storage))
        state = fstx.outcome(url, id, **where)
        if as_json:
            print_json({"ok": True, "url": url, "id": id, "outcome": state.value})
        else:
            print(state.value)
        return UNSETTLED if state is OutcomeState.PENDING else OK

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, secret=where))


@app.command()
def jobs(
    url: Annotated[str, typer.Argument(metavar="URL", help="A target, such as out/dem.zarr.")],
    discard: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Drop what this job kept. Targets are not touched."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List unfinished resumable jobs beside URL, also those that run now."""
    where: dict[str, Any] = {}

    def work() -> int:
        where.update(_storage(storage))
        found = {job.name: job for job in fstx.jobs(url, **where)}
        unknown = [name for name in discard or () if name not in found]
        if unknown:
            raise UsageError(f"--discard {unknown[0]}: no unfinished job has that name")
        for name in discard or ():
            found[name].discard()
        if as_json:
            print_json(report.jobs_json(url, list(found.values()), discard or []))
        else:
            lines = [
                f"{'discarded ' * (job.name in (discard or ()))}{job}" for job in found.values()
            ]
            print("\n".join(lines) or f"{url}: no unfinished job")
        return OK

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug, secret=where))


versions.register(app)
app.add_typer(conformance)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch directory.")] = False,
    directory: Annotated[
        str | None, typer.Option("--dir", help="Where to make the scratch directory.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Kill a plain writer and an fstx writer at the same moment; see what a reader finds.

    Less than 15 seconds.
    """

    def work() -> int:
        from fstx.cli.demo import play

        console = Console(soft_wrap=True, highlight=False, quiet=as_json)
        try:
            told = play(console, directory=directory, keep=keep)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the demo reads GeoTIFF and needs {error.name}; run: pip install 'fstx[geo,cli]'"
            ) from error
        if as_json:
            print_json(told)
        return OK if told["ok"] else FAILED

    raise typer.Exit(guarded(work, as_json=as_json, debug=debug))


__all__ = ["app", "run"]
