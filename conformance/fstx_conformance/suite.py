"""The suite as a pytest class: subclass it, and each case is a test of your backend.

A scheme that `fstx.begin` knows needs a URL, anything else a function::

    from fstx_conformance.suite import BackendSuite


    class TestTables(BackendSuite):
        def make(self, url):
            return ManifestBackend(TableStore(database).below(url))

        xfail = {"crash.torn": "the driver writes in two steps (issue 12)"}

Nothing has to be configured. ``pytest -p fstx_conformance.plugin`` adds options and, with ``--fstx-url``,
needs no code at all. Without it the variables ``FSTX_PROFILE``, ``FSTX_SEED`` and ``FSTX_REPLAY`` say
the same.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest

from fstx import registry
from fstx.errors import UsageError
from fstx.protocol import Backend
from fstx.types import Capability
from fstx_conformance import schedule as schedules
from fstx_conformance.cases import PROFILES, Case
from fstx_conformance.results import CaseResult, Failure, Result, Verdict
from fstx_conformance.run import Account, chosen
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Subject, Tree
from fstx_conformance.subjects.hooks import Hooks, HookSubject, ReadElsewhere
from fstx_conformance.subjects.urls import subject_of

ACCOUNTS = pytest.StashKey[dict[type, Account]]()
"""By suite: what its cases came to so far."""

RESULTS = pytest.StashKey[list[Result]]()
"""Of each suite that ran."""

_HISTORY = 40
_OPTION = re.compile(r"^(--fstx-option=)?(?!-)(\w+)=.*$", re.DOTALL)
_PLUGIN = "fstx_conformance.plugin"


class BackendSuite:
    """Every case of the kit as a test. Nothing is collected of this class itself, only of subclasses.

    Attributes
    ----------
    url
        The suite works below a random prefix in it, and removes what it made. A fixture of the class may
        set it.
    options
        Of the storage, as `fstx.begin` takes them.
    profile, seed
        Where neither the command line nor the environment says another.
    capabilities
        What the backend is to promise. A promise that is missing or was seen broken fails; one more is a
        note.
    xfail
        By id of a case: why it is known to fail. It fails the suite when it passes.
    cost
        How much dearer a run is than on a local disk; the number of runs is divided by it.
    """

    url: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    profile: ClassVar[str] = "quick"
    seed: ClassVar[int] = 0
    capabilities: ClassVar[Iterable[Capability] | None] = None
    xfail: ClassVar[Mapping[str, str]] = {}
    cost: ClassVar[float] = 2.0

    # --- hooks ----------------------------------------------------------------------------------------

    def make(self, url: str, /) -> Backend:
        """A backend for the target at `url`, as a process that has just begun opens it."""
        return registry.backend([url], joined=False, **self.options)

    def raw_read(self, url: str, /) -> Tree:
        """Contents by path, as readers find them, by a way that bypasses the backend.

        Where a subclass says nothing, what fits the scheme: files, objects, the newest version; of a
        backend that the kit knows nothing of, a transaction that is given up.
        """
        raise NotImplementedError

    def leftovers(self, url: str, /) -> Iterable[str]:
        """What lies beside the content and does not stay for good, nobody being alive."""
        raise NotImplementedError

    def remove(self, url: str, /) -> None:
        """Nothing is left of the target, nor of what its backend keeps for it."""
        raise NotImplementedError

    # --- from hooks to a subject ------------------------------------------------------------------------

    @classmethod
    def _own(cls, name: str) -> bool:
        return getattr(cls, name) is not getattr(BackendSuite, name)

    def _hook(self, name: str) -> Any:
        return getattr(self, name) if self._own(name) else None

    def subject(self, *, url: str = "", replay: Callable[[str], str] | None = None) -> Subject:
        """What the cases run over."""
        url = self.url or url
        name = type(self).__name__.removeprefix("Test")
        if self._own("make"):
            hooks = Hooks(
                self.make,
                self._hook("raw_read"),
                self._hook("leftovers"),
                self._hook("remove"),
                replay,
                dict(self.options),
            )
            return HookSubject(url, hooks, name=name, cost=self.cost)
        if not url:
            raise UsageError(
                f"{type(self).__name__} has neither `url` nor `make`: say where, or pass --fstx-url"
            )
        known = subject_of(url, **self.options)
        read = self._hook("raw_read")
        return known if read is None else ReadElsewhere(known, read)

    # --- tests ------------------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case of the profile, or for that of a replay."""
        if "case" not in metafunc.fixturenames:
            return
        settings = Settings.of(metafunc.config, type(self))
        known = {c.id for profile in PROFILES for c in chosen(profile)}
        if unknown := sorted(set(self.xfail) - known):
            raise UsageError(f"{type(self).__name__}.xfail names no case: {', '.join(unknown)}")
        metafunc.parametrize(
            "case",
            [
                pytest.param(case, id=case.id, marks=self._marks(case))
                for case in chosen(settings.profile, (), settings.replay)
            ],
        )

    def _marks(self, case: Case) -> list[pytest.MarkDecorator]:
        if case.id not in self.xfail:
            return []
        return [pytest.mark.xfail(reason=self.xfail[case.id], strict=True)]

    def test_case(
        self,
        case: Case,
        request: pytest.FixtureRequest,
        record_property: Callable[[str, object], None],
    ) -> None:
        """The backend keeps what the rules of one case say."""
        record_property("title", case.title)
        record_property("rules", " ".join(case.rules))
        settings = Settings.of(request.config, type(self))
        result = self._account(request, settings).run(case, settings.replay)
        record_property("runs", result.runs)
        judge(result, case)

    def test_promises(
        self,
        request: pytest.FixtureRequest,
        record_property: Callable[[str, object], None],
    ) -> None:
        """What is promised was not seen broken, and is what the suite expects."""
        account = self._account(request, Settings.of(request.config, type(self)))
        rows = {Capability(row.capability): row for row in account.promises()}
        expected = frozenset(self.capabilities or ())
        wrong = [
            f"{c} is promised and was seen broken ({', '.join(row.cases)})"
            for c, row in rows.items()
            if row.observed == "broken" and (row.declared or c in expected)
        ]
        wrong += [
            f"{c} is expected and not promised: {rows[c].reason or 'no reason'}"
            for c in Capability
            if c in expected and not rows[c].declared
        ]
        if self.capabilities is not None:
            more = [c for c, row in rows.items() if row.declared and c not in expected]
            if more:
                record_property(
                    "note", f"promised beyond what the suite expects: {', '.join(more)}"
                )
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)

    def test_saw_everything(self, request: pytest.FixtureRequest) -> None:
        """A whole run told of commits, aborts, conflicts and unknown outcomes: it could have failed."""
        settings = Settings.of(request.config, type(self))
        account = self._account(request, settings)
        wanted = {c.id for c in chosen(settings.profile)}
        if settings.replay is not None or wanted - {c.id for c in account.found}:
            pytest.skip("only a run of all cases in one process can tell")
        guard = account.guard()
        if guard.verdict is not Verdict.PASS:
            pytest.fail(f"inconclusive: {guard.reason}", pytrace=False)

    def _account(self, request: pytest.FixtureRequest, settings: Settings) -> Account:
        """That of this class, made at its first test: fixtures of the class have run by then."""
        accounts = request.config.stash.setdefault(ACCOUNTS, {})
        known = accounts.get(type(self))
        if known is None:
            place = request.node.nodeid.rpartition("::")[0]
            subject = self.subject(url=settings.url, replay=lambda text: replay_line(place, text))
            known = accounts[type(self)] = Account(subject, settings.profile, settings.seed)
            last = partial(_finish, request.config, known, settings)
            request.node.getparent(pytest.Class).addfinalizer(last)
        return known


def _finish(config: pytest.Config, account: Account, settings: Settings) -> None:
    """The storage is still there: the result is made, then nothing is left of the run."""
    try:
        all_ran = {c.id for c in chosen(account.profile)} <= {c.id for c in account.found}
        whole = settings.replay is None and all_ran
        result = account.result(whole=whole, command=_command(config))
        config.stash.setdefault(RESULTS, []).append(result)
    finally:
        account.subject.close()


def _command(config: pytest.Config) -> str:
    """How pytest was called; values of storage options are nobody else's business."""
    words = [_OPTION.sub(r"\1\2=...", word) for word in config.invocation_params.args]
    return f"pytest {shlex.join(words)}"


@dataclass(frozen=True)
class Settings:
    """How a suite runs: from the command line, else the environment, else the class."""

    url: str
    profile: str
    seed: int
    replay: Schedule | None

    @staticmethod
    def of(config: pytest.Config, suite: type[BackendSuite]) -> Settings:
        """Those of one suite; UsageError for a value that can't be one."""

        def told(name: str, default: str) -> str:
            option = config.getoption(f"fstx_{name}", None)
            if option is not None:
                return str(option)
            return os.environ.get(f"FSTX_{name.upper()}", default)

        profile = told("profile", suite.profile)
        if profile not in PROFILES:
            raise UsageError(f"profile {profile!r}; it is one of {', '.join(PROFILES)}")
        seed = told("seed", str(suite.seed))
        if not seed.lstrip("-").isdecimal():
            raise UsageError(f"seed {seed!r}; it is a whole number")
        replay = told("replay", "")
        parsed = schedules.parse(replay) if replay else None
        if parsed is not None and not parsed.case:
            raise UsageError(f"the schedule {replay!r} names no case: it begins with case=...")
        return Settings(told("url", ""), profile, int(seed), parsed)


def judge(result: CaseResult, case: Case) -> None:
    """Skip what does not apply, fail for everything else that did not pass, telling all that is known."""
    if result.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(f"n/a: {result.reason}")
    head = f"{case.id}: {case.title}\nrules: {', '.join(case.rules)}"
    if result.verdict is Verdict.INCONCLUSIVE:
        pytest.fail(f"{head}\ninconclusive: {result.reason}", pytrace=False)
    if result.verdict is Verdict.FAIL:
        count = f"{result.failing_runs} failing, of {max(result.runs, result.failing_runs)} runs"
        told = "\n\n".join(map(_told, result.failures))
        pytest.fail(f"{head}\n{count}\n\n{told}", pytrace=False)


def _told(failure: Failure) -> str:
    lines = [failure.message]
    if failure.schedule:
        lines.append(f"schedule: {failure.schedule}")
    if failure.history:
        left = len(failure.history) - _HISTORY
        lines.append("history:" + (f" ({left} earlier lines left out)" if left > 0 else ""))
        lines += [f"  {line}" for line in failure.history[-_HISTORY:]]
    if failure.replay:
        lines.append(f"again: {failure.replay}")
    return "\n".join(lines)


def replay_line(place: str, text: str) -> str:
    """The command that runs a schedule again over the suite at a node."""
    return f'pytest -p {_PLUGIN} {place} --fstx-replay "{text}"'


__all__ = ["RESULTS", "BackendSuite", "Settings", "judge", "replay_line"]
