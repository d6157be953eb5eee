"""The laws of early stopping: within a level, by trials and not by seeds, and never the best."""

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from showhow.sections.stopping import Asha, Median, NoStopping
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter
from showhow.sweep.replay import replay

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
    return Asha.model_validate({"kind": "asha", "min_trials": 1, **changes})


def reach_goal(arbiter: Arbiter, trial: str, seed: int, after: int, loss: float = 0.01) -> None:
    """Report a run of level long that reaches its goal after some examples; it must not be stopped."""
    for examples in range(EVERY, after + 1, EVERY):
        assert not arbiter.report("long", trial, seed, metrics(examples, loss), BUDGET)
    arbiter.finished("long", trial, seed)


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


def test_where_models_are_compared_too_a_small_one_is_never_judged_by_a_large_one(
    tiny_file: Path, tmp_path: Path
) -> None:
    path, grids = tmp_path / "sizes.toml", '"model.layers" = { grid = [1, 2] }\nbatch_size = { grid = [8, 16, 32] }\n'
    text = tiny_file.read_text().replace("\nlayers = 1", "").replace("batch_size = 8\n", "")
    path.write_text(text.replace("[search]\n", f'[stop]\nkind = "asha"\nmin_trials = 1\n\n[search]\n{grids}'))
    study = Study.load(path, ["seeds=[0]"])
    arbiter = replay(study, []).arbiter
    trials = sorted(study.trials, key=lambda trial: (-trial.model.layers, trial.recipe.batch_size))
    for trial in trials:  # the large models come first and lead by far
        loss = 0.01 * trial.recipe.batch_size * (100 if trial.model.layers == 1 else 1)
        run_whole(arbiter, trial.level.value, trial.name, 0, loss)
    kept = {(trial.level, trial.model.layers) for trial in trials if trial.name not in arbiter.stopped}
    assert kept == {(trial.level, trial.model.layers) for trial in trials}
    assert arbiter.stopped == {trial.name for trial in trials if trial.recipe.batch_size > 8}


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


def test_a_run_that_found_no_room_is_no_rival() -> None:
    arbiter = Arbiter(asha(), seeds=1)
    for examples in range(EVERY, BUDGET, EVERY):
        arbiter.report("long", "too large", 0, metrics(examples, 0.01), BUDGET)
    arbiter.forget("long", "too large", 0)
    arbiter.forget("long", "never begun", 0)
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) == BUDGET


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


def test_nothing_is_decided_within_a_seed_before_min_trials_others_have_come_as_far() -> None:
    arbiter = Arbiter(asha(min_trials=2), seeds=1)
    run_whole(arbiter, "long", "good", 0, loss=0.1)
    assert run_whole(arbiter, "long", "poor", 0, loss=2.0) == BUDGET
    assert run_whole(arbiter, "long", "poor too", 0, loss=2.0) < BUDGET


def test_a_trial_begins_its_next_seed_only_while_it_is_among_the_best() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=2), seeds=2)
    for loss in range(1, 7):
        assert run_whole(arbiter, "long", str(loss), 0, loss) == BUDGET
    used = {str(loss): run_whole(arbiter, "long", str(loss), 1, loss) for loss in range(1, 7)}
    assert {trial for trial, examples in used.items() if examples == BUDGET} == {"1", "2", "3"}
    assert {used[trial] for trial in ("4", "5", "6")} == {EVERY}


def test_two_trials_of_a_level_get_all_their_seeds_however_strict_the_rule() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=3)
    for seed in range(3):
        for loss in range(1, 7):
            run_whole(arbiter, "long", str(loss), seed, loss)
    assert arbiter.stopped == {"3", "4", "5", "6"}


def test_between_seeds_a_trial_that_reached_its_goal_comes_first_and_the_sooner_the_better() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=2)
    run_whole(arbiter, "long", "never, though its loss is low", 0, loss=0.001)
    for trial, after in (("late", 800), ("soon", 300), ("later", 900)):
        reach_goal(arbiter, trial, 0, after, loss=0.1)
    assert {
        trial
        for trial in ("never, though its loss is low", "later")
        if arbiter.report("long", trial, 1, metrics(EVERY, 0.001), BUDGET)
    } == {"never, though its loss is low", "later"}
    reach_goal(arbiter, "soon", 1, 300)
    reach_goal(arbiter, "late", 1, 800)


def test_a_run_that_reached_its_goal_is_not_passed_by_lower_losses_of_longer_runs() -> None:
    arbiter = Arbiter(asha(grace=0.5), seeds=1)
    run_whole(arbiter, "long", "slow and thorough", 0, loss=0.001)
    reach_goal(arbiter, "solved at once", 0, after=200, loss=0.05)
    assert arbiter.stopped == set()


def test_seeds_that_run_side_by_side_are_judged_as_they_end() -> None:
    arbiter = Arbiter(asha(grace=0.9, min_trials=9, reduction_factor=100), seeds=3)
    for loss in (1, 2):
        for seed in range(3):
            run_whole(arbiter, "long", str(loss), seed, loss)
    for examples in range(EVERY, BUDGET + 1, EVERY):
        for seed in (0, 1):
            assert not arbiter.report("long", "3", seed, metrics(examples, 3.0), BUDGET)
    arbiter.finished("long", "3", 1)
    assert arbiter.report("long", "3", 2, metrics(EVERY, 3.0), BUDGET)


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
                whole[trial] += run_whole(arbiter, "long", str(trial), seed, losses[trial][seed]) == BUDGET
    assert 3 in whole.values()
