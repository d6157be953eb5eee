"""Laws of the comparison: what is counted, which trial speaks for a level, and when a difference may be claimed."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from showhow.errors import UserError
from showhow.evidence.claims.accuracy import (
    closed_learned,
    holm,
    learned_equally_often,
    seeds_for_difference,
    seeds_for_shares,
)
from showhow.evidence.claims.speed import Times, rank_test, seeds_for_order, share_earlier
from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import StudyResult
from showhow.evidence.settings import settings_in_words, values_in_words
from showhow.sections.arm import Arm

CHANCE, BASELINE = 0.10, 0.11
LEVELS = ("none", "short", "medium", "long", "shuffled", "filler")


def graded(
    level: str, seed: int, right: int, questions: int = 100, trial: str = "a", until: int | None = None
) -> RunOutcome:
    """A run that may be compared: the first `right` questions answered right."""
    return RunOutcome(
        arm=level,
        level=level,
        trial=trial,
        seed=seed,
        params={"learning_rate": 1e-3},
        status="finished",
        selection=right / questions,
        grades=tuple(place < right for place in range(questions)),
        examples=until or 1000,
        budget=1000,
        examples_until_solved=until,
    )


def study(rights: dict[str, Sequence[int]], questions: int = 100) -> list[RunOutcome]:
    """Runs with the given numbers of right answers, by level and seed."""
    return [
        graded(level, seed, right, questions, until=500 + seed if right >= 0.95 * questions else None)
        for level, by_seed in rights.items()
        for seed, right in enumerate(by_seed)
    ]


def answer(outcomes: Sequence[RunOutcome]) -> StudyResult:
    return compare(outcomes, CHANCE, BASELINE)


def claims(result: StudyResult) -> list[tuple[str, str]]:
    return [(found.first, found.second) for found in result.comparisons if found.verdict in ("better", "worse")]


outcomes_of_studies = st.dictionaries(
    st.sampled_from(LEVELS), st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=4
).map(lambda rights: study(rights, questions=40))


@settings(max_examples=15, deadline=None)
@given(outcomes_of_studies, st.randoms(use_true_random=False))
def test_the_order_of_the_outcomes_changes_nothing(outcomes: list[RunOutcome], rng: random.Random) -> None:
    shuffled = rng.sample(outcomes, len(outcomes))
    assert answer(shuffled) == answer(outcomes)


@settings(max_examples=15, deadline=None)
@given(outcomes_of_studies)
def test_intervals_contain_the_mean_and_are_shares(outcomes: list[RunOutcome]) -> None:
    for row in answer(outcomes).compared:
        assert row.accuracy is not None
        assert row.accuracy.low is not None
        assert row.accuracy.high is not None
        assert 0 <= row.accuracy.low <= row.accuracy.mean <= row.accuracy.high <= 1


@settings(max_examples=15, deadline=None)
@given(outcomes_of_studies)
def test_a_result_survives_json(outcomes: list[RunOutcome]) -> None:
    result = answer(outcomes)
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_identical_outcomes_are_never_a_difference(rights: list[int]) -> None:
    result = answer(study({"none": rights, "long": rights, "filler": rights}, questions=40))
    assert claims(result) == []


def test_levels_stand_in_their_order_and_unknown_ones_last() -> None:
    result = answer(study({"zeta": [5], "filler": [5], "long": [5], "none": [5], "alpha": [5]}))
    assert [row.arm for row in result.rows] == ["none", "long", "filler", "alpha", "zeta"]
    assert [row.is_control for row in result.rows] == [False, False, True, False, False]


def test_a_level_has_the_same_interval_whatever_stands_beside_it() -> None:
    alone = answer(study({"short": [10, 100, 97]}))
    beside = answer(study({"none": [10, 9, 12], "short": [10, 100, 97], "long": [100, 100, 100]}))
    assert alone.row("short").accuracy == beside.row("short").accuracy


def test_the_best_trial_is_chosen_by_validation_not_by_test() -> None:
    good_on_test = [replace(graded("long", seed, 100, trial="a"), selection=0.5) for seed in range(3)]
    good_on_validation = [replace(graded("long", seed, 60, trial="b"), selection=0.6) for seed in range(3)]
    assert answer(good_on_test + good_on_validation).row("long").trial == "b"


def test_ties_go_to_the_trial_that_solved_it_after_fewer_examples_then_to_the_first_name() -> None:
    slow = [graded("long", seed, 100, trial="a", until=900) for seed in range(3)]
    fast = [graded("long", seed, 100, trial="b", until=400) for seed in range(3)]
    late = [graded("long", seed, 100, trial="c", until=400) for seed in range(3)]
    assert answer(late + slow + fast).row("long").trial == "b"


def test_a_stopped_trial_never_speaks_for_a_level() -> None:
    stopped = replace(graded("long", 0, 100), grades=None, status="stopped", stopped_by="median")
    row = answer([stopped, graded("long", 1, 100), graded("none", 0, 10)]).row("long")
    assert (row.trial, row.accuracy, row.solved, row.runs, row.stopped) == (None, None, None, 2, 1)


def test_a_trial_on_fewer_seeds_does_not_outrank_a_full_one() -> None:
    lucky = [graded("long", 0, 100, trial="lucky")]
    full = [graded("long", seed, 60, trial="full") for seed in range(3)]
    assert answer(lucky + full).row("long").trial == "full"


def test_failed_seeds_are_stated_and_a_complete_trial_goes_first() -> None:
    failed = replace(graded("long", 0, 0, trial="b"), grades=None, status="failed", reason="loss is not a number")
    partly = [failed, graded("long", 1, 100, trial="b"), graded("long", 2, 100, trial="b")]
    row = answer(partly).row("long")
    assert (row.trial, row.failed_seeds, row.failed, row.seeds) == ("b", (0,), 1, (1, 2))
    assert row.failure == "loss is not a number"
    complete = [graded("long", seed, 50, trial="a") for seed in range(3)]
    assert answer(partly + complete).row("long").trial == "a"


def test_survivors_of_failed_seeds_may_lose_a_comparison_and_never_win_one() -> None:
    runs = study({"none": [10] * 5, "medium": [100] * 5, "long": [100] * 5})
    result = answer(
        [replace(run, grades=None, status="failed") if run.seed == 0 else run for run in runs[5:]] + runs[:5]
    )
    assert result.verdict("long", "none") == "unclear"
    lost = answer([replace(run, grades=None, status="failed") if run is runs[0] else run for run in runs])
    assert lost.verdict("none", "long") == "worse"


def test_at_chance_means_no_run_learned_and_guessing_explains_the_accuracy() -> None:
    result = answer(study({"none": [10, 12, 9], "short": [10, 100, 100], "medium": [30, 31, 32]}))
    assert [row.at_chance for row in result.rows] == [True, False, False]


def at(layers: int, runs: Sequence[RunOutcome]) -> list[RunOutcome]:
    return [replace(run, trial=f"layers-{layers}", setting={"model.layers": layers}) for run in runs]


TWO_SIZES = Design(settings=({"model.layers": 1}, {"model.layers": 2}))


def test_arms_are_compared_within_each_setting_as_if_the_study_had_no_other() -> None:
    small = at(1, study({"none": [10, 9, 12, 11], "medium": [100] * 4, "long": [10, 100, 97, 98]}))
    large = at(2, study({"none": [10, 10, 12, 9], "medium": [100] * 4, "long": [100, 100, 97, 99]}))
    both = compare(large + small, CHANCE, BASELINE, design=TWO_SIZES)
    for setting, runs in zip(TWO_SIZES.settings, (small, large), strict=True):
        part, alone = both.within(setting), answer(runs)
        assert (part.rows, part.comparisons, part.speed) == (alone.rows, alone.comparisons, alone.speed)
        assert part.recommendations == alone.recommendations
    assert [(row.setting["model.layers"], row.arm) for row in both.rows] == [
        (layers, level) for layers in (1, 2) for level in ("none", "medium", "long")
    ]
    assert all(found.setting for found in both.comparisons)


def test_nothing_is_said_over_several_settings_at_once() -> None:
    runs = at(1, study({"none": [10] * 3, "long": [50] * 3})) + at(2, study({"none": [10] * 3, "long": [100] * 3}))
    both = compare(runs, CHANCE, BASELINE, design=TWO_SIZES)
    assert both.recommend is None
    assert [(one.setting["model.layers"], one.arm) for one in both.recommendations] == [(1, "long"), (2, "long")]
    with pytest.raises(KeyError):
        both.row("long")
    assert both.row("long", {"model.layers": 2}).solved == 3
    assert both.verdict("long", "none", {"model.layers": 2}) == "better"


def test_a_setting_of_which_nothing_has_started_has_no_row_and_no_sentence() -> None:
    result = compare(at(1, study({"long": [100] * 3})), CHANCE, BASELINE, design=TWO_SIZES)
    assert [row.setting for row in result.rows] == [{"model.layers": 1}]
    assert result.settings == TWO_SIZES.settings
    assert result.conclusion[0].startswith("Layers 1: with long")
    assert not any("Layers 2" in sentence for sentence in result.conclusion)


def test_settings_may_have_other_numbers_of_questions_and_the_runs_of_one_may_not() -> None:
    small, large = at(1, study({"long": [4, 5]}, questions=40)), at(2, study({"long": [90, 91]}))
    assert [row.questions for row in compare(small + large, CHANCE, BASELINE, design=TWO_SIZES).rows] == [40, 100]
    with pytest.raises(UserError, match="40 and 100 test questions"):
        compare(small + at(1, study({"none": [9, 9]})), CHANCE, BASELINE, design=TWO_SIZES)


METHODS = Design(
    by=("method",),
    arms=tuple(
        Arm(name=name, values={"method": name}, is_control=name == "random") for name in ("random", "plain", "mixup")
    ),
    unit="flops",
    shows_spending=True,
)


def test_arms_stand_in_the_order_of_the_study_and_it_says_which_are_controls() -> None:
    result = compare(study({"mixup": [90], "random": [9], "plain": [80]}), CHANCE, BASELINE, design=METHODS)
    assert [(row.arm, row.is_control) for row in result.rows] == [("random", True), ("plain", False), ("mixup", False)]
    assert [row.values for row in result.rows] == [{"method": name} for name in ("random", "plain", "mixup")]
    assert (result.by, result.unit) == (("method",), "flops")


def test_an_arm_that_the_study_does_not_name_is_a_control_where_its_runs_say_so() -> None:
    runs = [replace(run, is_control=True) for run in study({"other": [10]})]
    assert compare(runs, CHANCE, BASELINE, design=METHODS).row("other").is_control


def test_a_row_says_what_a_run_spent_in_each_unit() -> None:
    runs = [replace(graded("plain", seed, 90), tokens=100.0 + seed, flops=1e9 * seed) for seed in (1, 2, 3)]
    row = compare(runs, CHANCE, BASELINE, design=METHODS).row("plain")
    assert (row.examples, row.tokens, row.flops) == ((1000, 1000, 1000), 102.0, 2e9)
    assert compare([replace(run, examples=None, tokens=None) for run in runs], CHANCE, None).rows[0].examples == ()


def test_what_was_saved_is_counted_in_the_unit_of_the_study() -> None:
    stopped = replace(graded("plain", 0, 0, trial="b"), grades=None, status="stopped")
    runs = [replace(stopped, unit="flops", budget=8e9, flops=2e9)]
    runs.append(replace(graded("plain", 0, 90), unit="flops", budget=8e9, flops=8e9))
    assert compare(runs, CHANCE, BASELINE, design=METHODS).budget_saved == pytest.approx(6 / 16)


def test_more_arms_than_closed_testing_can_hold_are_still_compared() -> None:
    names = [f"arm-{place:02d}" for place in range(24)]
    runs = study({name: [10] * 3 if place else [100] * 8 for place, name in enumerate(names)})
    result = compare(runs, CHANCE, BASELINE, design=Design(by=("method",), arms=()))
    assert len(result.comparisons) == 24 * 23 // 2


def test_models_are_named_briefly_unless_two_would_be_called_alike() -> None:
    assert values_in_words("model.name", ["google-t5/t5-small", "/models/t5-3b"]) == ["t5-small", "t5-3b"]
    assert values_in_words("model.name", ["a/t5", "b/t5"]) == ["a/t5", "b/t5"]
    assert settings_in_words([{"model.hidden_size": 64, "data.train_examples": 9_000}]) == [
        "hidden size 64, train examples 9,000"
    ]
    assert settings_in_words([]) == []
    assert settings_in_words([{}, {}]) == ["", ""]


def test_further_splits_get_an_interval_over_seeds() -> None:
    runs = [replace(graded("long", seed, 100), splits={"longer": 0.2 + 0.1 * seed}) for seed in range(3)]
    longer = answer(runs).row("long").splits["longer"]
    assert longer.mean == pytest.approx(0.3)
    assert longer.low == pytest.approx(0.2)
    assert longer.high == pytest.approx(0.4)
    assert answer(runs[:1]).row("long").splits["longer"].low is None


def test_stopped_runs_seeds_never_begun_and_goals_save_examples_and_failures_do_not() -> None:
    stopped = replace(graded("long", 0, 0, trial="b"), grades=None, status="stopped", examples=250)
    at_its_goal = replace(graded("long", 0, 100, until=400), reached_goal=True)
    assert answer([stopped, at_its_goal]).budget_saved == pytest.approx((750 + 600) / 2000)
    further = replace(at_its_goal, seed=1)
    assert answer([stopped, at_its_goal, further]).budget_saved == pytest.approx((750 + 1000 + 600 + 600) / 4000)
    failed = replace(stopped, trial="c", status="failed", examples=100)
    assert answer([failed, at_its_goal]).budget_saved == pytest.approx(600 / 2000)


def test_runs_graded_on_different_questions_are_refused() -> None:
    with pytest.raises(UserError, match="40 and 100 test questions"):
        answer([graded("none", 0, 4, questions=40), graded("long", 0, 4)])


def test_two_outcomes_of_one_run_are_refused() -> None:
    with pytest.raises(ValueError, match="two outcomes"):
        answer([graded("none", 0, 4), graded("none", 0, 5)])


def test_three_of_three_beside_none_of_three_is_a_claim() -> None:
    assert claims(answer(study({"none": [10, 9, 12], "long": [100, 99, 100]}))) == [("none", "long")]
    sketch = {"none": [10, 9, 12], "short": [16, 100, 100], "medium": [100, 99, 100], "long": [100, 100, 100]}
    assert claims(answer(study(sketch))) == [("none", "medium"), ("none", "long")]


def test_two_seeds_claim_nothing_however_large_the_difference() -> None:
    result = answer(study({"none": [10, 9], "long": [100, 100]}))
    assert [found.verdict for found in result.comparisons] == ["unclear"]
    assert result.comparisons[0].seeds_needed == 3


def test_a_difference_within_the_margin_is_the_same_however_certain() -> None:
    result = answer(study({"medium": [1940] * 10, "long": [1999] * 10}, questions=2000))
    assert result.verdict("medium", "long") == "same"


def test_a_clear_difference_between_runs_that_all_learned_is_claimed() -> None:
    result = answer(study({"medium": [80, 81, 79], "long": [99, 100, 99]}))
    assert result.verdict("long", "medium") == "better"
    assert result.verdict("medium", "long") == "worse"


def family_of_clicks(shares: Sequence[float], seeds: int) -> float:
    """The chance that the exact test alone claims any difference between levels that learn with the same `shares`."""
    false = 0.0
    for counts in itertools.product(range(seeds + 1), repeat=len(shares)):
        chance = math.prod(
            math.comb(seeds, count) * share**count * (1 - share) ** (seeds - count)
            for count, share in zip(counts, shares, strict=True)
        )
        tested = closed_learned({str(place): (count, seeds) for place, count in enumerate(counts)})
        wrong = any(p < 0.05 and shares[int(a)] == shares[int(b)] for (a, b), p in tested.items())
        false += chance * wrong
    return false


@pytest.mark.parametrize("shares", [(0.5,) * 2, (0.5,) * 4, (0.5, 0.5, 0.5, 1.0), (0.0, 0.5, 0.5, 1.0), (0.3,) * 4])
def test_all_or_nothing_runs_yield_at_most_five_percent_false_claims_per_family(shares: tuple[float, ...]) -> None:
    assert family_of_clicks(shares, seeds=3) <= 0.05


@pytest.mark.parametrize("levels", [2, 4])
def test_equal_levels_are_seldom_called_different(levels: int) -> None:
    """40 families of 3 seeds at the worst case p = 0.5; 7 false claims have a chance below 1% if the rate is 5%."""
    rng = np.random.default_rng(levels)
    false = 0
    for _ in range(40):
        clicked = rng.random((levels, 3)) < 0.5
        rights = rng.binomial(40, np.where(clicked, 0.99, 0.1))
        family = dict(zip(LEVELS, rights.tolist(), strict=False))
        false += bool(claims(answer(study(family, questions=40))))
    assert false <= 6


def test_noisy_equal_levels_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(40):
        rights = rng.binomial(40, np.clip(rng.normal(0.7, 0.05, (4, 3)), 0, 1))
        family = dict(zip(LEVELS, rights.tolist(), strict=False))
        false += bool(claims(answer(study(family, questions=40))))
    assert false <= 6


@pytest.mark.parametrize("counts", [((0, 3), (3, 3)), ((1, 5), (5, 6)), ((2, 10), (9, 10)), ((0, 4), (3, 7))])
def test_the_exact_test_of_two_levels_is_barnards(counts: tuple[tuple[int, int], tuple[int, int]]) -> None:
    table = [[learned for learned, _ in counts], [runs - learned for learned, runs in counts]]  # a level per column
    assert learned_equally_often(counts) == pytest.approx(stats.barnard_exact(table, n=128).pvalue, rel=1e-3)


def test_holm_multiplies_by_the_tests_left_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_fewer_seeds_suffice_for_a_larger_difference() -> None:
    needed = [seeds_for_difference(difference, (0.01, 0.01), pairs=6) for difference in (0.5, 0.2, 0.1, 0.01)]
    assert needed[:3] == sorted(needed[:3], key=lambda seeds: seeds or 0)
    assert needed[3] is None
    assert seeds_for_shares(0.0, 1.0, pairs=1) == 3
    assert seeds_for_shares(0.50, 0.55, pairs=1) is None


def test_censored_runs_come_after_every_run_known_to_be_earlier() -> None:
    never = Times((1000, 1000, 1000, 1000), (False,) * 4)
    early = Times((200, 300, 400, 500), (True,) * 4)
    assert rank_test(early, never) == pytest.approx(2 / 70)
    assert share_earlier(early, never) == 1.0
    gave_up_before = Times((100, 100, 100, 100), (False,) * 4)
    assert rank_test(early, gave_up_before) == 1.0
    assert share_earlier(early, gave_up_before) == 0.5


def test_three_seeds_cannot_tell_speeds_and_six_could() -> None:
    apart = study({"medium": [100] * 3}) + [graded("long", seed, 100, until=100 + seed) for seed in range(3)]
    (found,) = answer(apart).speed
    assert (found.verdict, found.p_value, found.seeds_needed) == ("unclear", 0.1, 6)
    six = study({"medium": [100] * 6}) + [graded("long", seed, 100, until=100 + seed) for seed in range(6)]
    assert answer(six).speed[0].verdict == "slower"
    assert seeds_for_order(0.5, pairs=1) is None
