"""Reads typed ListOps expressions, in any spelling of the published files, or says where the fault is."""

import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from showhow.errors import UserError, nearest
from showhow.tasks.base import MOST_DIGITS, unreadable
from showhow.tasks.listops.expression import CLOSE, Expression, Operator, OperatorName, written

SPELLINGS: dict[str, OperatorName] = {
    "MIN": "MIN", "MAX": "MAX", "MED": "MED", "MEDIAN": "MED", "SUM": "SUM", "SM": "SUM",
}  # fmt: skip
EXAMPLE = "[MAX 4 [MIN 2 7 ] ]"

# What is allowed next, as errors say it.
ROOT, OPERATOR, ARGUMENT, ARGUMENT_OR_END, END = (
    '"["',
    "an operator (MIN, MAX, MED or SUM)",
    'a number or "["',
    'a number, "[" or "]"',
    "the end",
)
ACCEPTS = {
    ROOT: ("[",),
    OPERATOR: ("operator",),
    ARGUMENT: ("number", "["),
    ARGUMENT_OR_END: ("number", "[", "]"),
    END: (),
}
TOKEN = re.compile(r"\s*([0-9]+|[A-Za-z]\w*|\S)")


class Token(NamedTuple):
    """A piece of the text; kind: "number", "operator", "unknown", or the sign itself; position 1: the first
    character."""

    kind: str
    text: str
    position: int


@dataclass
class _Open:
    """An open bracket: the index of its operator in the expression, and its arguments so far."""

    place: int
    name: OperatorName
    arguments: int = 0


def read(question: str) -> Expression:
    """Read an expression; raise UserError with the position of the first fault.

    Accepted: any blanks and line breaks, operators in either case, MEDIAN for MED and SM for SUM (the published files
    use all of them), non-negative numbers of up to 100 digits, operators with at least one argument (one is never
    drawn, but its value is clear). Parentheses: none, or all of those in the files.
    """
    tokens = [_token(match) for match in TOKEN.finditer(question)]
    expression = _without_parentheses(question, [token for token in tokens if token.kind not in "()"])
    if any(token.kind in "()" for token in tokens):
        _check_parentheses(question, tokens, expression)
    return expression


def _token(match: re.Match[str]) -> Token:
    text = match[1]
    if text in ("[", "]", "(", ")"):
        kind = text
    elif text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
        kind = "number"
    else:
        kind = "operator" if text.upper() in SPELLINGS else "unknown"
    return Token(kind, text, match.start(1) + 1)


def _without_parentheses(question: str, tokens: list[Token]) -> Expression:
    expression: Expression = []
    unfinished: list[_Open] = []
    expected = ROOT
    for kind, text, position in tokens:
        if kind not in ACCEPTS[expected]:
            raise _fault(question, position, expected, text)
        if kind == "[":
            expected = OPERATOR
        elif kind == "operator":
            unfinished.append(_Open(len(expression), SPELLINGS[text.upper()]))
            expression.append(Operator(SPELLINGS[text.upper()], 0))  # replaced when its arguments are counted
            expected = ARGUMENT
        else:
            expected = _add_value(kind, text, expression, unfinished)
    if expected != END:
        raise _fault(question, len(question) + 1, expected)
    return expression


def _add_value(kind: str, text: str, expression: Expression, unfinished: list[_Open]) -> str:
    """Add a number or a closed bracket as its operator's next argument; return what is expected then."""
    if kind == "number":
        expression.append(int(text))
    else:
        closed = unfinished.pop()
        expression[closed.place] = Operator(closed.name, closed.arguments)
        expression.append(CLOSE)
    if not unfinished:
        return END
    unfinished[-1].arguments += 1
    return ARGUMENT_OR_END


def _check_parentheses(question: str, tokens: list[Token], expression: Expression) -> None:
    """Compare with the expression's written form: the first different token is a missing or an extra parenthesis."""
    if tokens[0].kind != "(":
        stray = next(token for token in tokens if token.kind in "()")
        raise _fault(question, stray.position, "no parenthesis, since the question does not begin with one")
    right = [match[1] for match in TOKEN.finditer(written(expression))]
    for token, text in zip_longest(tokens, right):
        typed = token.kind if token else ""
        if (typed in ("(", ")") or text in ("(", ")")) and typed != text:
            position = token.position if token else len(question) + 1
            expected = f'"{text}"' if text else END
            raise _fault(question, position, f"{expected} (leave out all parentheses, or write every binary one)")


def _fault(question: str, position: int, expected: str, text: str = "") -> UserError:
    advice = f"Write an operator and its numbers in brackets, such as {EXAMPLE}"
    if expected in (ARGUMENT, ARGUMENT_OR_END) and text.isdigit() and len(text) > MOST_DIGITS:
        expected = f"a number of at most {MOST_DIGITS} digits"
    if expected == OPERATOR:
        advice = f"{advice}.{nearest(text.upper(), SPELLINGS)}"
    return unreadable("listops", question, position, expected, advice)
