"""What a hit costs, and what goes when a cache is full."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from fstx.caching import keys
from fstx.stores import Info
from fstx.stores.memory import MemoryStore
from fstx.stores.simple import SimpleStore

HOUR_S = 3600


def system_calls(call: Any) -> list[str]:
    """The names of the operating system's calls that `call` makes through `os`."""
    seen: list[str] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call" and arg.__module__ in ("posix", "nt", "_io"):
            seen.append(arg.__name__)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [name for name in seen if name != "fspath"]


@pytest.mark.skipif(sys.platform == "win32", reason="names of the calls are those of POSIX")
@pytest.mark.parametrize("max_bytes", [None, 10**6])
def test_a_hit_is_one_open_and_one_read(tmp_path: Path, max_bytes: int | None) -> None:
    """C13: open, look at the open file, read, close; no lock, no listing, no look at a directory."""
    cache = fstx.cache(tmp_path / "c", max_bytes)
    cache.put("a", np.arange(10_000))
    cache.get("a")
    one_read = ["open", "fstat", "preadv", "close"]
    assert system_calls(lambda: cache.get("a")) == one_read
    assert system_calls(lambda: cache.get_or_compute("a", lambda: b"")) == one_read
    assert system_calls(lambda: cache.get("b")) == ["open"]


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="counts of Linux")
def test_a_hit_reads_once(tmp_path: Path) -> None:
    """C13: as the kernel counts it."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", np.zeros(500_000))

    def reads() -> int:
        with open("/proc/self/io", "rb", buffering=0) as file:
            return int(file.read(4096).split(b"syscr: ")[1].split()[0])

    before = reads()
    own = reads() - before  # what one look costs
    before = reads()
    cache.get("a")
    assert reads() - before - own == 1


@pytest.mark.skipif(sys.platform == "win32", reason="names of the calls are those of POSIX")
def test_a_large_hit_is_one_open(tmp_path: Path) -> None:
    """Above 4 MiB an entry is read in pieces, each summed at once, and damage anywhere in it is found."""
    cache = fstx.cache(tmp_path / "c")
    values = np.random.default_rng(1).random(800_000)
    cache.put("a", values)
    calls = system_calls(lambda: cache.get("a"))
    own = calls.count("preadv")  # and a helper's, which this count does not see
    assert calls == ["open", "fstat", *["preadv"] * own, "close"]
    assert 1 <= own <= 7
    np.testing.assert_array_equal(cache.get("a"), values)
    unchecked = fstx.cache(tmp_path / "c", verify="never")
    assert system_calls(lambda: unchecked.get("a")) == ["open", "fstat", "preadv", "close"]
    (path,) = (tmp_path / "c/v1/entries").iterdir()
    whole = path.read_bytes()
    for position in (0, 1000, (1 << 20) - 1, 1 << 20, len(whole) - 50, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.warns(fstx.CacheWarning):
            assert fstx.cache(tmp_path / "c").get("a") is None
    path.write_bytes(whole[:-100_000])
    with pytest.warns(fstx.CacheWarning):
        assert cache.get("a") is None
    path.write_bytes(whole)
    assert cache.check().ok


class Counting(SimpleStore):
    """A store of a third party that notes what is asked of it."""

    def __init__(self, inner: MemoryStore, asked: list[str]) -> None:
        self._inner, self.asked = inner, asked

    @property
    def url(self) -> str:
        return self._inner.url

    def put_new(self, key: str, data: bytes, /) -> Any:
        self.asked.append(f"put_new {key}")
        return self._inner.put_new(key, data)

    def put(self, key: str, data: Any, /, *, checksum: str = "") -> None:
        self.asked.append(f"put {key}")
        self._inner.put(key, data)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        self.asked.append(f"get {key}")
        return self._inner.get(key, start, stop)

    def list(self, prefix: str, /) -> Iterator[Info]:
        self.asked.append(f"list {prefix}")
        return self._inner.list(prefix)

    def delete(self, keys: Any, /) -> None:
        whole = list(keys)
        self.asked.append(f"delete {len(whole)}")
        self._inner.delete(whole)


def test_a_hit_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """C13: on a store a hit is one read, and one use in sixteen is noted by a put of nothing."""
    store = Counting(MemoryStore(f"c-{uuid.uuid4().hex}"), [])
    cache = fstx.Cache(store, max_bytes=10_000)
    cache.put("a", b"one")
    monkeypatch.setattr(random, "random", lambda: 0.5)
    store.asked.clear()
    assert cache.get("a") == b"one"
    name = keys.name_of(keys.spell("a"))
    assert store.asked == [f"get v1/entries/{name}"]
    monkeypatch.setattr(random, "random", lambda: 0.01)
    for _ in range(3):
        cache.get("a")
    (note,) = [line for line in store.asked if not line.startswith("get")]
    assert note == f"put v1/used/{name}"
    unbounded = fstx.Cache(store)
    store.asked.clear()
    assert unbounded.get("a") == b"one"
    assert store.asked == [f"get v1/entries/{name}"]


def aged(cache: fstx.Cache, key: Any, hours: float) -> float:
    """Set the last use of an entry back; the time now."""
    path = Path(cache.url.removeprefix("file://")) / "v1/entries" / keys.name_of(keys.spell(key))
    then_s = time.time() - hours * HOUR_S
    os.utime(path, (then_s, then_s))
    return path.stat().st_mtime


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    """The bound is kept by removing what was used longest ago; a hit counts as a use."""
    cache = fstx.cache(tmp_path / "c", max_bytes=10_000)
    for number in range(8):
        cache.put(number, b"x" * 1000)
        aged(cache, number, 10 - number)
    assert cache.get(0) is not None  # the oldest is used now
    assert cache.get(1, "gone") != "gone"
    cache.put("large", b"x" * 4000)
    assert set(cache) == {0, 1, 6, 7, "large"}
    assert cache.check().size_bytes <= 10_000


def test_a_use_is_noted_once_in_ten_minutes(tmp_path: Path) -> None:
    """A file's time is set anew only when it is old, so that hits write nothing."""
    cache = fstx.cache(tmp_path / "c", max_bytes=10_000)
    cache.put("a", b"x")
    path = next((tmp_path / "c/v1/entries").iterdir())
    recent = aged(cache, "a", 0.1)
    cache.get("a")
    assert path.stat().st_mtime == recent
    old = aged(cache, "a", 1)
    cache.get("a")
    assert path.stat().st_mtime > old + HOUR_S / 2
    old = aged(cache, "a", 1)
    fstx.cache(tmp_path / "c").get("a")
    assert path.stat().st_mtime == old


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_the_bound_is_kept_at_every_moment(tmp_path: Path, scheme: str) -> None:
    """One writer never passes the bound, whatever the sizes and wherever its first look falls."""
    draw = random.Random(3)
    place = f"memory://c-{uuid.uuid4().hex}" if scheme else tmp_path / "c"
    cache = fstx.cache(place, max_bytes=20_000)
    for number in range(150):
        cache.put(number, b"x" * draw.randrange(2500))
        assert cache.get(number) is not None
        total = sum(use.size_bytes for use in cache._place.uses())
        assert total <= 20_000
    assert total > 12_000


def test_many_short_writers_keep_the_bound_about() -> None:
    """Each process that puts one value looks as often as its share asks; no counter is shared."""
    random.seed(5)
    most, place = 0, f"memory://c-{uuid.uuid4().hex}"
    for number in range(200):
        cache = fstx.cache(place, max_bytes=40_000)
        cache.put(number, b"x" * 900)
        most = max(most, sum(use.size_bytes for use in cache._place.uses()))
    assert 35_000 < most < 50_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_writers_keep_the_bound_about(tmp_path: Path) -> None:
    """A forked process has a place of its own in the sixteenth, not its parent's."""
    cache = fstx.cache(tmp_path / "c", max_bytes=20_000)
    cache.put("first", b"x")
    room = cache._room
    assert room is not None
    room._left_bytes = -1000.0  # which no new place is
    before = (room._left_bytes, room._lock)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            cache.put("second", b"x")
            status = int(room._left_bytes < -64 or room._lock is before[1])
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (room._left_bytes, room._lock) == before


def test_a_noted_use_keeps_an_entry_on_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a store notes stand for times of files; notes of entries that are gone go, too."""
    store = MemoryStore(f"c-{uuid.uuid4().hex}")
    cache = fstx.Cache(store, max_bytes=6000)
    for number in range(4):
        cache.put(number, b"x" * 1000)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert cache.get(0) is not None
    monkeypatch.setattr(random, "random", lambda: 0.9)
    cache.put("next", b"x" * 2500)
    assert (0 in cache, 1 in cache) == (True, False)
    cache.clear()
    assert list(store.list("v1/used/")) == []


def test_trim_takes_old_leases_of_a_store() -> None:
    """Holders that died and were never followed leave records; those of a day ago go."""
    store = MemoryStore(f"c-{uuid.uuid4().hex}")
    for name in ("a-0", "b-0"):
        store.put(f"v1/leases/{name}", b"{}")
    store._fs.store[store._path("v1/leases/a-0")].modified -= timedelta(days=2)
    assert fstx.Cache(store).trim() == 0
    assert [info.key for info in store.list("")] == ["v1/leases/b-0"]


def test_an_entry_that_is_too_large_is_refused_or_given_back(tmp_path: Path) -> None:
    """It would drive out everything else: `put` says so; a computed value is returned with a warning."""
    cache = fstx.cache(tmp_path / "c", max_bytes=1000)
    cache.put("a", b"x")
    with pytest.raises(fstx.UsageError, match="max_bytes"):
        cache.put("b", b"x" * 1000)
    with pytest.warns(fstx.CacheWarning, match="max_bytes"):
        assert cache.get_or_compute("b", lambda: b"x" * 1000) == b"x" * 1000
    assert list(cache) == ["a"]


def test_trim_takes_what_killed_writers_left(tmp_path: Path) -> None:
    """Temporary files and locks that nobody has used for an hour go; younger ones may be alive."""
    cache = fstx.cache(tmp_path / "c", max_bytes=1000)
    cache.put("a", b"x")
    cache.get_or_compute("b", lambda: b"x")
    folder = tmp_path / "c" / "v1"
    stale = [folder / "entries" / f".fstx-{'0' * 32}.tmp", folder / "locks" / ("1" * 64)]
    young = [folder / "entries" / f".fstx-{'2' * 32}.tmp", folder / "locks" / ("3" * 64)]
    for path in (*stale, *young):
        path.write_bytes(b"x")
    for path in stale:
        os.utime(path, (time.time() - 2 * HOUR_S,) * 2)
    assert cache.trim() == 0
    assert [path.exists() for path in (*stale, *young)] == [False, False, True, True]
    assert len(cache) == 2
    smaller = fstx.cache(tmp_path / "c", max_bytes=50)
    assert (smaller.trim(), len(cache)) == (1, 1)


def test_a_cache_needs_nothing_optional(tmp_path: Path) -> None:
    """C14: with numpy and fsspec alone; entries go from one such process to one that has more, and back."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in sys.argv[2:]:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import fstx, numpy\n"
        "cache = fstx.cache(sys.argv[1], max_bytes=10**6)\n"
        "assert cache.get('theirs').sum() == 45\n"
        "cache.get_or_compute('own', lambda: numpy.arange(5))\n"
        "assert cache.check().ok and len(list(cache)) == 2\n"
    )
    cache = fstx.cache(tmp_path / "c")
    cache.put("theirs", np.arange(10))
    absent = ["google_crc32c", "s3fs", "gcsfs", "adlfs", "aiohttp", "zarr", "numcodecs", "dask"]
    absent += ["distributed", "tifffile", "imagecodecs", "obstore", "typer", "rich", "diskcache"]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c"), *absent], check=True)
    np.testing.assert_array_equal(cache.get("own"), np.arange(5))
