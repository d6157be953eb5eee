"""The laws of early stopping: within an arm and a setting, by trials and not by seeds, and never the best."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from studies import TEXT, load

from showhow.fingerprint import Json
from showhow.sections.stopping import Asha, Median, NoStopping
from showhow.sweep.arbiter import Arbiter
from showhow.sweep.replay import replay
from showhow.tracking.tracker import Event, Reported, RunStarted

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


@dataclass(frozen=True)
class Run:
    """A run as the arbiter sees it."""

    arm: str
    trial: str
    seed: int
    unit: str = "examples"
    budget: float = BUDGET
    setting: dict[str, Json] = field(default_factory=dict)


def run_whole(arbiter: Arbiter, run: Run, loss: float) -> int:
    """Report a run of constant loss until it is stopped or its budget is spent; return the examples it used."""
    for examples in range(EVERY, BUDGET + 1, EVERY):
        if arbiter.report(run, metrics(examples, loss)):
            return examples
    arbiter.finished(run)
    return BUDGET


def asha(**changes: object) -> Asha:
    return Asha.model_validate({"kind": "asha", "min_trials": 1, **changes})


def reach_goal(arbiter: Arbiter, trial: str, seed: int, after: int, loss: float = 0.01) -> None:
    """Report a run of level long that reaches its goal after some examples; it must not be stopped."""
    for examples in range(EVERY, after + 1, EVERY):
        assert not arbiter.report(Run("long", trial, seed), metrics(examples, loss))
    arbiter.finished(Run("long", trial, seed))


def test_a_worse_trial_of_the_same_level_is_stopped() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    assert run_whole(arbiter, Run("long", "good", 0), 0.1) == BUDGET
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) < BUDGET
    assert arbiter.stopped == {"poor"}


def test_trials_of_other_levels_never_matter() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    run_whole(arbiter, Run("none", "leads early", 0), 0.01)
    assert run_whole(arbiter, Run("long", "clicks late", 0), 3.0) == BUDGET
    assert arbiter.stopped == set()


def test_within_settings_a_small_model_is_never_judged_by_a_large_one() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    sizes = (64, 32)  # the large models come first and lead by far
    for hidden_size in sizes:
        for batch_size in (8, 16, 32):
            trial = f"{hidden_size} {batch_size}"
            run = Run("long", trial, 0, setting={"model.hidden_size": hidden_size})
            run_whole(arbiter, run, loss=batch_size / hidden_size**2)
    assert arbiter.stopped == {f"{size} {batch_size}" for size in sizes for batch_size in (16, 32)}


def test_a_journal_is_judged_by_the_arms_and_settings_that_its_runs_started_with(tmp_path: Path) -> None:
    study = load(tmp_path, TEXT, "stop.min_trials=1")
    events: list[Event] = []
    for index, (arm, layers) in enumerate([("a", 1), ("a", 2), ("b", 1), ("a", 1)]):
        key, trial = f"trial-{index}/seed-0", f"trial-{index}"
        events.append(
            RunStarted(key, trial, 0, arm, {}, {}, 1, 0.0, setting={"model.layers": layers}, budget=float(BUDGET))
        )
        reached = range(EVERY, BUDGET + 1, EVERY)
        events += [Reported(key, examples, metrics(examples, 1.0 + index), 0.0) for examples in reached]
    assert replay(study, events).arbiter.stopped == {"trial-3"}


def test_nothing_is_decided_before_min_seeds_have_come_as_far() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=3)
    for seed in (0, 1):
        run_whole(arbiter, Run("long", "good", seed), 0.1)
    assert run_whole(arbiter, Run("long", "unlucky seed", 0), 2.0) == BUDGET
    assert run_whole(arbiter, Run("long", "unlucky seed", 1), 2.0) < BUDGET


def test_one_late_seed_does_not_stop_a_trial_that_is_good_on_average() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=2)
    for seed in (0, 1):
        run_whole(arbiter, Run("long", "middling", seed), 1.0)
    assert run_whole(arbiter, Run("long", "good", 0), 1.5) == BUDGET
    assert run_whole(arbiter, Run("long", "good", 1), 0.1) == BUDGET


def test_a_run_that_found_no_room_is_no_rival() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    for examples in range(EVERY, BUDGET, EVERY):
        arbiter.report(Run("long", "too large", 0), metrics(examples, 0.01))
    arbiter.forget(Run("long", "too large", 0))
    arbiter.forget(Run("long", "never begun", 0))
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) == BUDGET


def test_with_one_seed_in_the_study_one_seed_decides() -> None:
    arbiter = Arbiter(asha(min_seeds=2), seeds=1)
    run_whole(arbiter, Run("long", "good", 0), 0.1)
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) < BUDGET


def test_a_run_that_reached_its_goal_early_still_counts_at_later_rungs() -> None:
    arbiter = Arbiter(asha(grace=0.5), seeds=1)
    arbiter.report(Run("long", "solved at once", 0), metrics(EVERY, 0.01))
    arbiter.finished(Run("long", "solved at once", 0))
    assert run_whole(arbiter, Run("long", "slow", 0), 1.0) == BUDGET // 2


@given(losses=st.lists(st.floats(0.001, 10), min_size=1, max_size=12, unique=True))
def test_the_best_of_runs_in_any_order_is_never_stopped(losses: list[float]) -> None:
    arbiter = Arbiter(asha(), seeds=1)
    for loss in losses:
        run_whole(arbiter, Run("long", str(loss), 0), loss)
    assert str(min(losses)) not in arbiter.stopped


@given(
    losses=st.lists(st.floats(0.001, 10), min_size=1, max_size=8),
    unit=st.sampled_from([("tokens", 10), ("flops", 1e6)]),
)
def test_the_decisions_do_not_depend_on_the_unit_when_units_are_proportional(
    losses: list[float], unit: tuple[str, float]
) -> None:
    by_examples, by_unit = Arbiter(asha(), seeds=1), Arbiter(asha(), seeds=1)
    name, an_example = unit
    for index, loss in enumerate(losses):
        run_whole(by_examples, Run("long", str(index), 0), loss)
        run_whole(by_unit, Run("long", str(index), 0, name, BUDGET * an_example), loss)
    assert by_examples.stopped == by_unit.stopped


def test_a_stopped_trial_stays_stopped_for_all_its_seeds() -> None:
    arbiter = Arbiter(asha(), seeds=2)
    run_whole(arbiter, Run("long", "good", 0), 0.1)
    run_whole(arbiter, Run("long", "poor", 0), 2.0)
    assert run_whole(arbiter, Run("long", "poor", 1), 0.001) == EVERY


def test_reports_repeated_after_a_restart_change_nothing() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    run_whole(arbiter, Run("long", "good", 0), 1.0)
    assert not arbiter.report(Run("long", "good", 0), metrics(EVERY, 99.0))
    assert arbiter.stopped == set()


def test_the_median_rule_stops_what_is_worse_than_half_of_the_others() -> None:
    arbiter = Arbiter(Median(kind="median", min_seeds=1, min_trials=3), seeds=1)
    for index, loss in enumerate((0.1, 0.2, 0.3)):
        assert run_whole(arbiter, Run("long", f"good {index}", 0), loss) == BUDGET
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) < BUDGET


def test_without_a_rule_nothing_is_ever_stopped() -> None:
    arbiter = Arbiter(NoStopping(), seeds=1)
    run_whole(arbiter, Run("long", "good", 0), 0.1)
    assert run_whole(arbiter, Run("long", "poor", 0), 9.0) == BUDGET


def test_accuracy_as_the_metric_is_better_when_higher() -> None:
    arbiter = Arbiter(asha(metric="accuracy"), seeds=1)
    run_whole(arbiter, Run("long", "good", 0), 0.1)
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) < BUDGET


def test_the_median_rule_bears_several_budgets_that_come_due_at_once() -> None:
    arbiter = Arbiter(Median(kind="median", min_seeds=1, min_trials=1), seeds=2)
    for seed in (0, 1):
        run_whole(arbiter, Run("long", "good", seed), 0.1)
    for examples in range(EVERY, 801, EVERY):
        arbiter.report(Run("long", "poor", 0), metrics(examples, 2.0))
    assert "poor" in arbiter.stopped
    arbiter.finished(Run("long", "poor", 0))
    slow = Arbiter(Median(kind="median", min_seeds=2, min_trials=1), seeds=2)
    for seed in (0, 1):
        run_whole(slow, Run("long", "good", seed), 0.1)
    for examples in range(EVERY, 801, EVERY):
        slow.report(Run("long", "poor", 0), metrics(examples, 2.0))
    slow.report(Run("long", "poor", 1), metrics(EVERY, 2.0))
    slow.finished(Run("long", "poor", 1))
    assert "poor" in slow.stopped


def test_nothing_is_decided_within_a_seed_before_min_trials_others_have_come_as_far() -> None:
    arbiter = Arbiter(asha(min_trials=2), seeds=1)
    run_whole(arbiter, Run("long", "good", 0), 0.1)
    assert run_whole(arbiter, Run("long", "poor", 0), 2.0) == BUDGET
    assert run_whole(arbiter, Run("long", "poor too", 0), 2.0) < BUDGET


def test_a_trial_begins_its_next_seed_only_while_it_is_among_the_best() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=2), seeds=2)
    for loss in range(1, 7):
        assert run_whole(arbiter, Run("long", str(loss), 0), loss) == BUDGET
    used = {str(loss): run_whole(arbiter, Run("long", str(loss), 1), loss) for loss in range(1, 7)}
    assert {trial for trial, examples in used.items() if examples == BUDGET} == {"1", "2", "3"}
    assert {used[trial] for trial in ("4", "5", "6")} == {EVERY}


def test_two_trials_of_a_level_get_all_their_seeds_however_strict_the_rule() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=3)
    for seed in range(3):
        for loss in range(1, 7):
            run_whole(arbiter, Run("long", str(loss), seed), loss)
    assert arbiter.stopped == {"3", "4", "5", "6"}


def test_between_seeds_a_trial_that_reached_its_goal_comes_first_and_the_sooner_the_better() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=2)
    run_whole(arbiter, Run("long", "never, though its loss is low", 0), 0.001)
    for trial, after in (("late", 800), ("soon", 300), ("later", 900)):
        reach_goal(arbiter, trial, 0, after, loss=0.1)
    assert {
        trial
        for trial in ("never, though its loss is low", "later")
        if arbiter.report(Run("long", trial, 1), metrics(EVERY, 0.001))
    } == {"never, though its loss is low", "later"}
    reach_goal(arbiter, "soon", 1, 300)
    reach_goal(arbiter, "late", 1, 800)


def test_a_run_that_reached_its_goal_is_not_passed_by_lower_losses_of_longer_runs() -> None:
    arbiter = Arbiter(asha(grace=0.5), seeds=1)
    run_whole(arbiter, Run("long", "slow and thorough", 0), 0.001)
    reach_goal(arbiter, "solved at once", 0, after=200, loss=0.05)
    assert arbiter.stopped == set()


def test_seeds_that_run_side_by_side_are_judged_as_they_end() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=3)
    for loss in (1, 2):
        for seed in range(3):
            run_whole(arbiter, Run("long", str(loss), seed), loss)
    for examples in range(EVERY, BUDGET + 1, EVERY):
        for seed in (0, 1):
            assert not arbiter.report(Run("long", "3", seed), metrics(examples, 3.0))
    arbiter.finished(Run("long", "3", 1))
    assert arbiter.report(Run("long", "3", 2), metrics(EVERY, 3.0))


@given(
    losses=st.lists(st.lists(st.floats(0.001, 10), min_size=3, max_size=3), min_size=2, max_size=8),
    order=st.integers(0, 10_000),
    rule=st.sampled_from(
        [asha(), asha(min_trials=2), asha(min_seeds=2), Median(kind="median"), Median(kind="median", min_trials=1)]
    ),
)
def test_every_level_keeps_a_trial_with_all_its_seeds(losses: list[list[float]], order: int, rule: Asha) -> None:
    arbiter = Arbiter(rule, seeds=3)
    trials = list(range(len(losses)))
    whole: dict[int, int] = dict.fromkeys(trials, 0)
    for seed in range(3):
        random.Random(f"{order} {seed}").shuffle(trials)
        for trial in trials:
            if str(trial) not in arbiter.stopped:
                whole[trial] += run_whole(arbiter, Run("long", str(trial), seed), losses[trial][seed]) == BUDGET
    assert 3 in whole.values()


def test_what_a_method_spends_before_training_shortens_no_curve_that_reached_its_goal() -> None:
    arbiter = Arbiter(asha(grace=0.8), seeds=1)
    solved = Run("long", "solved after a costly stage", 0, "tokens")
    for tokens in (500, 550, 600):
        arbiter.report(solved, {**metrics(tokens, 0.01), "tokens": float(tokens)})
    arbiter.finished(solved)
    slow = Run("long", "slow", 0, "tokens")
    decisions = [
        arbiter.report(slow, {**metrics(tokens, 1.0), "tokens": float(tokens)})
        for tokens in range(EVERY, BUDGET, EVERY)
    ]
    assert decisions == [False] * 7 + [True] * 2
