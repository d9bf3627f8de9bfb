"""Level "primitives": what a store has to do, on the real store of a room."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fstx.errors import PathError
from fstx.state.entries import checksum
from fstx.stores import Answer, Store, Tidies
from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.checks import refused, together
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level
from fstx_conformance.subjects import raw

KEYS = (
    "a",
    "a b",
    "a+b",
    "a%20b",
    "a=b,c;d",
    "a~b@c",
    "caf\u00e9",
    "\u6f22\u5b57",
    "x" * 200,
    "deep/er/and/deeper/still",
    "#1",
    "q?r",
    "&amp;",
    "'quoted'",
    "a..b",
    ".hidden",
    "[1]*",
)
BAD_KEYS = ("", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\\b", "a\x00b", "a\nb", "\x7f")
_CROWD = 16


@contextlib.contextmanager
def fresh(lab: Lab) -> Iterator[Store]:
    """An empty store of the kind that the subject's transactions are kept in."""
    if lab.subject.seam in ("ops", "none"):
        raise NotApplicable(_why(lab))
    lab.runs += 1
    with lab.room() as room:
        whole = raw.store_of(room)
        if whole is None:
            raise NotApplicable(_why(lab))
        store = whole.below(f"kit-{lab.rng.randrange(1 << 40):010x}")
        try:
            yield store
        finally:
            store.delete([info.key for info in store.list("")])


def _why(lab: Lab) -> str:
    kind = {"none": "nothing that the kit knows", "ops": "calls on files"}.get(lab.subject.seam)
    return f"this storage is reached by {kind or lab.subject.seam}, not by a store"


def gives(lab: Lab, found: object, wanted: object, what: str, rule: str) -> bool:
    """A problem, unless a call gave this."""
    shown = repr(found)
    return lab.check(found == wanted, f"{what} gives {shown:.120}, not {wanted!r:.120} ({rule})")


# --- put_new ------------------------------------------------------------------------------------------


@case(Level.PRIMITIVES, "put-new", "STORE-1", "STORE-2")
def put_new(lab: Lab) -> None:
    """What is put on condition lands whole once; where an object is, nothing changes and TAKEN is told."""
    with fresh(lab) as store:
        for content in (b"first", b"", bytes(range(256)) * 300):
            key = f"new/{len(content)}"
            gives(lab, store.put_new(key, content), Answer.DONE, "the first put_new", "STORE-1")
            gives(lab, store.put_new(key, b"second"), Answer.TAKEN, "the second put_new", "STORE-2")
            gives(lab, store.get(key), content, "get after both", "STORE-2")
        store.put("old", b"put without condition")
        gives(lab, store.put_new("old", b"x"), Answer.TAKEN, "put_new over put", "STORE-2")
        gives(lab, store.get("old"), b"put without condition", "get after it", "STORE-2")
        store.delete(["old"])
        gives(lab, store.put_new("old", b"again"), Answer.DONE, "put_new after delete", "STORE-1")
        gives(lab, store.get("old"), b"again", "get after it", "STORE-1")


@case(Level.PRIMITIVES, "put-new-crowd", "STORE-1", "STORE-3", "STORE-19")
def put_new_crowd(lab: Lab) -> None:
    """Of 16 that put one key at the same time one is told DONE, and its content stays."""
    rounds = {"quick": 4, "standard": 20}.get(lab.profile, 60)
    with fresh(lab) as store:
        for n in range(rounds):
            key, told = f"race/{n}", dict[int, Answer]()

            def put(i: int, key: str = key, told: dict[int, Answer] = told) -> None:
                told[i] = store.put_new(key, b"writer %d" % i * 40)

            errors = together([partial(put, i) for i in range(_CROWD)])
            raised = [e for e in errors if e is not None]
            lab.check(not raised, f"put_new raised {raised[:1]!r} in a crowd (STORE-3)")
            done = [i for i, answer in told.items() if answer is Answer.DONE]
            unsure = [i for i, answer in told.items() if answer is Answer.UNKNOWN]
            found = store.get(key)
            lab.check(
                len(done) <= 1, f"{len(done)} of {_CROWD} were told DONE for one key (STORE-1)"
            )
            lab.check(done or unsure, f"of {_CROWD} nobody was told DONE (STORE-1)")
            possible = [b"writer %d" % i * 40 for i in (done or unsure)]
            lab.check(
                found in possible, f"{found[:12]!r} is there, DONE was told to {done} (STORE-1)"
            )


# --- put, get, delete -------------------------------------------------------------------------------------


@case(Level.PRIMITIVES, "put", "STORE-5", "STORE-10", "STORE-9")
def put(lab: Lab) -> None:
    """What was put is found at once by every look, also after overwriting and deletion; nothing is cached."""
    with fresh(lab) as store:
        other = store.below("d")
        looks(lab, store, other, "d/o", None, "before")
        for n, content in enumerate((b"one", b"", b"a longer one", b"x" * 300_000, b"short")):
            with contextlib.suppress(FileNotFoundError):
                other.get("o")  # whoever keeps an answer keeps the wrong one
            store.put("d/o", content, checksum=checksum([content]))
            looks(lab, store, other, "d/o", content, f"after put {n + 1}")
        store.start_put("d/o", memoryview(b"started")).result(60)
        looks(lab, store, other, "d/o", b"started", "after start_put")
        store.delete(["d/o"])
        looks(lab, store, other, "d/o", None, "after delete")
        store.put("d/o", bytearray(b"again"))
        looks(lab, store, other, "d/o", b"again", "after a put that follows")


def looks(lab: Lab, store: Store, other: Store, key: str, content: bytes | None, when: str) -> None:
    """What every way of looking tells of one object, through two stores."""
    for one, name in ((store, key), (other, key.removeprefix("d/"))):
        what = f"{when}: of {one.url}/{name}"
        listed = [i.size_bytes for i in one.list(name) if i.key == name]
        info = one.info(name)
        if content is None:
            gives(lab, listed, [], f"{what} list", "STORE-10")
            gives(lab, info, None, f"{what} info", "STORE-9")
            refused(lab, FileNotFoundError, partial(one.get, name), f"{what} get")
            continue
        gives(lab, listed, [len(content)], f"{what} list", "STORE-10")
        gives(lab, info and info.size_bytes, len(content), f"{what} info", "STORE-10")
        gives(lab, one.get(name), content, f"{what} get", "STORE-10")


@case(Level.PRIMITIVES, "get", "STORE-8", "STORE-9")
def get(lab: Lab) -> None:
    """`get` gives what a slice would, negative starts counted from the end."""
    with fresh(lab) as store:
        for content in (bytes(range(250)) * 3, b"x", b""):
            store.put("o", content)
            n = len(content)
            spans = [(0, None), (0, 0), (0, 1), (1, 3), (3, 3), (5, 2), (n, None), (n + 5, None)]
            spans += [(0, n), (2, n + 9), (n - 1, n)] if n else []
            spans += [(-1, None), (-3, None), (-n - 7, None)]
            for start, stop in spans:
                if start < 0 and n == 0:
                    continue
                found = store.get("o", start, stop)
                gives(lab, found, content[start:stop], f"get({start}, {stop}) of {n}", "STORE-8")
        for span in ((0, None), (2, 5), (-4, None)):
            refused(
                lab, FileNotFoundError, partial(store.get, "none", *span), f"get{span} of nothing"
            )


@case(Level.PRIMITIVES, "delete", "STORE-12")
def delete(lab: Lab) -> None:
    """All that is named goes, absent keys are fine, and nothing else is touched."""
    with fresh(lab) as store:
        for key in ("a", "ab", "c/1", "c/2"):
            store.put(key, key.encode())
        store.delete([])
        store.delete(["none", "c/1", "none/too", "c"])
        store.delete(iter(["none"]))
        gives(lab, [i.key for i in store.list("")], ["a", "ab", "c/2"], "list", "STORE-12")
        gives(lab, store.get("ab"), b"ab", "get of a key that begins alike", "STORE-12")


# --- keys and listings ------------------------------------------------------------------------------------


@case(Level.PRIMITIVES, "keys", "STORE-17", "STORE-18", "STORE-5")
def keys(lab: Lab) -> None:
    """Keys with unusual characters are names like others; those that may not be are refused."""
    with fresh(lab) as store:
        for n, key in enumerate(KEYS):
            store.put(f"k/{key}", b"%d" % n)
        for n, key in enumerate(KEYS):
            gives(lab, store.get(f"k/{key}"), b"%d" % n, f"get({key[:20]!r})", "STORE-5")
        found = [i.key for i in store.list("k/")]
        gives(lab, found, sorted(f"k/{key}" for key in KEYS), "list", "STORE-11")
        store.delete([f"k/{key}" for key in KEYS])
        gives(lab, list(store.list("k/")), [], "list after delete", "STORE-12")
        for key in BAD_KEYS:
            calls: tuple[tuple[str, Callable[[], object]], ...] = (
                ("put", partial(store.put, key, b"")),
                ("put_new", partial(store.put_new, key, b"")),
                ("get", partial(store.get, key)),
            )
            for name, call in calls:
                refused(lab, PathError, call, f"{name}({key!r})")
        gives(lab, list(store.list("")), [], "list after refused keys", "STORE-17")


@case(Level.PRIMITIVES, "list", "STORE-11", "STORE-20")
def listed(lab: Lab) -> None:
    """A listing has every object below a prefix once, sorted, with its size; also one of many pages."""
    with fresh(lab) as store:
        names = ["a", "a-b", "a.b", "ab", "b/1", "b/10", "b/2", "b/c/d", "b1", "B/1", "caf\u00e9"]
        if lab.profile != "quick":
            names += [f"many/{n:04}" for n in range(1100)]
        made = [store.start_put(key, b"x" * (n % 7)) for n, key in enumerate(names)]
        for put in made:
            put.result(120)
        sizes = {key: n % 7 for n, key in enumerate(names)}
        for prefix in ("", "a", "b", "b/", "b/1", "b/c", "B", "many/", "none", "a/"):
            found = [(i.key, i.size_bytes) for i in store.list(prefix)]
            wanted = [(k, sizes[k]) for k in sorted(names) if k.startswith(prefix)]
            gives(lab, found, wanted, f"list({prefix!r})", "STORE-11")
        below = store.below("b")
        gives(lab, [i.key for i in below.list("")], ["1", "10", "2", "c/d"], "below", "STORE-20")
        gives(lab, below.get("c/d"), store.get("b/c/d"), "get through below", "STORE-20")
        below.put("new", b"1")
        gives(lab, store.get("b/new"), b"1", "get of what below put", "STORE-20")
        same = store.below("b").identity == below.identity
        lab.check(same, "two stores of one place have different identities (STORE-20)")
        other = below.identity != store.below("b1").identity
        lab.check(other, "two stores of different places have one identity (STORE-20)")


# --- large objects and readers ------------------------------------------------------------------------------


@case(Level.PRIMITIVES, "writer", "STORE-7", "STORE-21", "STORE-6")
def writer(lab: Lab) -> None:
    """A large object is there at `close`, whole; before, and after `abort`, nothing is."""
    size = {"quick": 300_000}.get(lab.profile, 9 << 20)
    content = lab.rng.randbytes(size)
    with fresh(lab) as store:
        for ended in ("close", "abort", "abort early", "close empty"):
            file = store.open("large")
            if ended in ("close", "abort"):
                for start in range(0, size, size // 3 + 1):
                    file.write(memoryview(content)[start : start + size // 3 + 1])
            gives(lab, store.info("large"), None, f"info before {ended}", "STORE-7")
            gives(lab, list(store.list("")), [], f"list before {ended}", "STORE-11")
            if ended.startswith("close"):
                file.close()
                wanted = content if ended == "close" else b""
                lab.check(store.get("large") == wanted, f"after {ended}: other content (STORE-7)")
                store.delete(["large"])
            else:
                file.abort()
                file.abort()
                gives(lab, store.info("large"), None, f"info after {ended}", "STORE-7")
        if isinstance(store, Tidies):
            store.put("kept", b"kept")
            left = store.tidy(-60.0)
            gives(lab, left, 0, "tidy: uploads and files left open", "STORE-7")
            gives(lab, store.get("kept"), b"kept", "get after tidy", "STORE-21")


@case(Level.PRIMITIVES, "whole", "STORE-6", "STORE-5")
def whole(lab: Lab) -> None:
    """Who reads while an object is put again and again finds one content or another, never a part."""
    turns = {"quick": 12, "standard": 60}.get(lab.profile, 400)
    contents = [bytes([65 + n]) * (40_000 + 9_000 * n) for n in range(4)]
    with fresh(lab) as store:
        store.put("o", contents[0])
        wrong: list[str] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                try:
                    found = store.get("o")
                except OSError as error:
                    wrong.append(f"{type(error).__name__}: {error}")
                    continue
                if found not in contents:
                    wrong.append(f"{len(found)} bytes, {len(set(found))} kinds")

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for n in range(turns):
                store.put("o", contents[n % 4])
        finally:
            over.set()
            for reader in readers:
                reader.join()
        lab.check(not wrong, f"a reader found {wrong[:2]} (STORE-6)", Capability.ATOMIC_OBJECT)


# --- conditions, proof -------------------------------------------------------------------------------


@case(Level.PRIMITIVES, "replace-if", "STORE-13", "STORE-14")
def replace_if(lab: Lab) -> None:
    """An object is replaced only where it has the token; a token changes with the content."""
    with fresh(lab) as store:
        if not store.probe().replace_if:
            refused(lab, OSError, partial(store.replace_if, "o", b"", "1"), "replace_if unproven")
            raise NotApplicable("replace_if is not proven here, and refused")
        gives(
            lab, store.replace_if("o", b"1", None), Answer.DONE, "replace_if of nothing", "STORE-13"
        )
        gives(lab, store.replace_if("o", b"x", None), Answer.TAKEN, "once more", "STORE-13")
        tokens = []
        for n in (2, 3, 2, 2):
            info = store.info("o")
            token = info.token if info else None
            if not lab.check(token, "info tells no token, though replace_if is proven (STORE-14)"):
                return
            listed = [i.token for i in store.list("o")]
            lab.check(
                listed in ([token], [None]), f"list tells {listed}, info {token!r} (STORE-14)"
            )
            tokens.append(token)
            answer = store.replace_if("o", b"%d" % n, token)
            gives(lab, answer, Answer.DONE, "replace_if of the token", "STORE-13")
            gives(lab, store.get("o"), b"%d" % n, "get after it", "STORE-13")
        lab.check(len(set(tokens[:3])) == 3, f"tokens of different contents: {tokens} (STORE-14)")
        gives(lab, store.replace_if("o", b"x", tokens[2]), Answer.TAKEN, "an old token", "STORE-13")
        store.delete(["o"])
        gives(
            lab, store.replace_if("o", b"x", tokens[-1]), Answer.TAKEN, "of what went", "STORE-13"
        )
        gives(lab, store.info("o"), None, "info after it", "STORE-13")


@case(Level.PRIMITIVES, "probe", "STORE-16")
def probe(lab: Lab) -> None:
    """The probe leaves nothing, gives reasons, and promises no less than transactions are promised."""
    with fresh(lab) as store:
        store.put("o", b"there")
        proof = store.probe()
        gives(lab, [i.key for i in store.list("")], ["o"], "list after probe", "STORE-16")
        lab.check(proof.put_new_reason, "no reason is given for put_new (STORE-16)")
        lab.check(proof.consistent_reason, "no reason is given for consistency (STORE-16)")
        lab.check(proof.durable_reason, "no reason is given for durability (STORE-16)")
        gives(lab, store.probe(), proof, "probe again", "STORE-16")


@case(Level.PRIMITIVES, "travels", "STORE-19", "STORE-18")
def travels(lab: Lab) -> None:
    """A store pickles where others see it, its copy reaches the same; errors are OSError and pickle."""
    with fresh(lab) as store:
        store.put("o", b"there")
        error = refused(lab, FileNotFoundError, partial(store.get, "none"), "get of nothing")
        if isinstance(error, OSError):
            copy: Any = pickle.loads(pickle.dumps(error))
            gives(
                lab,
                (type(copy), str(copy)),
                (type(error), str(error)),
                "an error's pickle",
                "STORE-18",
            )
            named = "none" in str(error)
            lab.check(named, f"the error does not name what was asked for: {error} (STORE-18)")
        if not store.probe().shared:
            return
        there: Store = pickle.loads(pickle.dumps(store))
        gives(lab, there.get("o"), b"there", "get through a pickled store", "STORE-19")
        gives(lab, there.put_new("o", b"x"), Answer.TAKEN, "put_new through it", "STORE-19")
        gives(lab, there.identity, store.identity, "its identity", "STORE-20")


__all__ = ["BAD_KEYS", "KEYS", "fresh", "gives"]
