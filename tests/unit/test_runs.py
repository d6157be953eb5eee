"""Laws of the fold of a study's events into the state of its runs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from showhow.tracking.runs import StudyRecord, fold, group_of
from showhow.tracking.tracker import (
    Event,
    RepliesSampled,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    StageEnded,
    StudyEnded,
    StudyStarted,
)

RUN = "trial-0/seed-0"
START = RunStarted(RUN, "trial-0", 0, "long", {}, {}, 1, 0.0, budget=400.0)
END = RunEnded(RUN, "finished", None, None, {}, 9.0)
SITTING = StudyStarted("tiny", "How much?", {}, {}, 0.0)
OVER = StudyEnded("finished", "", [], {}, 10.0)
STAGE = StageEnded(RUN, "reply", "ab12", False, 0, 1200, 3e9, 2.5, 1.0)


def reported(examples: int, at: float = 1.0, run: str = RUN) -> Reported:
    metrics = {"examples": float(examples), "validation/accuracy": examples / 1000, "train_seconds": 2.0}
    return Reported(run, examples, metrics | {"eval_seconds": 0.5}, at)


def started_again(attempt: int) -> RunStarted:
    return replace(START, attempt=attempt, seconds_since_epoch=float(attempt))


def resumed(examples: int, at: float = 2.0) -> RunNoted:
    return RunNoted(RUN, "resumed", examples, "resumed from a checkpoint", at)


def test_a_run_has_its_last_report_and_what_it_has_spent() -> None:
    run = fold([START, reported(100), reported(200)]).runs[RUN]
    assert (run.accuracy, run.spent, run.seconds, run.status) == (0.2, 200.0, 2.5, None)
    nothing = fold([START]).runs[RUN]
    assert (nothing.metrics, nothing.accuracy, nothing.spent, nothing.seconds) == ({}, None, 0.0, 0.0)


def test_a_further_attempt_has_no_reports_until_it_resumes_and_then_those_before_its_checkpoint() -> None:
    before = [START, reported(100), reported(200), reported(300), END, started_again(2)]
    assert fold(before).runs[RUN].metrics == {}
    assert fold(before).runs[RUN].status is None
    assert sorted(fold([*before, resumed(200)]).runs[RUN].reports) == [100, 200]


def test_stages_and_samples_are_those_of_the_last_attempt_and_notes_of_all() -> None:
    rows: list = [{"question": "1+1="}]
    before: list[Event] = [START, resumed(0), STAGE, RepliesSampled(RUN, "test", rows, 1.0)]
    run = fold(before).runs[RUN]
    assert (run.stages, run.samples, run.notes_of_attempt) == ([STAGE], {"test": rows}, [resumed(0)])
    again = fold([*before, started_again(2), resumed(0, at=3.0)]).runs[RUN]
    assert (again.stages, again.samples, again.notes_of_attempt) == ([], {}, [resumed(0, at=3.0)])
    assert again.notes == [resumed(0), resumed(0, at=3.0)]


def test_events_of_a_run_that_never_started_are_left_out() -> None:
    assert fold([SITTING, reported(100), END, OVER]).runs == {}


def test_a_study_is_finished_when_its_last_session_came_to_its_end() -> None:
    assert not fold([SITTING]).is_finished
    assert fold([SITTING, OVER]).is_finished
    assert not fold([SITTING, OVER, SITTING]).is_finished
    assert not fold([SITTING, replace(OVER, status="interrupted")]).is_finished


def test_runs_keep_the_order_in_which_they_first_started() -> None:
    other = replace(START, run="trial-1/seed-0", trial="trial-1")
    assert list(fold([START, other, started_again(2)]).runs) == [RUN, other.run]


def test_trials_are_grouped_by_arm_and_setting_whatever_the_order_of_its_axes() -> None:
    assert group_of("long", {"a": 1, "b": 2}) == group_of("long", {"b": 2, "a": 1})
    assert group_of("long", {"a": 1}) != group_of("long", {"a": 2})
    assert group_of("long", {}) != group_of("none", {})
    assert fold([START]).runs[RUN].group == group_of("long", {})


events_of_a_run = st.lists(
    st.sampled_from([reported(100), reported(200), reported(300, 1.5), resumed(100), resumed(200, 2.5), STAGE, END])
    | st.integers(2, 4).map(started_again),
    max_size=12,
    unique_by=str,
)


@given(events=events_of_a_run)
def test_hearing_one_event_after_another_and_folding_all_are_the_same(events: list[Event]) -> None:
    record = StudyRecord()
    for event in [START, *events]:
        record.hear(event)
    assert record == fold([START, *events])


@given(events=events_of_a_run)
def test_an_event_heard_twice_in_a_row_changes_nothing(events: list[Event]) -> None:
    once = [START, *events]
    assert fold(event for event in once for _ in range(2)) == fold(once)
