"""Laws of what is read out of a journal about runs that were tried again."""

from dataclasses import replace

from showhow.evidence.journal import read_outcomes
from showhow.evidence.outcome import RunOutcome
from showhow.tracking.tracker import Event, Reported, RunEnded, RunNoted, RunStarted

RUN = "trial-0/seed-0"
START = RunStarted(RUN, "trial-0", 0, "long", {"max_examples": 400}, {}, 1, 0.0, level="long", budget=400.0)
END = RunEnded(RUN, "finished", None, None, {"grades": "1", "reached_goal": False}, 9.0)


def reported(examples: int, accuracy: float = 0.5) -> Reported:
    metrics = {"examples": float(examples), "validation/accuracy": accuracy, "train_seconds": examples / 100}
    return Reported(RUN, examples, metrics, 1.0)


def resumed(examples: int) -> RunNoted:
    return RunNoted(RUN, "resumed", examples, "goes on", 2.0)


def outcome(*events: Event) -> RunOutcome:
    (only,) = read_outcomes(events)
    return only


def test_a_run_that_goes_on_from_a_checkpoint_keeps_what_it_told_until_then() -> None:
    told = outcome(START, reported(100), reported(200), reported(300, 0.1), replace(START, attempt=2), resumed(200))
    assert told.curve == ((100, 0.5), (200, 0.5))
    assert told.examples == 200
    assert told.status == "interrupted"


def test_nothing_is_lost_nor_doubled() -> None:
    again = replace(START, attempt=2)
    told = outcome(START, reported(100), reported(200), again, resumed(100), reported(200), reported(300), END)
    assert told == outcome(START, reported(100), reported(200), reported(300), END)


def test_a_run_that_begins_anew_forgets_what_it_told() -> None:
    told = outcome(START, reported(100), reported(200), replace(START, attempt=2), reported(100, 0.7))
    assert told.curve == ((100, 0.7),)


def test_an_attempt_that_died_before_it_told_anything_loses_nothing() -> None:
    attempts = [replace(START, attempt=number) for number in (2, 3)]
    told = outcome(START, reported(100), reported(200), attempts[0], attempts[1], resumed(200), reported(300), END)
    assert told.curve == ((100, 0.5), (200, 0.5), (300, 0.5))


def test_a_run_that_was_laid_out_anew_within_an_attempt_tells_the_same_once_more() -> None:
    adapted = RunNoted(RUN, "adapted", 200, "micro-batches of 4", 2.0)
    told = outcome(START, reported(100), reported(200), adapted, resumed(100), reported(200), reported(300), END)
    assert told.curve == ((100, 0.5), (200, 0.5), (300, 0.5))
