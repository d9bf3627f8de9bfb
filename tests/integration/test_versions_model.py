"""Random commits, removals, restores, pins and collections against a dictionary of every version."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fstx.backends.manifest import Dataset, ManifestBackend, building, collect, joining
from fstx.backends.manifest.history import VersionedDataset
from fstx.backends.manifest.names import DATA, NODE
from fstx.errors import ConflictError, FencedError
from fstx.paths import is_below
from fstx.state import growing
from fstx.stores import Store
from fstx.stores.opening import open_store

PATHS = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "f/x", "f/y"]
Files = dict[str, bytes]


class Versions(RuleBasedStateMachine):
    """One dataset in memory; each rule is a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"memory://m-{uuid.uuid4().hex}"
        self.versions: dict[int, Files] = {0: {}}
        self.alive: set[int] = {0}
        self.pins: list[tuple[int, Any]] = []
        self.open: list[tuple[Any, int, Files]] = []
        self.count = 0
        self.before = (building.BUDGET_BYTES, growing.LEAF_BYTES, collect.SPARE)
        building.BUDGET_BYTES, growing.LEAF_BYTES, collect.SPARE = 300, 200, 2

    def teardown(self) -> None:
        building.BUDGET_BYTES, growing.LEAF_BYTES, collect.SPARE = self.before

    # --- helpers

    def store(self) -> Store:
        return open_store(self.url).below(".fstx")

    def handle(self) -> VersionedDataset:
        return VersionedDataset(Dataset(self.store()))

    @property
    def newest(self) -> int:
        return max(self.versions)

    def begin(self) -> Any:
        backend = ManifestBackend(Dataset(self.store()))
        return backend.begin(mode="update", durability="data", require=frozenset())

    def fresh(self, path: str, size: int) -> bytes:
        self.count += 1
        return f"{path} {self.count} ".encode().ljust(size, b".")

    def noted(self, version: int, files: Files) -> None:
        self.versions[version] = files
        self.alive.add(version)

    # --- rules

    @rule(
        paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=5, unique=True),
        size=st.sampled_from([20, 3000]),
        gone=st.sampled_from(["", "d", "d/e", "f", "a"]),
    )
    def commit(self, paths: list[str], size: int, gone: str) -> None:
        now = dict(self.versions[self.newest])
        with self.begin() as tx:
            if gone and any(is_below(p, gone) for p in now):
                tx.remove(gone)
                now = {p: c for p, c in now.items() if not is_below(p, gone)}
            for path in paths:
                now[path] = self.fresh(path, size)
                tx.stage(path, now[path])
        self.noted(tx.snapshot.version, now)

    @rule(size=st.sampled_from([20, 3000]), path=st.sampled_from(PATHS), copied=st.booleans())
    def leave_open(self, size: int, path: str, copied: bool) -> None:
        tx = self.begin()
        data = self.fresh(path, size)
        tx.stage(path, data)
        made = {path: data}
        base = self.versions[self.newest]
        if copied and base:
            source = min(base)
            tx.link("copy", tx.base.get(source))
            made["copy"] = base[source]
        tx._settle()
        joining._open.pop(tx.txid)  # nobody here knows it
        self.open.append((tx, self.newest, made))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def commit_late(self, which: int) -> None:
        tx, _, made = self.open.pop(which % len(self.open))
        try:
            tx.commit()
        except (ConflictError, FencedError):
            return
        self.noted(tx.snapshot.version, {**self.versions[self.newest], **made})

    @rule(which=st.integers(0, 99))
    def restore(self, which: int) -> None:
        version = sorted(self.alive)[which % len(self.alive)]
        told = self.handle().restore(version)
        assert told.version is not None
        self.noted(told.version, self.versions[version])

    @rule(which=st.integers(0, 99))
    def pin(self, which: int) -> None:
        version = sorted(self.alive)[which % len(self.alive)]
        self.pins.append((version, self.handle().pin(version)))

    @precondition(lambda self: self.pins)
    @rule(which=st.integers(0, 9))
    def unpin(self, which: int) -> None:
        _, pin = self.pins.pop(which % len(self.pins))
        self.handle().unpin(pin)

    @rule(
        keep=st.one_of(st.none(), st.integers(1, 4), st.lists(st.integers(0, 99), max_size=3)),
        idle=st.sampled_from([0.0, 3600.0]),
    )
    def collect(self, keep: Any, idle: float) -> None:
        alive = sorted(self.alive - {0})
        if isinstance(keep, list):
            keep = [alive[i % len(alive)] for i in keep] if alive else []
        self.handle().collect(keep=keep, older_than_s=idle, dry_run=False)
        if isinstance(keep, int):
            self.alive = {0, *alive[-keep:]}
        elif keep is not None:
            self.alive = {0, *alive[-1:], *keep}

    @rule(keep=st.integers(1, 3))
    def plan(self, keep: int) -> None:
        before = {i.key: i.token for i in self.store().list("")}
        self.handle().collect(keep=keep, older_than_s=0)
        assert {i.key: i.token for i in self.store().list("")} == before

    # --- what holds

    @invariant()
    def kept_versions_read(self) -> None:
        if self.newest == 0:
            return
        handle = self.handle()
        for version in {*self.alive, *(v for v, _ in self.pins)}:
            snapshot = handle.snapshot(version)
            found = {path: snapshot.read(path) for path in snapshot.paths()}
            assert found == self.versions[version], version
        assert {row.version for row in handle.log()} == self.alive - {0}

    @invariant()
    def others_do_not(self) -> None:
        handle = self.handle()
        for version in self.versions.keys() - self.alive - {v for v, _ in self.pins}:
            with contextlib.suppress(FileNotFoundError):
                handle.snapshot(version)
                raise AssertionError(f"version {version} was retired")

    @invariant()
    def nothing_is_damaged(self) -> None:
        if self.newest:
            told = self.handle().verify(data=True)
            assert told.ok, str(told)

    @precondition(lambda self: self.newest)
    @rule()
    def quiet(self) -> None:
        """Once nobody is at work, one collection leaves what the newest version needs, and nothing else."""
        for _, pin in self.pins:
            self.handle().unpin(pin)
        self.pins = []
        self.handle().collect(keep=1, older_than_s=0, dry_run=False)
        self.alive = {0, self.newest}
        found = {i.key for i in self.store().list(DATA)}
        assert found == {e.key for _, e in self.handle().snapshot().items() if e.key}
        root = Dataset(self.store()).refresh().head.state.root
        assert bool({i.key for i in self.store().list(NODE)}) == (root is not None)


TestVersions = Versions.TestCase
TestVersions.settings = settings(
    max_examples=40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a failing run is short enough as it is
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
