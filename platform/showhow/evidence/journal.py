"""Reads the comparison's input from a study's events. Pure."""

from collections.abc import Iterable
from typing import Any, cast

from showhow.evidence.outcome import RunOutcome
from showhow.methods.bench import Unit
from showhow.metrics import TEST, VALIDATION, is_built_in, on_split
from showhow.tracking.runs import RunRecord, fold
from showhow.tracking.tracker import Event, RunStarted

_ACCURACY = on_split(VALIDATION, "accuracy")


def read_outcomes(events: Iterable[Event]) -> list[RunOutcome]:
    """Return the outcome of each run, in the order in which the runs first started."""
    return [_outcome(run) for run in fold(events).runs.values()]


def guessing(events: Iterable[Event]) -> tuple[float, float]:
    """Return the chance level of the test split, and the share right by always giving its commonest answer."""
    for event in events:
        if isinstance(event, RunStarted) and TEST in event.datasets:
            manifest: dict[str, Any] = event.datasets[TEST]
            return float(manifest["chance"]), float(manifest["majority_share"])
    return 0.0, 0.0


def is_finished(events: Iterable[Event]) -> bool:
    """True when the study's latest session has ended."""
    return fold(events).is_finished


def _outcome(run: RunRecord) -> RunOutcome:
    reports = [run.reports[examples] for examples in sorted(run.reports)]
    last = reports[-1] if reports else {}
    start = run.start
    point = {name: value for name, value in start.params.items() if name not in ("explanation", "seed")}
    final: dict[str, Any] = dict(run.end.outcome) if run.end else {}
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
        grades=tuple(mark == "1" for mark in final["grades"]) if "grades" in final else None,
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
        reached_goal=bool(final.get("reached_goal")),
        own_metrics={name: value for name, value in last.items() if "/" in name and not is_built_in(name)},
        reason=run.end.reason if run.end else None,
    )


def _curve(reports: list[dict[str, float]], unit: Unit) -> tuple[tuple[float, float], ...]:
    """Return what was spent at each report that has a validation accuracy, and that accuracy."""
    known = [report for report in reports if _ACCURACY in report and unit in report]
    return tuple((report[unit], report[_ACCURACY]) for report in known)
