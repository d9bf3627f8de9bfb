"""Level "semantics": programs of transactions that Hypothesis draws, against a dictionary."""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level

_EXAMPLES = {"quick": (14, 20), "standard": (150, 30)}


@case(
    Level.SEMANTICS,
    "machine",
    "BACKEND-6",
    "BACKEND-13",
    "BACKEND-14",
    "BACKEND-16",
    "BACKEND-21",
    "BACKEND-24",
    "BACKEND-25",
    "BACKEND-31",
    "BACKEND-35",
    "BACKEND-39",
    sees=("committed", "aborted"),
)
def machine(lab: Lab) -> None:
    """Several transactions at once, with kills and lost answers, do what a dictionary would."""
    try:
        from hypothesis import HealthCheck, Phase, seed, settings
        from hypothesis.stateful import run_state_machine_as_test
    except ImportError:
        raise NotApplicable("it needs Hypothesis: pip install 'fstx[conformance]'") from None
    from fstx_conformance.machine import machine_for

    count, steps = _EXAMPLES.get(lab.profile, (1500, 50))
    made = seed(lab.seed)(machine_for(lab.subject))
    if lab.subject.cost > 2:
        steps = steps * 2 // 3  # readers look after each
    phases = [Phase.explicit, Phase.generate]
    if not lab.dear:  # else a failing program is told as it was drawn
        phases.append(Phase.shrink)
    chosen = settings(
        max_examples=max(min(3, lab.budget + 1), int(count / lab.subject.cost)),
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    lab.runs += chosen.max_examples
    try:
        run_state_machine_as_test(made, settings=chosen)
    except Exception as error:  # noqa: BLE001 - whatever it is, the program shows it
        program = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
        lab.problem(f"{type(error).__name__}: {error}", history=program)
    lab.seen.update(made.seen)
