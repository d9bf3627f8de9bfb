"""The cache: values by key on local files and in memory, in one process."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from fstx.caching import CacheWarning
from fstx.errors import PathError, UsageError
from fstx.stores.files import Files
from fstx.stores.local import LocalStore

VALUES = np.arange(6.0).reshape(2, 3)


def never() -> bytes:
    """What must not be called."""
    raise AssertionError("computed again")


@pytest.fixture(params=["local", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> fstx.Cache:
    place = tmp_path / "c" if request.param == "local" else f"memory://c-{uuid.uuid4().hex}"
    return fstx.cache(place)


def entry_of(cache: fstx.Cache) -> Path:
    """The one entry's file."""
    folder = Path(cache.url.removeprefix("file://")) / "v1" / "entries"
    (found,) = folder.iterdir()
    return folder / found


def files_below(cache: fstx.Cache) -> list[str]:
    root = Path(cache.url.removeprefix("file://"))
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_values_come_and_go(cache: fstx.Cache) -> None:
    """Each call does what it says, on both kinds of places."""
    assert cache.get("a") is None
    assert cache.get("a", 7) == 7
    assert cache.put("a", b"one")
    assert cache.put(("b", {"n": 1}), VALUES)
    assert cache.get("a") == b"one"
    np.testing.assert_array_equal(cache.get(("b", {"n": 1})), VALUES)
    assert len(cache) == 2
    assert "a" in cache
    assert "c" not in cache
    assert sorted(map(repr, cache)) == ["'a'", "('b', {'n': 1})"]
    assert cache.check() == fstx.CacheCheck(2, cache.check().size_bytes, ())
    cache.remove("a")
    cache.remove("a")
    assert (cache.get("a"), list(cache.keys())) == (None, [("b", {"n": 1})])
    cache.clear()
    assert len(cache) == 0
    assert cache


def test_the_last_put_wins_or_the_first(cache: fstx.Cache) -> None:
    """C8: a second value replaces the first, or is dropped with `if_absent`; neither call fails."""
    assert cache.put("a", b"one", if_absent=True)
    assert not cache.put("a", b"two", if_absent=True)
    assert cache.put("a", b"one", if_absent=True)  # the same value: nothing was kept from it
    assert cache.get("a") == b"one"
    assert cache.put("a", b"three")
    assert cache.get("a") == b"three"


def test_a_value_is_computed_once(cache: fstx.Cache) -> None:
    """A miss computes and keeps; a hit does not compute."""
    assert cache.get_or_compute("a", lambda: b"one") == b"one"
    assert cache.get_or_compute("a", never) == b"one"
    first = cache.get_or_compute("b", lambda: VALUES)
    again = cache.get_or_compute("b", lambda: VALUES + 1)
    np.testing.assert_array_equal(first, again)
    again[:] = 0  # one's own
    np.testing.assert_array_equal(cache.get("b"), VALUES)


def test_an_error_of_the_function_is_raised_and_nothing_kept(cache: fstx.Cache) -> None:
    """The next caller computes itself, at once: the turn was let go."""
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("a", lambda: bytes([1 // 0]))
    with pytest.raises(UsageError, match="arrays and bytes"):
        cache.get_or_compute("a", lambda: "text")  # type: ignore[type-var]
    assert "a" not in cache
    assert cache.get_or_compute("a", lambda: b"one") == b"one"


def test_many_threads_compute_once(cache: fstx.Cache) -> None:
    """C9: of concurrent misses one computes, the others wait and read, by caches of their own."""
    calls: list[int] = []
    gate, release = threading.Barrier(12), threading.Event()
    found: list[Any] = []

    def compute() -> np.ndarray[Any, Any]:
        calls.append(1)
        release.wait(20)
        return VALUES

    def work() -> None:
        own = pickle.loads(pickle.dumps(cache))
        gate.wait(20)
        found.append(own.get_or_compute("a", compute))

    threads = [threading.Thread(target=work) for _ in range(11)]
    for thread in threads:
        thread.start()
    gate.wait(20)
    release.set()
    for thread in threads:
        thread.join(20)
    assert calls == [1]
    assert len(found) == 11
    assert all((values == VALUES).all() for values in found)


def test_a_function_that_asks_for_its_own_entry_is_told(cache: fstx.Cache) -> None:
    """It would wait for itself; other entries may be asked for."""
    with pytest.raises(UsageError, match="asks for the entry that it computes"):
        cache.get_or_compute("a", lambda: cache.get_or_compute("a", never))
    inner = cache.get_or_compute("a", lambda: cache.get_or_compute("b", lambda: b"x") + b"y")
    assert (inner, cache.get("b")) == (b"xy", b"x")


def test_it_pickles_and_tells_what_it_is(cache: fstx.Cache) -> None:
    """Workers get the cache by pickle, with its options; a report shows where it lies and its bound."""
    cache.put("a", b"one")
    store = cache._store
    bounded = fstx.Cache(store, max_bytes=1000, lease_s=5, verify="never")
    other = pickle.loads(pickle.dumps(bounded))
    assert other.get("a") == b"one"
    assert (other.max_bytes, other.url, repr(other)) == (1000, cache.url, repr(bounded))
    assert repr(cache) == f"<Cache {cache.url}>"
    assert repr(bounded) == f"<Cache {cache.url} max_bytes=1000>"


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_bytes": 1.5},
        {"max_bytes": True},
        {"verify": "sometimes"},
        {"lease_s": 0},
        {"lease_s": "1"},
        {"lease_s": float("nan")},
    ],
    ids=str,
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Before anything is read or written."""
    with pytest.raises(UsageError, match=next(iter(options))):
        fstx.cache(tmp_path / "c", **options)
    assert not list(tmp_path.iterdir())


def test_bad_places_and_keys_are_refused(tmp_path: Path) -> None:
    """URLs that can't be a cache, and keys without a spelling, are named."""
    with pytest.raises(PathError, match="chained"):
        fstx.cache("tx::memory://c")
    with pytest.raises(PathError, match="nosuch"):
        fstx.cache("nosuch://c")
    with pytest.raises(PathError, match="empty"):
        fstx.cache("")
    cache = fstx.cache(tmp_path / "c")
    for call in (cache.get, cache.remove, cache.__contains__):
        with pytest.raises(UsageError, match="ndarray"):
            call(("a", np.arange(2)))
    with pytest.raises(UsageError, match="arrays and bytes"):
        cache.put("a", "text")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# --- damage ------------------------------------------------------------------------------------


def damage(cache: fstx.Cache, change: Callable[[bytes], bytes]) -> None:
    path = entry_of(cache)
    path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "garbage": lambda data: b"\xa5" * 300,
    "no mark": lambda data: data[:-1] + b"x",
    "a bit": lambda data: data[:130] + bytes([data[130] ^ 1]) + data[131:],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_computed_again(tmp_path: Path, kind: str) -> None:
    """C5, C6: damage is a miss, warned of once, computed again and replaced whole."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", VALUES)
    damage(cache, DAMAGES[kind])
    with pytest.warns(CacheWarning, match="damaged") as caught:
        assert [cache.get("a"), cache.get("a")] == [None, None]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(entry_of(cache)) in str(caught[0].message)
    report = cache.check()
    assert (report.ok, report.entries) == (False, 1)
    assert report.corrupt[0][0] == str(entry_of(cache))
    assert list(cache.keys()) in ([], ["a"])
    np.testing.assert_array_equal(cache.get_or_compute("a", lambda: VALUES), VALUES)
    np.testing.assert_array_equal(cache.get("a"), VALUES)
    assert cache.check().ok
    assert len(files_below(cache)) == 1


def test_a_damaged_entry_does_not_count_as_the_first(tmp_path: Path) -> None:
    """C8: `if_absent` keeps a whole value only; damage is replaced, and `check` removes it when asked."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", b"one")
    damage(cache, lambda data: data[:-3])
    with pytest.warns(CacheWarning):
        assert cache.put("a", b"two", if_absent=True)
    assert cache.get("a") == b"two"
    damage(cache, lambda data: data[:-3])
    assert not cache.check(remove=True).ok
    assert (cache.check().entries, cache.get("a")) == (0, None)


def test_an_entry_under_another_name_is_damage(tmp_path: Path) -> None:
    """C5: a file that was copied to another key's name is not that key's value."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", b"one")
    copied = entry_of(cache).read_bytes()
    cache.clear()
    cache.put("b", b"two")
    entry_of(cache).write_bytes(copied)
    with pytest.warns(CacheWarning, match="another key"):
        assert cache.get("b") is None
    assert [text for _, text in cache.check().corrupt] == ["it is another key's"]


def test_other_files_are_no_entries(tmp_path: Path) -> None:
    """Listings show entries only; a directory at an entry's name is none."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", b"one")
    place = entry_of(cache)
    (place.parent / "notes.txt").write_text("x")
    assert (len(cache), list(cache)) == (1, ["a"])
    place.unlink()
    place.mkdir()
    assert cache.get("a") is None


@pytest.mark.skipif(os.name == "nt", reason="calls of POSIX")
def test_what_the_disk_has_lost_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C6: a read error of the disk or a file server is a miss; one of this process is raised."""
    cache = fstx.cache(tmp_path / "c")
    cache.put("a", b"one")
    number = errno.EIO

    def fail(fd: int, into: Any, at: int) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", fail)
        with pytest.warns(CacheWarning, match="can't be read"):
            assert cache.get("a") is None
        number = errno.ENOMEM
        with pytest.raises(OSError, match="memory"):
            cache.get("a")
    assert cache.get("a") == b"one"


# --- permissions and modes ---------------------------------------------------------------------


@contextmanager
def as_nobody() -> Iterator[None]:
    """Not as root, whom no mode keeps out."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fstx-cache-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of POSIX")
def test_a_file_that_may_not_be_read_is_kept(shared: Path) -> None:
    """C7: a refusal is no damage: it is raised, and the entry stays as it was."""
    cache = fstx.cache(shared / "c")
    cache.put("a", b"one")
    path = entry_of(cache)
    path.chmod(0)
    with as_nobody(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PermissionError, match=path.name):
            cache.get("a")
        with pytest.raises(PermissionError):
            cache.get_or_compute("a", never)
    path.chmod(0o644)
    assert cache.get("a") == b"one"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of POSIX")
def test_a_cache_that_may_only_be_read_gives_hits(shared: Path) -> None:
    """C7: a miss there is refused before the work is done, and uses that can't be noted are let pass."""
    cache = fstx.cache(shared / "c", max_bytes=10_000)
    cache.put("a", b"one")
    cache.get_or_compute("b", lambda: b"two")
    os.utime(entry_of_key(cache, "a"), (1, 1))
    for folder, _, names in os.walk(shared):
        os.chmod(folder, 0o555)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o444)
    try:
        with as_nobody():
            assert cache.get("a") == b"one"
            assert cache.get_or_compute("b", never) == b"two"
            with pytest.raises(PermissionError):
                cache.get_or_compute("c", never)
            with pytest.raises(PermissionError):
                cache.put("c", b"three")
    finally:
        for folder, _, _ in os.walk(shared):
            os.chmod(folder, 0o755)


def entry_of_key(cache: fstx.Cache, key: Any) -> Path:
    from fstx.caching import keys

    name = keys.name_of(keys.spell(key))
    return Path(cache.url.removeprefix("file://")) / "v1" / "entries" / name


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], ids=oct)
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    """C11: a group that shares a cache can read and replace its entries; no mode is forced."""
    before = os.umask(umask)
    try:
        cache = fstx.cache(tmp_path / "c")
        cache.put("a", b"one")
        cache.get_or_compute("b", lambda: b"two")
        cache.put("a", b"three")
        cache.put("c", b"four", if_absent=True)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in entry_of_key(cache, "a").parent.iterdir()}
    folders = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "c").rglob("*") if p.is_dir()}
    assert (modes, folders) == ({0o666 & ~umask}, {0o777 & ~umask})


# --- temporary files ---------------------------------------------------------------------------


class Watched(Files):
    """The system's calls; `act` comes before each write, with the file's path."""

    def __init__(self) -> None:
        self.act: Callable[[str], None] = lambda path: None
        self.paths: dict[int, str] = {}
        self.flags: list[str] = []

    def create(self, path: str) -> int:
        fd = super().create(path)
        self.paths[fd] = path
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        self.act(self.paths[fd])
        return super().write(fd, data)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit, OSError])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("if_absent", [False, True])
def test_no_temporary_file_outlives_an_exception(
    tmp_path: Path, error: type[BaseException], after: int, if_absent: bool
) -> None:
    """C10: whatever interrupts a put, at whichever piece, nothing new lies there and the old value stays."""
    files = Watched()
    cache = fstx.Cache(LocalStore(tmp_path / "c", durable=False, files=files))
    cache.put("old", b"one")
    before = files_below(cache)
    count = iter(range(100))

    def fail(path: str) -> None:
        if next(count) == (0 if if_absent else after):
            raise error()

    files.act = fail
    with pytest.raises(error):
        cache.put("new" if if_absent else "old", VALUES, if_absent=if_absent)
    assert files_below(cache) == before
    assert cache.get("old") == b"one"


def test_temporary_files_are_no_entries(tmp_path: Path) -> None:
    """C10: what is being written lies beside its target, made exclusively, and no listing shows it."""
    files = Watched()
    cache = fstx.Cache(LocalStore(tmp_path / "c", durable=False, files=files))
    seen: list[str] = []

    def look(path: str) -> None:
        seen.append(path)
        assert os.path.dirname(path) == str(tmp_path / "c" / "v1" / "entries")
        assert list(Path(path).parent.glob("[!.]*")) == []
        assert (len(cache), list(cache), cache.check().entries) == (0, [], 0)
        with pytest.raises(FileExistsError):
            Files().create(path)

    files.act = look
    cache.put("a", VALUES)
    cache.remove("a")
    cache.get_or_compute("a", lambda: VALUES)
    assert len(set(seen)) == 2
    files.act = lambda path: None
    assert cache.check().entries == 1


def test_a_value_is_not_lost_with_the_storage(tmp_path: Path) -> None:
    """A full disk after hours of work: the value is returned, with a warning, and nothing is left."""
    files = Watched()
    cache = fstx.Cache(LocalStore(tmp_path / "c", durable=False, files=files))

    def full(path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    files.act = full
    with pytest.warns(CacheWarning, match="No space left"):
        assert cache.get_or_compute("a", lambda: b"one") == b"one"
    with pytest.raises(OSError, match="No space left"):
        cache.put("a", b"one")
    assert files_below(cache) == []
    files.act = lambda path: None
    assert cache.get_or_compute("a", lambda: b"two") == b"two"
