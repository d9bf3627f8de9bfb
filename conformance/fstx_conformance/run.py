"""The runner: cases over one subject, to a result."""

from __future__ import annotations

import contextlib
import gc
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fstx.errors import TransactionError, UsageError
from fstx.types import Capability, Guarantee
from fstx_conformance.cases import PROFILES, Case, cases
from fstx_conformance.lab import Enough, Lab, NotApplicable
from fstx_conformance.report.environment import environment
from fstx_conformance.results import CaseResult, Level, PromiseRow, Result, Verdict
from fstx_conformance.rules import every
from fstx_conformance.scenes import SCENES
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Process, Subject
from fstx_conformance.trial import prepare

_DECLARED = ("create", "create index", "replace", "update", "index")
"""Scenes for which promises are asked: without and with an entry, to a new place and to an old one."""

_WORDS = ("committed", "aborted", "conflict", "unknown")
Progress = Callable[[str, str], object]


def run(
    subject: Subject,
    *,
    profile: str = "quick",
    seed: int = 0,
    only: Iterable[str] = (),
    replay: Schedule | None = None,
    progress: Progress = lambda case, text: None,
    command: str = "",
    first: bool = False,
) -> Result:
    """Run the cases of a profile over a subject.

    Parameters
    ----------
    subject
        What is tested; it is not closed.
    profile
        ``quick``, ``standard`` or ``exhaustive``.
    seed
        All chance comes from it.
    only
        Ids of cases, or names of levels; none: all.
    replay
        Run this one schedule of the case that it names.
    progress
        Is told the case and what it does.
    command
        For the report.
    first
        Whether the run ends at the first failure.

    Raises
    ------
    UsageError
        No such profile, case or level.
    """
    if profile not in PROFILES:
        raise UsageError(f"profile={profile!r}; it is one of {', '.join(PROFILES)}")
    whole = replay is None and not tuple(only) and not first
    account = Account(subject, profile, seed)
    for case in chosen(profile, tuple(only), replay):
        progress(case.id, case.title)
        found = account.run(
            case,
            replay,
            lambda text, case=case: progress(case.id, text),  # type: ignore[misc]
            first=first,
        )
        if first and found.verdict is Verdict.FAIL:
            break
    return account.result(whole=whole, command=command)


class Account:
    """What the cases of one run came to, as it goes on."""

    def __init__(self, subject: Subject, profile: str = "quick", seed: int = 0) -> None:
        self.subject, self.profile, self.seed = subject, profile, seed
        self.found: list[CaseResult] = []
        self.seen: Counter[str] = Counter()
        self.broken: Counter[Capability] = Counter()
        self.touched: dict[Capability, list[str]] = {}
        self._started = time.monotonic()

    def run(
        self,
        case: Case,
        replay: Schedule | None = None,
        progress: Callable[[str], object] = lambda text: None,
        *,
        first: bool = False,
    ) -> CaseResult:
        """Run one case, if `first` to its first failure; what it came to is noted."""
        lab = Lab(self.subject, case.id, self.profile, self.seed, replay, progress, first)
        lab.sees = case.sees
        result = _run_case(case, lab)
        self.found.append(result)
        self.seen += lab.seen
        self.broken += lab.broken
        for capability in lab.kept | set(lab.broken):
            self.touched.setdefault(capability, []).append(case.id)
        return result

    def guard(self) -> CaseResult:
        """Whether a whole run saw all that it has to see."""
        return _guard(self.subject, self.seen)

    def promises(self) -> tuple[PromiseRow, ...]:
        """What is declared, and what the cases observed of it."""
        return _promises(self.subject, self.touched, self.broken)

    def result(self, *, whole: bool, command: str = "") -> Result:
        """All of it; of a run that was `whole` with the guard against seeing too little."""
        found = [*self.found, self.guard()] if whole else self.found
        proven = {
            rule for c in found if c.verdict is not Verdict.NOT_APPLICABLE for rule in c.rules
        }
        return Result(
            subject=self.subject.name,
            url=self.subject.url,
            strategy=self.subject.strategy,
            profile=self.profile,
            seed=self.seed,
            cases=tuple(found),
            promises=self.promises(),
            untested=tuple(r.id for r in every().values() if r.id not in proven),
            environment={**environment(), **self.subject.environment()},
            seconds=round(time.monotonic() - self._started, 2),
            command=command,
        )


def chosen(profile: str, only: tuple[str, ...] = (), replay: Schedule | None = None) -> list[Case]:
    """The cases of a profile, or those that are named; UsageError for a name that nothing has."""
    known = cases()
    if replay is not None and replay.case:
        only = (replay.case,)
    names = {c.id for c in known} | {level.value for level in Level}
    if unknown := [name for name in only if name not in names]:
        raise UsageError(
            f"no case or level {', '.join(unknown)}; there are {', '.join(sorted(names))}"
        )
    named = [c for c in known if not only or c.id in only or c.level.value in only]
    return [c for c in named if profile in c.profiles or c.id in only]


@contextlib.contextmanager
def _young() -> Iterator[None]:
    """Within the block collecting garbage looks at new objects only: simulated processes end often."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run_case(case: Case, lab: Lab) -> CaseResult:
    started = time.monotonic()
    reason = ""
    verdict = Verdict.PASS
    try:
        if case.seams and lab.subject.seam not in case.seams:
            raise NotApplicable(
                f"faults go in at {' or '.join(case.seams)}, and this storage is reached by "
                + ("none of them" if lab.subject.seam == "none" else lab.subject.seam)
            )
        if case.level.value in lab.subject.spared:
            raise NotApplicable(lab.subject.spared[case.level.value])
        with _young():
            case.run(lab)
    except NotApplicable as told:
        verdict, reason = Verdict.NOT_APPLICABLE, str(told)
    except Enough:
        pass
    except Exception as error:  # noqa: BLE001 - a case that can't go on is a failure of what it tests
        with contextlib.suppress(Enough):
            lab.problem(
                f"{type(error).__name__}: {error}",
                history=traceback.format_exc().splitlines()[-30:],
            )
    finally:
        gc.unfreeze()
    if lab.failures:
        verdict = Verdict.FAIL
    elif verdict is Verdict.PASS and lab.replay is None:
        missing = [f"no {a} fired" for a in case.fires if not lab.fired[a]]
        missing += [f"nothing was told {w}" for w in case.sees if not lab.seen[w]]
        if missing:
            verdict, reason = Verdict.INCONCLUSIVE, "; ".join(missing)
    return CaseResult(
        id=case.id,
        level=case.level,
        verdict=verdict,
        rules=case.rules,
        runs=lab.runs,
        reason=reason,
        failures=tuple(lab.failures),
        failing_runs=lab.failing_runs,
        fired=tuple(sorted(lab.fired.items())),
        seen=tuple(sorted(lab.seen.items())),
        seconds=round(time.monotonic() - started, 2),
        sample=lab.sample if lab.sample.of else None,
    )


def _guard(subject: Subject, seen: Counter[str]) -> CaseResult:
    """A run that never saw a commit, an abort, a conflict and an unknown proves little."""
    wanted = _WORDS if subject.seam != "none" else _WORDS[:-1]
    missing = [word for word in wanted if not seen[word]]
    return CaseResult(
        id="semantics.saw-everything",
        level=Level.SEMANTICS,
        verdict=Verdict.INCONCLUSIVE if missing else Verdict.PASS,
        reason=f"never told: {', '.join(missing)}" if missing else "",
        seen=tuple((word, seen[word]) for word in _WORDS),
    )


# --- promises --------------------------------------------------------------------------------------------


def _promises(
    subject: Subject, touched: dict[Capability, list[str]], broken: Counter[Capability]
) -> tuple[PromiseRow, ...]:
    declared = _declared(subject)
    rows = []
    for capability in Capability:
        promises = {
            name: told[capability]
            for name, told in declared.items()
            if any(p.capability is capability for p in told.promises)
        }
        kept = tuple(name for name, promise in promises.items() if promise.kept)
        cases = tuple(touched.get(capability, ()))
        observed = "broken" if broken[capability] else "kept" if cases else "not tried"
        reasons = [promises[name].reason for name in (kept or promises)]
        row = PromiseRow(
            capability.value, bool(kept), observed, reasons[0] if reasons else "", cases, kept
        )
        rows.append(row)
    return tuple(rows)


def _declared(subject: Subject) -> dict[str, Guarantee]:
    """By scene: what is declared for it, with what has to be there before."""
    found = {}
    for name in _DECLARED:
        room = subject.room()
        try:
            with contextlib.suppress(TransactionError, OSError), Process.alone():
                found[name] = prepare(room, SCENES[name])
        finally:
            room.close()
    return found


__all__ = ["Account", "chosen", "environment", "run"]
