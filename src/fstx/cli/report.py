"""What the commands print: text for people, dictionaries for JSON."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.table import Table

import fstx
from fstx.registry import scheme_of
from fstx.types import Capability, Guarantee, Recovery, Snapshot

_SWITCH = {
    "rename": "one rename published it",
    "swap": "the old was moved aside, then the new moved in",
    "redo": "a journal decided, then files were renamed in, what readers open last",
    "memory": "one switch in memory",
    "manifest": "one record of the log published all of it",
    "none": "nothing had to change",
}


def size_text(size_bytes: int) -> str:
    """Bytes for people, in powers of 1000."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    for power, unit in ((1, "kB"), (2, "MB")):
        if size_bytes < 999.95 * 1000**power:
            return f"{size_bytes / 1000**power:.1f} {unit}"
    return f"{size_bytes / 1000**3:.1f} GB"


def promised_of_write(url: str, common: dict[str, Any]) -> Guarantee:
    """What `fstx.write` was promised at this target."""
    return fstx.guarantee(
        url,
        mode=None if common["overwrite"] else "create",
        durability=common["durability"],
        layout=common["layout"],
        **common["storage_options"],
    )


def places(snapshot: Snapshot, url: str) -> list[str]:
    """The published files and directories that are there, spelled as the caller spelled the URL."""
    if scheme_of(url) != "file" or "://" in url:
        return [u for u in snapshot.urls if not u.endswith((".aux.xml", ".ovr", ".msk"))]
    above = url.rstrip("/").rpartition("/")
    found = []
    for path in snapshot.urls:
        shown = above[0] + above[1] + os.path.basename(path)
        if os.path.isdir(path):
            found.append(shown + "/")
        elif os.path.lexists(path):
            found.append(shown)
    return found


def write_text(
    url: str,
    array: Any,
    snapshot: Snapshot,
    promised: Guarantee,
    common: dict[str, Any],
    seconds: float,
) -> None:
    """What was written, in three lines."""
    if snapshot.reason == "committed before":
        id = common["id"] or snapshot.txid
        print(f"{url}: the transaction {id!r} was committed before; nothing was done")
        return
    shape = " x ".join(str(n) for n in array.shape) or "one value"
    print(f"wrote {shape} {array.dtype} to {', '.join(places(snapshot, url)) or url}")
    noun = "file" if snapshot.paths == 1 else "files"
    print(f"  {snapshot.paths} {noun}, {size_text(snapshot.size_bytes)}, {seconds:.2f} s")
    print(
        f"  {snapshot.strategy}: {_SWITCH.get(snapshot.strategy, 'published')}; {_kept(promised)}"
    )
    if snapshot.pending:
        print(f"  decided, but not finished: {snapshot.reason}. Run: fstx recover {url}")
    elif snapshot.reason:
        print(f"  {snapshot.reason}")


def _kept(promised: Guarantee) -> str:
    if "memory" in (scheme_of(promised.url), scheme_of(promised.url.removeprefix("tx::"))):
        return "it is gone with this process"
    parts = ["a kill leaves old or new" if Capability.RECOVERABLE in promised else ""]
    lasting = Capability.DURABLE in promised
    parts.append("survives loss of power" if lasting else "may not survive loss of power")
    return ", ".join(p for p in parts if p)


def write_json(
    url: str,
    array: Any,
    snapshot: Snapshot,
    promised: Guarantee,
    common: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ok": True,
        "url": url,
        "written": places(snapshot, url),
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "txid": snapshot.txid,
        "strategy": snapshot.strategy,
        "durability": common["durability"],
        "capabilities": sorted(promised.capabilities),
        "files": snapshot.paths,
        "size_bytes": snapshot.size_bytes,
        "seconds": round(seconds, 4),
        "pending": snapshot.pending,
        "reason": snapshot.reason,
    }


def guarantee_text(url: str, found: Guarantee, console: Console) -> None:
    """A table: capability, kept or not, reason, proof."""
    print(f"{url}: strategy {found.strategy}, mode {found.mode}, durability {found.durability}")
    if not console.is_terminal:
        print("\n".join(str(found).splitlines()[1:]))
        return
    table = Table(box=None, padding=(0, 2, 0, 1))
    for head in ("", "capability", "why", "proof"):
        table.add_column(head, overflow="fold")
    for p in found.promises:
        mark = "[green]yes[/]" if p.kept else "[red]no[/]"
        table.add_row(mark, p.capability.value, _plain(p.reason), _plain(p.proof))
    Console(highlight=False).print(table)
    for note in found.notes:
        print(f"  note: {note}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def guarantee_json(found: Guarantee) -> dict[str, Any]:
    """Every promise with its reason and proof."""
    return {
        "ok": True,
        "url": found.url,
        "strategy": found.strategy,
        "mode": found.mode,
        "durability": found.durability,
        "capabilities": sorted(found.capabilities),
        "promises": [
            {"capability": p.capability, "kept": p.kept, "reason": p.reason, "proof": p.proof}
            for p in found.promises
        ],
        "notes": list(found.notes),
    }


def jobs_json(url: str, found: list[fstx.Job], discarded: list[str]) -> dict[str, Any]:
    """One row per unfinished job."""
    return {
        "ok": True,
        "url": url,
        "jobs": [
            {
                "name": job.name,
                "url": job.url,
                "targets": list(job.targets),
                "mode": job.mode,
                "fingerprint": str(job.fingerprint) if job.fingerprint else None,
                "begun_s": job.begun_s,
                "units": job.units,
                "size_bytes": job.size_bytes,
                "problem": job.problem,
                "discarded": job.name in discarded,
            }
            for job in found
        ],
    }


def recovery_json(found: Recovery) -> dict[str, Any]:
    """One row per transaction that was found."""
    return {
        "ok": True,
        "url": found.url,
        "settled": [
            {"txid": s.txid, "place": s.place, "state": s.state, "detail": s.detail}
            for s in found.settled
        ],
        "removed": list(found.removed),
    }
