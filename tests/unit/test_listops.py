"""ListOps against the published rows, an oracle that rewrites text, and Long Range Arena's generator counted out."""

import random
import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import UserError
from showhow.seeds import rng_for
from showhow.tasks import task_named
from showhow.tasks.base import Problem
from showhow.tasks.explain import Level, explain
from showhow.tasks.listops.drawing import drawn
from showhow.tasks.listops.expression import CLOSE, Operator
from showhow.tasks.listops.odds import Bounds
from showhow.tasks.listops.task import ListOps

RELEASED_INPUT = (
    "( ( ( ( ( ( [SUM 4 ) 6 ) 9 ) ( ( ( ( ( ( ( [MEDIAN 9 ) ( ( ( ( ( ( ( ( [MAX 1 ) 5 ) 8 ) 8 ) 3 ) 9 ) 3 ) ] ) ) 2 ) "
    "9 ) 9 ) 9 ) ] ) ) 3 ) ] )"
)
RELEASED_TARGET = """\
Max, largest number of [1, 5, 8, 8, 3, 9, 3] is 9
MED, sorted list, [2, 9, 9, 9, 9, 9], MEDIAN is 9
SUM, add [4, 6, 9, 9, 3], sum is 31, answer is 1
Final answer: 1"""

modest = settings(deadline=None, max_examples=60)


def oracle(question: str, modulus: int = 10) -> str:
    """Rewrite the innermost bracket to its value until a number is left."""

    def value(match: re.Match[str]) -> str:
        numbers = np.array([int(number) for number in match[2].split()])
        values = {"MIN": numbers.min(), "MAX": numbers.max(), "MED": np.median(numbers), "SUM": numbers.sum() % modulus}
        return str(int(values[match[1]]))

    text = re.sub(r"[()] ?", "", question).strip()
    while "[" in text:
        text = re.sub(r"\[([A-Z]+)((?: +\d+)+) *\]", value, text)
    return text.strip()


def worded(problem: Problem) -> list[list[str]]:
    """Of each step the short, the medium and the long wording."""
    return [[word(*step) for word in problem.wording] for step in problem.steps]


def length(question: str) -> int:
    """Two per operator, one per number, counted on the text."""
    return len(re.findall(r"\[|\]|\d+", question))


def test_the_released_row_is_read_and_written_back_byte_for_byte() -> None:
    task = ListOps()
    problem = task.solve(RELEASED_INPUT)
    assert problem.question == RELEASED_INPUT.replace("MEDIAN", "MED")
    assert length(problem.question) == 22
    assert explain(problem, Level.MEDIUM, task.text_format) == RELEASED_TARGET
    assert explain(problem, Level.NONE, task.text_format) == "1"


def test_short_names_operator_and_result_and_long_says_what_to_do() -> None:
    task = ListOps()
    problem = task.solve("[SUM [MIN 5 3 ] 27 [MED 9 2 ] [MED 8 1 7 ] ]")
    assert explain(problem, Level.SHORT, task.text_format) == "Min, 3\nMED, 5\nMED, 7\nSUM, 2\nFinal answer: 2"
    assert explain(problem, Level.LONG, task.text_format).splitlines() == [
        "MIN operator so we have to find the smallest of the numbers [5 3], smallest is 3 so the answer is 3",
        "MED operator so we have to sort the numbers [9 2] and take the middle, sorted list is [2 9], "
        "middle is 2 and 9 so the answer is 5",
        "MED operator so we have to sort the numbers [8 1 7] and take the middle, sorted list is [1 7 8], "
        "middle is 7 so the answer is 7",
        "SUM operator so we have to add the numbers [3 27 5 7], sum is 42 so the answer is 2",
        "Final answer: 2",
    ]


def test_the_known_beginning_of_the_papers_long_sentence_is_kept() -> None:
    short, _, long = worded(ListOps().solve("[SUM 15 27 1 ]"))[0]
    assert long.startswith("SUM operator so we have to add the numbers [15 27 1], sum is 43 s")
    assert short == "SUM, 3"


def test_style_symbols_says_the_same_in_few_symbols() -> None:
    assert worded(ListOps(style="symbols").solve("[SUM [MAX 1 5 8 9 ] 2 [MED 7 3 ] ]")) == [
        ["9", "MAX 1 5 8 9", "MAX 1 5 8 9 = 9"],
        ["5", "MED 7 3", "MED 7 3 > 3 7 = 5"],
        ["6", "SUM 9 2 5", "SUM 9 2 5 > 16 = 6"],
    ]


@modest
@given(seed=st.integers(0, 10**9), name=st.sampled_from(["listops-10", "listops-30"]), modulus=st.integers(2, 40))
def test_the_answer_is_what_rewriting_the_text_gives(seed: int, name: str, modulus: int) -> None:
    problem = task_named(name, {"modulus": modulus}).draw(random.Random(seed))
    assert problem.answer == oracle(problem.question, modulus)


@modest
@given(seed=st.integers(0, 10**9), bounds=st.sampled_from([(20, 50), (50, 100), (0, 5), (100, 200), (30, 32)]))
def test_lengths_lie_strictly_between_the_bounds(seed: int, bounds: tuple[int, int]) -> None:
    task = ListOps(min_length=bounds[0], max_length=bounds[1])
    assert bounds[0] < length(task.draw(random.Random(seed)).question) < bounds[1]


@modest
@given(seed=st.integers(0, 10**9), max_depth=st.integers(4, 6), max_arguments=st.integers(3, 6))
def test_depth_arguments_and_numbers_stay_within_their_limits(seed: int, max_depth: int, max_arguments: int) -> None:
    task = ListOps(max_depth=max_depth, max_arguments=max_arguments, largest=3)
    question = task.draw(random.Random(seed)).question
    brackets = re.sub(r"[^\[\]]", "", question)
    depths = [brackets[:end].count("[") - brackets[:end].count("]") for end in range(len(brackets) + 1)]
    assert max(depths) < max_depth
    assert all(2 <= len(numbers) <= max_arguments for _, numbers, _, _ in task.solve(question).steps)
    assert set(re.findall(r"\d+", question)) <= {"0", "1", "2", "3"}


def shapes(depth: int, max_depth: int, max_arguments: int) -> dict[tuple[int, ...], float]:
    """Every tree (arguments per node, 0 for a number) with its probability in Long Range Arena's generator."""
    if depth == max_depth:
        return {(0,): 1.0}
    below = shapes(depth + 1, max_depth, max_arguments)
    found: dict[tuple[int, ...], float] = {(0,): 0.75}
    for arguments in range(2, max_arguments + 1):
        for parts in product(below.items(), repeat=arguments):
            shape = (arguments, *(count for part, _ in parts for count in part))
            found[shape] = 0.25 / (max_arguments - 1) * float(np.prod([probability for _, probability in parts]))
    return found


@pytest.mark.parametrize(
    ("min_length", "max_length", "max_depth", "max_arguments"), [(3, 20, 3, 3), (6, 14, 3, 4), (9, 20, 4, 2)]
)
def test_trees_are_distributed_as_in_long_range_arena(
    min_length: int, max_length: int, max_depth: int, max_arguments: int
) -> None:
    kept = {
        shape: probability
        for shape, probability in shapes(1, max_depth, max_arguments).items()
        if min_length < 1 + sum(count + 1 for count in shape if count) < max_length
    }
    rng, draws = rng_for("distribution"), 6000
    bounds = Bounds(min_length, max_length, max_depth, max_arguments)
    expressions = [[s for s in drawn(rng, bounds, largest=4) if s != CLOSE] for _ in range(draws)]
    found = Counter(tuple(s.arguments if isinstance(s, Operator) else 0 for s in e) for e in expressions)
    assert set(found) <= set(kept)
    expected = {shape: draws * probability / sum(kept.values()) for shape, probability in kept.items()}
    chi_square = sum((found[shape] - count) ** 2 / count for shape, count in expected.items())
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5
    symbols: Counter[str | int] = Counter(s.name if isinstance(s, Operator) else s for e in expressions for s in e)
    alternatives: list[list[str | int]] = [["MIN", "MAX", "MED", "SUM"], [0, 1, 2, 3, 4]]
    for alike in alternatives:
        share = np.array([symbols[symbol] for symbol in alike]) / sum(symbols[symbol] for symbol in alike)
        assert np.abs(share - 1 / len(alike)).max() < 0.02


def test_the_released_files_have_our_number_of_characters_per_row() -> None:
    questions = [ListOps().draw(rng_for("characters", index)).question for index in range(1500)]
    row = np.mean([len(question) for question in questions]) + len("\t1\r\n")
    assert row == pytest.approx(198.0, abs=3.5)  # Long Range Arena simulated: 198.0 +- 1.1; released: 199.7


def test_plain_listops_is_the_preset_of_the_released_files() -> None:
    assert ListOps() == ListOps.model_validate({"preset": "listops-10"})


def test_few_expressions_are_counted_and_many_are_not() -> None:
    few = ListOps(min_length=0, max_length=5, max_depth=2)
    assert few.distinct_questions == 4 * 10 * 10
    assert ListOps(min_length=0, max_length=8, max_depth=3, max_arguments=2, largest=1).distinct_questions == (
        4 * 2**2 + 2 * 4 * 4 * 2**3
    )
    assert ListOps().distinct_questions is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_length": 20, "max_length": 21}, "min_length = 20 and max_length = 21"),
        ({"min_length": 50, "max_length": 20}, "raise max_length"),
        ({"min_length": 20, "max_length": 50, "max_depth": 2}, "max_depth = 2"),
        ({"min_length": 20, "max_length": 22, "max_arguments": 2}, "max_arguments = 2"),
        ({"max_length": 4}, "max_length = 4"),
        ({"max_depth": 1}, "max_depth = 1"),
        ({"max_arguments": 1}, "max_arguments = 1"),
    ],
)
def test_bounds_that_no_expression_meets_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        task_named("listops", changes)


@pytest.mark.parametrize("bounds", [(90, 100, 10, 2), (96, 98, 20, 2), (20, 50, 4, 4), (500, 2000, 10, 10)])
def test_rare_lengths_are_drawn_without_searching(bounds: tuple[int, int, int, int]) -> None:
    for index in range(20):
        expression = drawn(rng_for("rare", index), Bounds(*bounds), largest=9)
        assert bounds[0] < len(expression) < bounds[1]
