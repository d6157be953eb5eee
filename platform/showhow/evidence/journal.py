"""Reads the comparison's input out of a study's events. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from showhow.evidence.outcome import RunOutcome
from showhow.methods.bench import Unit
from showhow.metrics import TEST, VALIDATION, on_split
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted, StudyEnded, StudyStarted

_ACCURACY = on_split(VALIDATION, "accuracy")


@dataclass
class _Told:
    """What the events have told of a run so far: reports by examples seen, those of the latest attempt; and those of
    the attempts before, which hold as far as the latest says that it goes on from them."""

    start: RunStarted
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    before: dict[int, dict[str, float]] = field(default_factory=dict)
    end: RunEnded | None = None

    def again(self, start: RunStarted) -> "_Told":
        """Return the run as a further attempt at it begins."""
        return _Told(start, before=self.before | self.reports)

    def resume(self, at_examples: int) -> None:
        """Go on from what was told after so many examples; what was told of later ones will be told again."""
        told = self.before | self.reports
        self.reports = {examples: told[examples] for examples in told if examples <= at_examples}


def read_outcomes(events: Iterable[Event]) -> list[RunOutcome]:
    """Return the outcome of each run, in the order in which the runs first started."""
    told: dict[str, _Told] = {}
    for event in events:
        match event:
            case RunStarted():
                told[event.run] = told[event.run].again(event) if event.run in told else _Told(event)
            case Reported() if event.run in told:
                told[event.run].reports[event.examples] = event.metrics
            case RunNoted(kind="resumed") if event.run in told:
                told[event.run].resume(event.examples)
            case RunEnded() if event.run in told:
                told[event.run].end = event
    return [_outcome(run) for run in told.values()]


def guessing(events: Iterable[Event]) -> tuple[float, float]:
    """Return the chance level of the test split, and the share right by always giving its commonest answer."""
    for event in events:
        if isinstance(event, RunStarted) and TEST in event.datasets:
            manifest: dict[str, Any] = event.datasets[TEST]
            return float(manifest["chance"]), float(manifest["majority_share"])
    return 0.0, 0.0


def last_start(events: Iterable[Event]) -> StudyStarted | None:
    """Return the latest start of the study."""
    return next((event for event in reversed(list(events)) if isinstance(event, StudyStarted)), None)


def is_finished(events: Iterable[Event]) -> bool:
    """True when the study's latest sitting came to its end."""
    last = next((event for event in reversed(list(events)) if isinstance(event, StudyStarted | StudyEnded)), None)
    return isinstance(last, StudyEnded) and last.status == "finished"


def _outcome(run: _Told) -> RunOutcome:
    reports = [run.reports[examples] for examples in sorted(run.reports)]
    last = reports[-1] if reports else {}
    start = run.start
    point = {name: value for name, value in start.params.items() if name not in ("explanation", "seed")}
    told: dict[str, Any] = dict(run.end.outcome) if run.end else {}
    solved_at = last.get("examples_until_solved")
    unit = cast(Unit, start.unit)
    return RunOutcome(
        arm=start.arm,
        level=start.level,
        setting=start.setting,
        is_control=start.is_control,
        trial=start.trial,
        seed=start.seed,
        params=point,
        status=run.end.status if run.end else "interrupted",
        has_ended=run.end is not None,
        stopped_by=run.end.stopped_by if run.end else None,
        selection=last.get(_ACCURACY),
        grades=tuple(mark == "1" for mark in told["grades"]) if "grades" in told else None,
        steps_right=last.get(on_split(TEST, "steps_right")),
        tokens_per_reply=last.get(on_split(TEST, "tokens_per_reply")),
        unit=unit,
        budget=start.budget,
        examples=int(last.get("examples", 0)),
        tokens=last.get("tokens"),
        flops=last.get("flops"),
        examples_until_solved=None if solved_at is None else int(solved_at),
        seconds=last.get("train_seconds", 0.0) + last.get("eval_seconds", 0.0),
        curve=_curve(reports, unit),
        splits={
            name.removesuffix("/accuracy"): value
            for name, value in last.items()
            if name.endswith("/accuracy") and name not in (_ACCURACY, on_split(TEST, "accuracy"))
        },
        reason=run.end.reason if run.end else None,
    )


def _curve(reports: list[dict[str, float]], unit: Unit) -> tuple[tuple[float, float], ...]:
    """Return what was spent at each report that has a validation accuracy, and that accuracy."""
    known = [report for report in reports if _ACCURACY in report and unit in report]
    return tuple((report[unit], report[_ACCURACY]) for report in known)
