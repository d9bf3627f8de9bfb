"""What a case gets: rooms, chance from the seed, sweeps over numbered calls, a place for what it finds."""

from __future__ import annotations

import contextlib
import itertools
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from fstx import seams
from fstx.types import Capability
from fstx_conformance.results import Failure
from fstx_conformance.sampling import Sample, musts, pick
from fstx_conformance.scenes import SCENES, Scene
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects.base import Room, Subject
from fstx_conformance.trial import Trial, run_trial

_BUDGET = {"quick": 36, "standard": 480, "exhaustive": 1_000_000}
_DEAR = 10.0  # from this cost on a case has few trials, and says of how many
_DEAR_BUDGET = {"quick": 160, "standard": 480, "exhaustive": 1_000_000_000}
_EPOCH_NS = 1_700_000_000_000_000_000  # where the time that names carry begins
_KEPT = 5  # failures that are told with all details
_FEW = 3  # scenes in the quick profile of a dear storage
_MORE = 4  # trials of a sweep beyond the budget, at most, for words that have to be told
_CONDITIONAL = ("put_new", "replace_if")
_quiet: WeakKeyDictionary[Subject, dict[tuple[object, ...], Trial]] = WeakKeyDictionary()


class NotApplicable(Exception):  # noqa: N818 - no error: a verdict
    """The storage has no such thing; the message says why."""


class Enough(BaseException):
    """The first failure was found, and no more was asked for."""


@dataclass
class Lab:
    """One run of one case over one subject.

    Parameters
    ----------
    subject
        What is tested.
    case
        Its id, for schedules.
    profile
        ``quick``, ``standard`` or ``exhaustive``.
    seed
        All chance of the run comes from it.
    replay
        Only this schedule is run.
    progress
        Is told of each run.
    first
        Whether the case ends at its first failure.
    checked
        Whether transactions are watched by `checked.Checked`; by default in the profile ``quick``.
    """

    subject: Subject
    case: str
    profile: str = "quick"
    seed: int = 0
    replay: Schedule | None = None
    progress: Callable[[str], object] = lambda text: None
    first: bool = False
    checked: bool | None = None
    runs: int = 0
    failing_runs: int = 0
    failures: list[Failure] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    broken: Counter[Capability] = field(default_factory=Counter)
    kept: set[Capability] = field(default_factory=set)  # promises that a trial held up
    sample: Sample = field(default_factory=Sample)
    sees: tuple[
        str, ...
    ] = ()  # words that the case has to be told; on a dear storage they are sought

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed} {self.case}")
        self._leftovers = False
        self._scenes = (1, 1)  # of so many scenes so many are tried

    # --- places --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def room(self) -> Iterator[Room]:
        """A fresh place, gone afterwards; names are drawn so that a run can be repeated, nobody waits."""
        room = self.subject.room()
        room.checked = (
            self.subject.checks and self.profile == "quick"
            if self.checked is None
            else self.checked
        )
        with self.determined():
            try:
                yield room
            finally:
                room.close()

    @contextlib.contextmanager
    def determined(self) -> Iterator[None]:
        """Names come from the seed, pauses take no time."""
        chance = random.Random(f"{self.seed} names")

        def draw(count: int) -> str:
            return chance.randbytes(count).hex()

        moments = itertools.count(_EPOCH_NS, 1_000_000)
        with seams.drawing(draw, moments.__next__), seams.waiting(lambda seconds: None):
            yield

    def scenes(self, *names: str) -> list[Scene]:
        """The scenes of this profile, or those of these names that are in it; in a replay its own."""
        if self.replay is not None and self.replay.scene:
            return [SCENES[self.replay.scene]] if self.replay.scene in SCENES else []
        listed = [SCENES[n] for n in names] if names else list(SCENES.values())
        found = [s for s in listed if self.profile in s.profiles]
        if not self.dear or self.profile != "quick" or len(found) <= _FEW:
            return found
        drawn = random.Random(f"{self.seed} scenes").sample(list(SCENES), len(SCENES))
        few = sorted(found, key=lambda s: drawn.index(s.name))[:_FEW]  # the same ones in all cases
        self._scenes = (len(found), len(few))
        return few

    def all_of(self, count: int) -> int:
        """How many there would be with all scenes, of what there are with some."""
        every, some = self._scenes
        return count * every // some

    @property
    def dear(self) -> bool:
        """Whether a trial takes so much here that a case has few."""
        return self.subject.cost >= _DEAR and self.profile != "exhaustive"

    @property
    def budget(self) -> int:
        """About how many trials the case may make; counted, not measured, so that runs can be repeated."""
        if self.dear:
            return max(1, int(_DEAR_BUDGET[self.profile] / self.subject.cost))
        least = 4 if self.profile == "quick" else 12
        return max(least, int(_BUDGET[self.profile] / self.subject.cost))

    def trials(self, share: float = 1.0, least: int = 2, parts: int = 1) -> int:
        """How many trials a part of the case may make: a share; of a dear one the budget by the `parts`."""
        if self.dear:
            return max(1, self.budget // parts)
        return max(least, int(self.budget * share))

    # --- what is found -------------------------------------------------------------------------------

    def problem(
        self,
        message: str,
        *broken: Capability,
        schedule: Schedule | None = None,
        scene: str = "",
        history: Sequence[str] = (),
    ) -> None:
        """Something does not hold."""
        self.failing_runs += 1
        self.broken.update(broken)
        if len(self.failures) >= _KEPT:
            return
        told = replace(schedule or Schedule(seed=self.seed), case=self.case, scene=scene or "")
        self.failures.append(
            Failure(message, str(told), scene, tuple(history[-200:]), self.replay_line(told))
        )
        if self.first:
            raise Enough

    def replay_line(self, schedule: Schedule) -> str:
        """The command that shows a failure again."""
        return self.subject.replay_line(str(schedule))

    def check(self, holds: object, message: str, *broken: Capability, scene: str = "") -> bool:
        """A problem, unless it holds."""
        if not holds:
            self.problem(message, *broken, scene=scene)
        return bool(holds)

    # --- trials --------------------------------------------------------------------------------------

    def trial(
        self,
        scene: Scene,
        schedule: Schedule,
        *,
        hooks: dict[str, Any] | None = None,
        leftovers: bool = False,
        watch: bool = False,
    ) -> Trial:
        """One trial in a fresh room; what it finds is noted, with the shortest schedule that shows it."""

        def run(room: Room, told: Schedule) -> Trial:
            return run_trial(room, scene, told, hooks=hooks, leftovers=leftovers, watch=watch)

        return self.experiment(scene.name, schedule, run)

    def experiment(
        self, scene: str, schedule: Schedule, run: Callable[[Room, Schedule], Trial]
    ) -> Trial:
        """As `trial`, of anything that is run by a schedule in a fresh room."""
        found = self._try(run, schedule)
        self.runs += 1
        self.seen.update(found.told)
        self.fired.update(found.fired)
        self._keep(found)
        self.progress(f"{scene}: {schedule}")
        if found.problems:
            found = self._shrunk(run, found)
            self.problem(
                found.problems[0],
                *found.broken,
                schedule=found.schedule,
                scene=scene,
                history=found.history.lines,
            )
        return found

    def _keep(self, found: Trial) -> None:
        """The promises that this trial could have broken, and did not."""
        if found.promised is None or not found.fired:
            return
        tried = {Capability.ATOMIC_OBJECT, Capability.ATOMIC_SET, Capability.NO_GAP}
        if {"died", "interrupted", "unknown", "pending"} & set(found.told):
            tried.add(Capability.RECOVERABLE)
        self.kept |= tried & found.promised.capabilities

    def _try(self, run: Callable[[Room, Schedule], Trial], schedule: Schedule) -> Trial:
        with self.room() as room:
            try:
                return run(room, schedule)
            except NotApplicable:
                raise
            except Exception as error:  # noqa: BLE001 - what came out is what the schedule shows
                found = Trial(Scene("", {}, {}, lambda tx: None), schedule)
                found.history.lines += traceback.format_exc().splitlines()[-30:]
                found.problem(f"{type(error).__name__}: {error}")
                return found

    def _shrunk(self, run: Callable[[Room, Schedule], Trial], found: Trial) -> Trial:
        """The same failure with fewer faults, and with calls named instead of counted over all."""
        if len(self.failures) >= _KEPT or self.replay is not None:
            return found
        i = 0
        while i < len(found.schedule.faults) and len(found.schedule.faults) > 1:
            shorter = self._try(run, found.schedule.without(i))
            if shorter.problems:
                found = shorter
            else:
                i += 1
        for i, fault in enumerate(found.schedule.faults):
            named = found.named.get(fault)
            if named is None or fault.op not in ("*", "+"):
                continue
            faults = list(found.schedule.faults)
            faults[i] = named
            other = self._try(run, replace(found.schedule, faults=tuple(faults)))
            if other.problems:
                found = other
        return found

    # --- sweeps --------------------------------------------------------------------------------------

    def sweep(
        self,
        scenes: Sequence[Scene],
        actions: Sequence[str],
        *,
        op: str = "+",
        sticky: bool = False,
        agent: str = "writer",
        first: Fault | None = None,
        hooks: dict[str, Any] | None = None,
        share: float = 1.0,
        parts: int = 1,
        leftovers: bool = False,
    ) -> None:
        """Each action at call number k, k = 1, 2, ... until a run ends without the fault.

        Where the budget does not allow all, numbers are left out evenly, as the seed says; but not the first,
        the last, and those of calls by which what readers find becomes another. `sample` says how many were
        tried. `first`: a fault that comes before, so that the swept one meets a recovery.
        """
        if self.replay is not None:
            for scene in scenes:
                self.trial(scene, self.replay, hooks=hooks, leftovers=leftovers)
            return
        self._leftovers = leftovers
        trials = self.trials(share, 4, parts)
        pairs, each = self._chosen(scenes, actions, trials)
        self.sample.of += self.all_of(len(scenes) * len(actions))
        for turn, (scene, action) in enumerate(pairs):
            self._sweep_one(scene, action, op, sticky, agent, first, hooks, each, turn)

    def _chosen(
        self, scenes: Sequence[Scene], actions: Sequence[str], trials: int
    ) -> tuple[list[tuple[Scene, str]], int]:
        """Pairs to try, and how many numbers of each: all pairs where that many trials allow it.

        Else each action has scenes of its own, drawn by the seed, so that all are met in the end.
        """
        pairs = [(scene, action) for scene in scenes for action in actions]
        most = max(len(actions), trials // 3)
        if len(pairs) > most:
            drawn = self.rng.sample(list(scenes), len(scenes))
            turns = [(drawn[i % len(drawn)], a) for i, a in enumerate(actions)]
            others = [p for p in pairs if p not in turns]
            pairs = turns + self.rng.sample(others, most - len(turns))
        return pairs, max(1 if self.dear else 2, trials // max(1, len(pairs)))

    def _sweep_one(
        self,
        scene: Scene,
        action: str,
        op: str,
        sticky: bool,
        agent: str,
        first: Fault | None,
        hooks: dict[str, Any] | None,
        each: int,
        turn: int,
    ) -> None:
        count, moments, deciding = self._numbers(scene, op, agent, first, hooks)
        some = self._some(moments, (each + 1) // 2)
        numbers = pick(count, each, musts([1, count], some, turn), self.rng)
        more = self.more(count, numbers, deciding)
        if each > count and agent == "writer":
            numbers.append(count + 1)  # the end of a sweep: nothing is there to go wrong
        tried = 0
        for k in itertools.chain(numbers, more):
            fault = Fault(op, k, action, agent=agent, sticky=sticky)
            faults = (first, fault) if first is not None else (fault,)
            found = self.trial(
                scene, Schedule(faults, self.seed), hooks=hooks, leftovers=self._leftovers
            )
            if not found.fired[action] and agent == "writer":
                break
            tried += bool(found.fired[action])
        self.sample.add(tried, count)

    def more(self, count: int, tried: Sequence[int], likely: Sequence[int] = ()) -> Iterator[int]:
        """Further points of a sweep, on a dear storage, as long as a word was not told that has to be.

        The `likely` ones come first.
        """
        others = [k for k in range(1, count + 1) if k not in tried]
        first = [k for k in likely if k in others][: _MORE // 2]
        others = [k for k in others if k not in first]
        drawn = pick(len(others), _MORE - len(first), (), self.rng)
        for k in [*first, *(others[i - 1] for i in drawn)] if self.dear else ():
            if self.replay is not None or all(self.seen[word] for word in self.sees):
                return
            yield k

    def _some(self, moments: dict[int, bool], limit: int) -> list[int]:
        """The moments that must not be, and as many of the others as the limit allows."""
        bad = [k for k, must_not_be in moments.items() if must_not_be][:limit]
        rest = [k for k in moments if k not in bad]
        self.rng.shuffle(rest)
        return bad + rest[: max(0, limit - len(bad))]

    def quiet(
        self,
        name: str,
        run: Callable[[Room, Schedule], Trial],
        first: tuple[Fault, ...] = (),
    ) -> Trial:
        """The run without what a sweep adds; made once for a subject, whatever case asks."""
        kind = getattr(getattr(run, "func", run), "__qualname__", "")
        key = (kind, name, first, self.seed)
        known = _quiet.setdefault(self.subject, {})
        if key not in known:
            found = self.experiment(name, Schedule(first, self.seed), run)
            if not found.problems:
                known[key] = found
            return found
        found = known[key]
        self.seen.update(found.told)
        self.fired.update(found.fired)
        self._keep(found)
        return found

    def undisturbed(
        self, scene: Scene, first: Fault | None = None, hooks: dict[str, Any] | None = None
    ) -> Trial:
        """A trial of a scene without faults but the `first`; as `quiet`."""
        faults = () if first is None else (first,)
        leftovers = self._leftovers

        def run(room: Room, told: Schedule) -> Trial:
            watch = first is None
            return run_trial(room, scene, told, hooks=hooks, leftovers=leftovers, watch=watch)

        if hooks is None:
            return self.quiet(scene.name, run, faults)
        return self.experiment(scene.name, Schedule(faults, self.seed), run)

    def _count(self, scene: Scene, op: str, agent: str) -> int:
        """How many calls a run of the scene makes that `op` means."""
        return self._numbers(scene, op, agent, None, None)[0]

    def _numbers(
        self,
        scene: Scene,
        op: str,
        agent: str,
        first: Fault | None,
        hooks: dict[str, Any] | None,
    ) -> tuple[int, dict[int, bool], list[int]]:
        """How many calls of a run `op` means; the numbers of those about which readers' finds change, and of
        those that may decide: conditional ones up to the first change, the nearest first.
        """
        quiet = self.undisturbed(scene, first, hooks)
        names = quiet.calls.get(agent, [])
        probe = Fault(op, 1, "fail", agent=agent)
        meant = [
            i for i, (name, key, ch) in enumerate(names) if probe.matches(agent, name, key, ch)
        ]
        moments: dict[int, bool] = {}
        for number, bad in quiet.moments if agent == "writer" else ():
            k = sum(i <= number for i in meant)
            moments[k] = moments.get(k, False) or bad
            moments[k + 1] = moments.get(k + 1, False) or bad
        change = quiet.moments[0][0] if quiet.moments else len(names)
        deciding = [
            k for k, i in enumerate(meant, 1) if i <= change and names[i][0] in _CONDITIONAL
        ]
        found = {k: bad for k, bad in moments.items() if 0 < k <= len(meant)}
        return len(meant), found, deciding[::-1]
