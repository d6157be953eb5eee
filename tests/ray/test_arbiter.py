"""The laws of early stopping: within a level, by trials and not by seeds, and never the best."""

from hypothesis import given
from hypothesis import strategies as st

from showhow.study.stopping import Asha, Median, NoStopping
from showhow.tuning.arbiter import Arbiter

BUDGET = 1000
EVERY = 100


def metrics(examples: int, loss: float) -> dict[str, float]:
    return {
        "examples": float(examples),
        "tokens": 10.0 * examples,
        "flops": 1e6 * examples,
        "train_loss": loss,
        "validation/accuracy": 1 / (1 + loss),
    }


def run_whole(arbiter: Arbiter, level: str, trial: str, seed: int, loss: float) -> int:
    """Report a run of constant loss until it is stopped or its budget is spent; return the examples it used."""
    for examples in range(EVERY, BUDGET + 1, EVERY):
        if arbiter.report(level, trial, seed, metrics(examples, loss), BUDGET):
            return examples
    arbiter.finished(level, trial, seed)
    return BUDGET


def asha(**changes: object) -> Asha:
    return Asha.model_validate({"kind": "asha", "min_seeds": 1, **changes})


def test_a_worse_trial_of_the_same_level_is_stopped() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    assert run_whole(arbiter, "long", "good", 0, loss=0.1) == BUDGET
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) < BUDGET
    assert arbiter.stopped == {"poor"}


def test_trials_of_other_levels_never_matter() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    run_whole(arbiter, "none", "leads early", 0, loss=0.01)
    assert run_whole(arbiter, "long", "clicks late", 0, loss=3.0) == BUDGET
    assert arbiter.stopped == set()


def test_nothing_is_decided_before_min_seeds_have_come_as_far() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=3)
    for seed in (0, 1):
        run_whole(arbiter, "long", "good", seed, loss=0.1)
    assert run_whole(arbiter, "long", "unlucky seed", 0, loss=2.0) == BUDGET
    assert run_whole(arbiter, "long", "unlucky seed", 1, loss=2.0) < BUDGET


def test_one_late_seed_does_not_stop_a_trial_that_is_good_on_average() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=2)
    for seed in (0, 1):
        run_whole(arbiter, "long", "middling", seed, loss=1.0)
    assert run_whole(arbiter, "long", "good", 0, loss=1.5) == BUDGET
    assert run_whole(arbiter, "long", "good", 1, loss=0.1) == BUDGET


def test_with_one_seed_in_the_study_one_seed_decides() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=1)
    run_whole(arbiter, "long", "good", 0, loss=0.1)
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) < BUDGET


def test_a_run_that_reached_its_goal_early_still_counts_at_later_rungs() -> None:
    arbiter = Arbiter(asha(grace=0.5), seeds=1)
    arbiter.report("long", "solved at once", 0, metrics(EVERY, 0.01), BUDGET)
    arbiter.finished("long", "solved at once", 0)
    assert run_whole(arbiter, "long", "slow", 0, loss=1.0) == BUDGET // 2


@given(losses=st.lists(st.floats(0.001, 10), min_size=1, max_size=12, unique=True))
def test_the_best_of_runs_in_any_order_is_never_stopped(losses: list[float]) -> None:
    arbiter = Arbiter(asha(), seeds=1)
    for loss in losses:
        run_whole(arbiter, "long", str(loss), 0, loss)
    assert str(min(losses)) not in arbiter.stopped


@given(
    losses=st.lists(st.floats(0.001, 10), min_size=1, max_size=8), unit=st.sampled_from(["examples", "tokens", "flops"])
)
def test_the_decisions_do_not_depend_on_the_unit_when_units_are_proportional(losses: list[float], unit: str) -> None:
    by_examples, by_unit = Arbiter(asha(), seeds=1), Arbiter(asha(budget=unit), seeds=1)
    for index, loss in enumerate(losses):
        run_whole(by_examples, "long", str(index), 0, loss)
        run_whole(by_unit, "long", str(index), 0, loss)
    assert by_examples.stopped == by_unit.stopped


def test_a_stopped_trial_stays_stopped_for_all_its_seeds() -> None:
    arbiter = Arbiter(asha(), seeds=2)
    run_whole(arbiter, "long", "good", 0, loss=0.1)
    run_whole(arbiter, "long", "poor", 0, loss=2.0)
    assert run_whole(arbiter, "long", "poor", 1, loss=0.001) == EVERY


def test_reports_repeated_after_a_restart_change_nothing() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    run_whole(arbiter, "long", "good", 0, loss=1.0)
    assert not arbiter.report("long", "good", 0, metrics(EVERY, 99.0), BUDGET)
    assert arbiter.stopped == set()


def test_the_median_rule_stops_what_is_worse_than_half_of_the_others() -> None:
    arbiter = Arbiter(Median(kind="median", min_seeds=1, min_trials=3), seeds=1)
    for index, loss in enumerate((0.1, 0.2, 0.3)):
        assert run_whole(arbiter, "long", f"good {index}", 0, loss) == BUDGET
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) < BUDGET


def test_without_a_rule_nothing_is_ever_stopped() -> None:
    arbiter = Arbiter(NoStopping(), seeds=1)
    run_whole(arbiter, "long", "good", 0, loss=0.1)
    assert run_whole(arbiter, "long", "poor", 0, loss=9.0) == BUDGET


def test_accuracy_as_the_metric_is_better_when_higher() -> None:
    arbiter = Arbiter(asha(metric="accuracy"), seeds=1)
    run_whole(arbiter, "long", "good", 0, loss=0.1)
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) < BUDGET


def test_the_median_rule_bears_several_budgets_that_come_due_at_once() -> None:
    arbiter = Arbiter(Median(kind="median", min_seeds=1, min_trials=1), seeds=2)
    for seed in (0, 1):
        run_whole(arbiter, "long", "good", seed, loss=0.1)
    for examples in range(EVERY, 801, EVERY):
        arbiter.report("long", "poor", 0, metrics(examples, 2.0), BUDGET)
    assert "poor" in arbiter.stopped
    arbiter.finished("long", "poor", 0)
    slow = Arbiter(Median(kind="median", min_seeds=2, min_trials=1), seeds=2)
    for seed in (0, 1):
        run_whole(slow, "long", "good", seed, loss=0.1)
    for examples in range(EVERY, 801, EVERY):
        slow.report("long", "poor", 0, metrics(examples, 2.0), BUDGET)
    slow.report("long", "poor", 1, metrics(EVERY, 2.0), BUDGET)
    slow.finished("long", "poor", 1)
    assert "poor" in slow.stopped
