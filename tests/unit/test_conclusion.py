"""Laws of the conclusion: it says what the seeds did, claims what the verdicts support, and owns up to the rest."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from showhow.evidence.compare import compare
from showhow.evidence.design import Design
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import StudyResult
from showhow.sections.arm import Arm

TOKENS = {"none": 1.0, "short": 16.0, "medium": 31.0, "long": 47.0, "shuffled": 31.0, "filler": 31.0}


def study(rights: dict[str, Sequence[int]], questions: int = 100) -> list[RunOutcome]:
    """Runs with the given numbers of right answers, by level and seed; a later seed solved the task later."""
    return [
        RunOutcome(
            arm=level,
            level=level,
            trial="a",
            seed=seed,
            params={"learning_rate": 1.2e-3},
            status="finished",
            selection=right / questions,
            grades=tuple(place < right for place in range(questions)),
            tokens_per_reply=TOKENS.get(level, 31.0),
            examples=100 + seed if right >= 95 else 1000,
            budget=1000,
            examples_until_solved=100 + seed if right >= 95 else None,
        )
        for level, by_seed in rights.items()
        for seed, right in enumerate(by_seed)
    ]


def ended(outcomes: list[RunOutcome], status: str, reason: str | None = None) -> list[RunOutcome]:
    """The same runs without grades, ended by `status`."""
    return [replace(run, status=status, grades=None, examples_until_solved=None, reason=reason) for run in outcomes]


def answer(outcomes: Sequence[RunOutcome]) -> StudyResult:
    return compare(outcomes, chance=0.10, baseline=0.11)


def said(outcomes: Sequence[RunOutcome]) -> str:
    return " ".join(answer(outcomes).conclusion)


SKETCH = {"none": [10, 9, 12], "short": [16, 100, 100], "medium": [100, 99, 100], "long": [100, 100, 100]}


def test_the_sketch_of_the_design_is_concluded_as_sketched() -> None:
    result = answer(study(SKETCH))
    assert result.conclusion[:2] == (
        "With medium or long explanations the model learns the task with every seed; "
        "with none it does no better than guessing; with short it depends on the seed (2 of 3 solve the task).",
        "Medium is the cheapest explanation that is as good as the best.",
    )
    assert result.conclusion[2].startswith("Three seeds cannot tell medium from short")
    assert "nor from long in speed" in result.conclusion[2]
    assert result.recommend is not None
    assert (result.recommend.arm, result.recommend.params) == ("medium", {"learning_rate": 1.2e-3})


def test_what_three_seeds_cannot_tell_comes_with_the_seeds_that_would() -> None:
    apart = study({"medium": [100] * 3}) + [
        replace(run, examples_until_solved=50 + run.seed) for run in study({"long": [100] * 3})
    ]
    assert "Three seeds cannot tell medium from long (six would) in speed." in answer(apart).conclusion


def test_levels_that_do_equally_well_are_no_difference_and_the_cheapest_is_recommended() -> None:
    result = answer(study({"none": [100] * 3, "medium": [100] * 3, "long": [100, 99, 100]}))
    assert (
        "No difference: none, medium and long do equally well, within 0.05; none is the cheapest." in result.conclusion
    )
    assert result.recommend is not None
    assert result.recommend.arm == "none"


def test_no_explanation_is_needed_where_none_is_as_good_as_the_best() -> None:
    result = answer(study({"none": [100] * 5, "short": [10] * 5, "long": [100] * 5}))
    assert "No explanation is needed: none does as well as the best." in result.conclusion


def test_a_single_best_level_is_recommended_only_where_it_beats_every_other() -> None:
    beats_all = answer(study({"none": [10] * 5, "short": [10] * 5, "long": [100] * 5}))
    assert "Long does better than none and short." in beats_all.conclusion
    assert beats_all.recommend is not None
    beats_one = answer(study({"none": [10] * 5, "short": [10, 100, 100, 100, 100], "long": [100] * 5}))
    assert "Long does better than none." in beats_one.conclusion
    assert "cannot tell long from short" in beats_one.conclusion[-1]
    assert beats_one.recommend is None


@pytest.mark.parametrize(("seeds", "word"), [(1, "One seed"), (2, "Two seeds")])
def test_fewer_than_three_seeds_recommend_nothing(seeds: int, word: str) -> None:
    result = answer(study({"none": [10] * seeds, "long": [100] * seeds}))
    assert f"{word} cannot tell levels apart: at least three can." in result.conclusion
    assert result.recommend is None


def test_three_seeds_that_disagree_are_too_few() -> None:
    result = answer(study({"none": [10, 10, 100], "medium": [10, 100, 100], "long": [100, 10, 100]}))
    assert result.conclusion[-1].startswith("Three seeds cannot tell the levels apart; ")
    assert result.recommend is None


def test_nothing_learned_is_said_and_nothing_recommended() -> None:
    result = answer(study({"none": [10, 9, 11], "long": [10, 12, 8]}))
    assert result.conclusion == ("Nothing learned the task: with none or long the model does no better than guessing.",)
    assert result.recommend is None


def test_a_control_that_does_as_well_takes_the_credit_from_the_explanation() -> None:
    result = answer(study({"none": [10] * 4, "medium": [100] * 4, "filler": [100] * 4}))
    expected = "The filler control does as well as medium, so it is the tokens and not the explanation that help."
    assert expected in result.conclusion
    without_none = said(study({"medium": [100] * 4, "filler": [100] * 4}))
    assert "so nothing here shows that explaining helps" in without_none


def test_an_explanation_that_beats_every_control_gets_the_credit() -> None:
    result = answer(study({"none": [10] * 3, "filler": [10] * 3, "shuffled": [11] * 3, "long": [100] * 3}))
    expected = (
        "Long does better than the shuffled control and the filler control, "
        "so it is the explanation that helps, and not merely its tokens."
    )
    assert expected in result.conclusion


def test_a_control_is_never_recommended() -> None:
    cheap_control = [
        replace(run, tokens_per_reply=0.5) if run.arm == "filler" else run
        for run in study({"medium": [100] * 4, "long": [100] * 4, "filler": [100] * 4})
    ]
    recommend = answer(cheap_control).recommend
    assert recommend is not None
    assert recommend.arm == "medium"
    assert answer(study({"filler": [100] * 4, "shuffled": [10] * 4})).recommend is None


def test_a_single_level_is_compared_with_nothing() -> None:
    result = answer(study({"short": [100, 100, 10]}))
    assert result.conclusion == (
        "With short explanations the outcome depends on the seed (2 of 3 solve the task).",
        "There is only one level, so nothing can be said about others.",
    )
    assert result.recommend is None


def test_interrupted_levels_are_left_out_by_name() -> None:
    result = answer(study({"none": [10] * 3, "medium": [100] * 3}) + ended(study({"long": [100] * 3}), "interrupted"))
    assert "Left out for want of a complete trial: long (every run was interrupted)." in result.conclusion


def test_survivors_of_failed_seeds_do_not_lead() -> None:
    survivors = study({"long": [100] * 4})
    outcomes = study({"none": [10] * 4, "medium": [98] * 4}) + ended(survivors[:1], "failed") + survivors[1:]
    result = answer(outcomes)
    assert "with long it depends on the seed (3 of 4 solve the task)" in result.conclusion[0]
    assert "Long is shown without seed 0, which failed." in result.conclusion


def test_nothing_to_compare_is_said_with_the_reason() -> None:
    assert said([]) == "No run has ended yet: there is nothing to compare."
    failed = ended(study({"none": [10] * 3}), "failed", reason="out of memory")
    assert said(failed) == "Every run failed (out of memory): there is nothing to compare."
    stopped = ended(study({"none": [10] * 3}), "stopped")
    assert "there is nothing to compare yet" in said(stopped)


def test_every_sentence_is_a_sentence() -> None:
    for rights in (SKETCH, {"none": [50, 52, 51], "long": [64, 66, 65], "shuffled": [50, 49, 51]}, {"long": [100]}):
        for sentence in answer(study(rights)).conclusion:
            assert sentence[0].isupper()
            assert sentence.endswith(".")
            assert "  " not in sentence


def by(axes: tuple[str, ...], names: Sequence[str], controls: Sequence[str] = ()) -> Design:
    """A design whose arms are named by the values of the axes."""
    arms = [
        Arm(name=name, values=dict(zip(axes, name.split(", "), strict=True)), is_control=name in controls)
        for name in names
    ]
    return Design(by=axes, arms=tuple(arms))


def concluded(rights: dict[str, Sequence[int]], design: Design, flops: dict[str, float] | None = None) -> StudyResult:
    runs = [replace(run, flops=(flops or {}).get(run.arm, 1e9)) for run in study(rights)]
    return compare(runs, 0.10, 0.11, design=design)


def test_methods_are_called_methods() -> None:
    design = by(("method",), ("plain", "mixup", "random"), controls=["random"])
    result = concluded({"plain": [100] * 4, "mixup": [100] * 4, "random": [10] * 4}, design, {"mixup": 2e9})
    assert result.conclusion[:3] == (
        "With plain or mixup the model learns the task with every seed; with the random control it does no better than "
        "guessing.",
        "Plain does better than the random control.",
        "No difference: plain and mixup do equally well, within 0.05; plain is the cheapest.",
    )
    assert result.recommend is not None
    assert result.recommend.arm == "plain"
    three = by(("method",), ("plain", "mixup", "steps"))
    equal = {"plain": [100] * 4, "mixup": [100] * 4, "steps": [60] * 4}
    text = " ".join(concluded(equal, three, {"mixup": 2e9}).conclusion)
    assert "Plain is the cheapest method that is as good as the best." in text
    assert "explanation" not in text
    assert "Plain and mixup do equally well, and none does better." in concluded(equal, three).conclusion
    apart = concluded({"plain": [60, 70, 80], "mixup": [70, 80, 90], "steps": [50, 70, 90]}, three).conclusion
    assert "Three seeds cannot tell the methods apart" in apart[1]


def test_a_control_of_a_method_that_does_as_well_takes_its_credit() -> None:
    design = by(("method",), ("plain", "mixup", "random"), controls=["random"])
    result = concluded({"plain": [60] * 4, "mixup": [100] * 4, "random": [100] * 4}, design)
    expected = "The random control does as well as mixup, so nothing here shows that what sets mixup apart helps."
    assert expected in result.conclusion


def test_arms_by_two_axes_are_quoted_since_their_names_hold_commas() -> None:
    design = by(("method", "explanation"), ("plain, none", "plain, long", "mixup, long"))
    rights = {"plain, none": [10] * 4, "plain, long": [100] * 4, "mixup, long": [100] * 4}
    result = concluded(rights, design, {"mixup, long": 3e9})
    assert result.conclusion[0] == (
        'With "plain, long" or "mixup, long" the model learns the task with every seed; with "plain, none" it does no '
        "better than guessing."
    )
    assert '"plain, long" is the cheapest arm that is as good as the best.' in result.conclusion


def test_values_of_a_setting_of_the_data_are_named_with_their_axis() -> None:
    arms = tuple(Arm(name=str(value), values={"data.train_examples": value}) for value in (500, 2000))
    design = Design(by=("data.train_examples",), arms=arms)
    result = concluded({"500": [10] * 4, "2000": [100] * 4}, design)
    assert result.conclusion[0].startswith("With train examples 2,000 the model learns the task with every seed")
    assert result.conclusion[1] == "Train examples 2,000 does better than train examples 500."


def test_no_arm_is_called_cheapest_where_nothing_says_what_arms_cost() -> None:
    runs = [replace(run, tokens_per_reply=None) for run in study({"a": [100] * 4, "b": [100] * 4, "c": [50] * 4})]
    design = by(("arm",), ("a", "b", "c"))
    result = compare(runs, 0.10, 0.11, design=design)
    assert "A and b do equally well, and none does better." in result.conclusion
    assert result.recommend is None


def test_each_setting_has_a_group_of_sentences_that_begins_with_its_name() -> None:
    settings = ({"model": "small"}, {"model": "large"})
    runs = [
        replace(run, setting=setting, trial=str(setting))
        for setting, rights in zip(settings, (SKETCH, {"none": [10] * 3, "long": [100] * 3}), strict=True)
        for run in study(rights)
    ]
    result = compare(runs, 0.10, 0.11, design=Design(settings=settings))
    alone = answer(study(SKETCH)).conclusion
    assert result.conclusion[0] == "Model small: with" + alone[0].removeprefix("With")
    assert result.conclusion[1 : len(alone)] == alone[1:]
    assert result.conclusion[len(alone)].startswith("Model large: with long explanations the model learns")
