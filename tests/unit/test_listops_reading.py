"""Typed ListOps expressions: every spelling of the published files is read, every fault is answered with its place."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showhow.errors import UserError
from showhow.tasks.listops.task import ListOps

EXAMPLE = "[MAX 4 [MIN 2 7 ] ]"
modest = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize(
    "question",
    [
        EXAMPLE,
        "[MAX 4[MIN 2 7]]",
        "  [ max\n4 [ Min 2\t7 ] ]\n",
        "( ( ( [MAX 4 ) ( ( ( [MIN 2 ) 7 ) ] ) ) ] )",
        "(((\n[MAX 4)((([MIN 2)7)]))])",
        "[MAX 04 [MIN 2 7 ] ]",
    ],
)
def test_blanks_case_and_parentheses_do_not_matter(question: str) -> None:
    problem = ListOps().solve(question)
    assert problem.question == "( ( ( [MAX 4 ) ( ( ( [MIN 2 ) 7 ) ] ) ) ] )"
    assert problem.answer == "4"


@pytest.mark.parametrize(
    ("question", "answer"),
    [("[SM 9 9 ]", "8"), ("[MEDIAN 1 2 ]", "1"), ("[MED 5 ]", "5"), ("[SUM 12 ]", "2"), ("[MAX 7000 1 ]", "7000")],
)
def test_every_published_spelling_one_argument_and_large_numbers_are_read(question: str, answer: str) -> None:
    assert ListOps().solve(question).answer == answer


MALFORMED = [
    ("", 1, "the question ends", '"["'),
    ("   ", 4, "the question ends", '"["'),
    ("7", 1, 'found "7"', '"["'),
    ("MAX 1 2", 1, 'found "MAX"', '"["'),
    ("[", 2, "the question ends", "an operator"),
    ("[5 3 ]", 2, 'found "5"', "an operator"),
    ("[MAXX 1 2 ]", 2, 'found "MAXX"', "an operator"),
    ("[MAX4 5 ]", 2, 'found "MAX4"', "an operator"),
    ("[MAX ]", 6, 'found "]"', 'a number or "["'),
    ("[MAX 1 [MIN ] ]", 13, 'found "]"', 'a number or "["'),
    ("[MAX 1, 2 ]", 7, 'found ","', 'a number, "[" or "]"'),
    ("[MAX -1 2 ]", 6, 'found "-"', 'a number or "["'),
    ("[MAX 1.5 2 ]", 7, 'found "."', 'a number, "[" or "]"'),
    ("[MAX 1 2", 9, "the question ends", 'a number, "[" or "]"'),
    ("[MAX 1 [MIN 2 3 ]", 18, "the question ends", 'a number, "[" or "]"'),
    ("[MAX 1 2 ] ]", 12, 'found "]"', "the end"),
    ("[MAX 1 2 ] 3", 12, 'found "3"', "the end"),
    ("[MAX \u0663 2 ]", 6, 'found "\u0663"', 'a number or "["'),
    ("[MAX 1 \u00b2 ]", 8, 'found "\u00b2"', 'a number, "[" or "]"'),
    ("[MAX 1 " + "9" * 5000 + " ]", 8, 'found "999', "at most 100 digits"),
    ("[MAX 1 2 ] " + "9" * 101, 12, 'found "999', "the end"),
    ("[MAX 1 2 ] )", 12, 'found ")"', "no parenthesis"),
    ("[MAX ( 1 ) 2 ]", 6, 'found "("', "no parenthesis"),
    ("( [MAX 1 2 ] )", 3, 'found "["', '"("'),
    ("( ( ( [MAX 1 ) 2 ) ]", 21, "the question ends", '")"'),
    ("( ( ( [MAX 1 ) 2 ] )", 18, 'found "]"', '")"'),
    ("( ( ( ( [MAX 1 ) 2 ) ] )", 7, 'found "("', '"["'),
    ("( ( ( [MAX 1 ) 2 ) ] ) )", 24, 'found ")"', "the end"),
    ("( ( ( [MAX 1 ) 2 ) ) ] )", 20, 'found ")"', '"]"'),
    ("(" * 5000, 5001, "the question ends", '"["'),
    ("[" * 5000, 2, 'found "["', "an operator"),
    ("[MIN " * 5000, 25001, "the question ends", 'a number or "["'),
    (")", 2, "the question ends", '"["'),
]


@pytest.mark.parametrize(
    ("question", "position", "found", "expected"), MALFORMED, ids=[question[:16] for question, *_ in MALFORMED]
)
def test_a_malformed_expression_is_refused_with_position_found_and_expected(
    question: str, position: int, found: str, expected: str
) -> None:
    with pytest.raises(UserError) as refusal:
        ListOps().solve(question)
    message = str(refusal.value)
    assert f"at position {position} {found}" in message
    assert expected in message.partition("expected ")[2].partition("\n")[0]
    assert EXAMPLE in message
    assert len(message) < 400


def test_a_misspelt_operator_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r'Did you mean "MEDIAN"\?'):
        ListOps().solve("[MEDAIN 1 2 ]")


@modest
@given(st.text(alphabet="[]() 059MINAXEDUSV,-\n", max_size=40))
def test_any_text_is_worked_out_or_politely_refused(text: str) -> None:
    try:
        problem = ListOps().solve(text)
    except UserError:
        return
    assert ListOps().solve(problem.question) == problem


@modest
@given(seed=st.integers(0, 10**9), data=st.data())
def test_a_parenthesis_missing_or_too_many_is_refused(seed: int, data: st.DataObject) -> None:
    words = ListOps().draw(random.Random(seed)).question.split(" ")
    places = [index for index, word in enumerate(words) if word in "()"]
    place = data.draw(st.sampled_from(places))
    changed = data.draw(st.sampled_from([words[:place] + words[place + 1 :], [*words[:place], *words[place - 1 :]]]))
    if [word for word in changed if word not in "()"] != [word for word in words if word not in "()"]:
        return
    with pytest.raises(UserError, match="at position"):
        ListOps().solve(" ".join(changed))


def test_nesting_of_any_depth_is_worked_out() -> None:
    nested = "[MIN " * 5_000 + "5 " + "]" * 5_000
    problem = ListOps().solve(nested)
    assert (problem.answer, len(problem.steps)) == ("5", 5_000)
    assert ListOps().solve(problem.question) == problem
