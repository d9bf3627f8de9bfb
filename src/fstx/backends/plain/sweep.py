"""What a transaction that did not commit left at plain names and in its home: removed, only what is ours."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from fstx.backends.plain.compare import holds
from fstx.backends.plain.names import gone_key, is_gone, is_notice, is_opens, staged_prefix
from fstx.backends.plain.placing import Part, noticed, read_opens
from fstx.stores import Store

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Swept:
    """Plain names that went, and whether notices are left for another time."""

    removed: tuple[str, ...]
    left: bool


def sweep(
    parent: Store,
    home: Store,
    txid: str,
    names: Sequence[str],
    *,
    within: Collection[str] | None = None,
    known: Iterable[str] = (),
    foreign: Collection[str] = (),
    keep_notices: bool = False,
    own_notices: Collection[str] = (),
) -> Swept:
    """Remove everything of a transaction. The caller holds a claim on the names.

    Parameters
    ----------
    parent, home
        Where the targets lie, and their home.
    txid, names
        The transaction and its targets.
    within
        Targets that the caller holds; what lies in others stays. None: all of them.
    known
        Plain names that certainly are its own.
    foreign
        Plain names that are not, whatever a notice says.
    keep_notices
        Leave the notices: a put of a dead writer may still arrive, and is removed the next time.
    own_notices
        Of this process. Where others' are found, their writers are told first to put no more.
    """
    before = [info.key for info in home.list(staged_prefix(txid))]
    if any(is_notice(key) and key not in own_notices for key in before):
        # From here on a worker that announces a part finds this; what it announced before is found below.
        home.put_new(gone_key(txid), b"\n")
    held = set(names if within is None else within)
    _abort_uploads(parent, home, [key for key in before if is_opens(key)], names, held)
    parts = {
        path: found
        for path, found in noticed(home, txid, names).items()
        if path.partition("/")[0] in held
    }
    own = set(known)
    asked = [(path, found) for path, found in parts.items() if path not in own]
    if len(asked) > 1:
        with ThreadPoolExecutor(min(_THREADS, len(asked))) as pool:
            ours = list(pool.map(lambda row: is_ours(parent, *row), asked))
    else:
        ours = [is_ours(parent, *row) for row in asked]
    own.update(path for (path, _), mine in zip(asked, ours, strict=True) if mine)
    going = sorted(own - set(foreign))
    if going:
        parent.delete(going)
    # The notices go last: until then whoever comes next finds what is left.
    left = [info.key for info in home.list(staged_prefix(txid))]
    whole = held.issuperset(names)
    kept = [k for k in left if is_notice(k) or is_gone(k) or (is_opens(k) and not whole)]
    home.delete([key for key in left if key not in kept])
    notices = [key for key in left if is_notice(key)]
    if notices and not keep_notices and whole:
        home.delete(notices)
        notices = []
    return Swept(tuple(going), bool(notices))


def _abort_uploads(
    parent: Store, home: Store, notes: Sequence[str], names: Sequence[str], held: Collection[str]
) -> None:
    """Abort what is open at names where the transaction said that it begins an upload."""
    abort = getattr(parent, "abort_uploads", None)
    if not notes or abort is None:
        return
    own = set()
    for key in notes:
        with suppress(FileNotFoundError):  # another one was here meanwhile
            own.add(read_opens(home.get(key), names, f"{home.url}/{key}"))
    own = {path for path in own if path.partition("/")[0] in held}
    if own:
        abort(own.__contains__)


def is_ours(parent: Store, path: str, parts: Sequence[Part]) -> bool:
    """Whether what lies at `path` is one of `parts`."""
    info = parent.info(path)
    return info is not None and any(holds(parent, path, info, p.content) for p in parts)


__all__ = ["Swept", "is_ours", "sweep"]
