"""The running sum modulo m: its wordings, its reader, its sizes."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import UserError
from showhow.tasks.explain import Level, explain
from showhow.tasks.modular_sum import ModularSum, Style


@settings(deadline=None, max_examples=60)
@given(numbers=st.lists(st.integers(0, 999), min_size=2, max_size=20), modulus=st.integers(2, 30))
def test_the_answer_is_the_sum_modulo_m(numbers: list[int], modulus: int) -> None:
    question = " + ".join(map(str, numbers))
    assert ModularSum(modulus=modulus).solve(question).answer == str(sum(numbers) % modulus)


@pytest.mark.parametrize(
    ("style", "short", "medium", "long"),
    [
        ("equation", "2 6 answer 6", "3+9 2+4 answer 6", "3+9=2 2+4=6 answer 6"),
        ("operand", "2 6 answer 6", "9=2 4=6 answer 6", "3+9=2 2+4=6 answer 6"),
        (
            "sentence",
            "2\n6\nanswer 6",
            "add 9 get 2\nadd 4 get 6\nanswer 6",
            "3 plus 9 is 12 which leaves 2\n2 plus 4 is 6 which leaves 6\nanswer 6",
        ),
    ],
)
def test_each_style_words_the_steps_its_own_way(style: Style, short: str, medium: str, long: str) -> None:
    task = ModularSum(style=style)
    problem = task.solve("3+9+4=")
    assert problem.question == "3+9+4="
    wordings = [explain(problem, level, task.text_format) for level in (Level.SHORT, Level.MEDIUM, Level.LONG)]
    assert wordings == [short, medium, long]


@pytest.mark.parametrize("question", ["3+9+4", "3+9+4=", " 3 + 9+4 = ", "03+9+4=\n"])
def test_blanks_and_the_equals_sign_do_not_matter(question: str) -> None:
    assert ModularSum().solve(question).question == "3+9+4="


@pytest.mark.parametrize(
    ("question", "position", "found", "expected"),
    [
        ("", 1, "the question ends", "a number"),
        ("3", 2, "the question ends", "another number"),
        ("3=", 3, "the question ends", "another number"),
        ("3+", 3, "the question ends", "a number"),
        ("3++4", 3, 'found "+"', "a number"),
        ("3 4", 3, 'found "4"', "`+` or `=`"),
        ("3+-4", 3, 'found "-"', "a number"),
        ("3+4=7", 5, 'found "7"', "the end"),
        ("3+x", 3, 'found "x"', "a number"),
        ("3+\u0664", 3, 'found "\u0664"', "a number"),
        ("3+" + "1" * 5000, 3, 'found "111', "at most 100 digits"),
    ],
)
def test_a_malformed_sum_is_refused_with_position_found_and_expected(
    question: str, position: int, found: str, expected: str
) -> None:
    with pytest.raises(UserError) as refusal:
        ModularSum().solve(question)
    message = str(refusal.value)
    assert f"at position {position} {found}" in message
    assert expected in message.partition("expected ")[2].partition("\n")[0]
    assert "3+9+4=" in message
    assert len(message) < 400


@given(st.text(alphabet="0123456789+= x\n", max_size=20))
@settings(deadline=None, max_examples=60)
def test_any_text_is_worked_out_or_politely_refused(text: str) -> None:
    try:
        problem = ModularSum().solve(text)
    except UserError:
        return
    assert int(problem.answer) == sum(map(int, text.replace("=", "").split("+"))) % 10


def test_numbers_are_drawn_uniformly() -> None:
    task, rng = ModularSum(terms=1000, below=7), random.Random(0)
    counts = Counter(number for _ in range(14) for number in task.draw(rng).question.removesuffix("=").split("+"))
    assert set(counts) == set("0123456")
    assert sum((count - 2000) ** 2 / 2000 for count in counts.values()) < 6 + 4 * 12**0.5  # chi-square


def test_there_are_below_to_the_power_of_terms_questions() -> None:
    task = ModularSum(terms=2, below=3)
    drawn = {task.draw(random.Random(seed)).question for seed in range(200)}
    assert task.distinct_questions == len(drawn) == 9
