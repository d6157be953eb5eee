"""Writes word_problems.jsonl: 600 small word problems with worked steps, an example of a dataset that a user brings.

`python search_spaces/data/make_word_problems.py` writes the same bytes every time; the texts are our own and under the
licence of this repository. A problem is a story of two to four events, each with a step of its own.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

ROWS = 600
FILE = Path(__file__).with_name("word_problems.jsonl")

NAMES = ("Ada", "Ben", "Chidi", "Dana", "Emil", "Fatou", "Grete", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Milo", "Nora")
PLACES = {
    "bakery": ("rolls", "tray"),
    "library": ("books", "shelf"),
    "orchard": ("apples", "basket"),
    "workshop": ("screws", "box"),
    "school": ("pencils", "pack"),
    "harbour": ("ropes", "crate"),
    "market stall": ("lemons", "net"),
}


class Event(NamedTuple):
    """What happens in a story: the sentence of the question, the step that works it out, how many there are then."""

    told: str
    worked: str
    count: int


def brought(draw: random.Random, count: int, things: str, container: str) -> Event:
    containers, each = draw.randint(2, 9), draw.randint(3, 12)
    more = containers * each
    return Event(
        f"A cart brings {containers} {plural(container)} with {each} {things} each.",
        f"{containers} {plural(container)} hold {containers} * {each} = {more} {things}, so there are "
        f"{count} + {more} = {count + more}.",
        count + more,
    )


def given_away(draw: random.Random, count: int, things: str, _container: str) -> Event:
    gone = draw.randint(1, count // 2)
    return Event(
        f"{gone} {things} are given away.",
        f"{gone} {things} are given away, so there are {count} - {gone} = {count - gone}.",
        count - gone,
    )


def doubled(_draw: random.Random, count: int, things: str, _container: str) -> Event:
    return Event(
        f"Then as many {things} are bought as are there.",
        f"As many are bought as are there, so there are 2 * {count} = {2 * count} {things}.",
        2 * count,
    )


def spoiled(draw: random.Random, count: int, things: str, _container: str) -> Event:
    parts = draw.choice([2, 3, 4, 5])
    lost = count // parts
    return Event(
        f"One in {parts} of the {things} is broken and thrown out (part of a group of {parts} does not count).",
        f"One in {parts} is broken, and {count} holds {lost} groups of {parts}, so there are {count} - {lost} = "
        f"{count - lost} {things}.",
        count - lost,
    )


EVENTS = (brought, given_away, doubled, spoiled)


def plural(container: str) -> str:
    """Return a container's plural."""
    return {"shelf": "shelves", "box": "boxes"}.get(container, f"{container}s")


def problem(draw: random.Random) -> dict[str, object]:
    """Return a row: question, steps and answer."""
    place = draw.choice(list(PLACES))
    things, container = PLACES[place]
    count = draw.randint(10, 40)
    told = [f"{draw.choice(NAMES)} counts {count} {things} at the {place}."]
    steps = [f"At the beginning there are {count} {things}."]
    for happens in draw.sample(EVENTS, draw.randint(2, 4)):
        event = happens(draw, count, things, container)
        told.append(event.told)
        steps.append(event.worked)
        count = event.count
    told.append(f"How many {things} are there now?")
    return {"question": " ".join(told), "steps": steps, "answer": count}


def main() -> None:
    """Write the file."""
    draw = random.Random("word problems")
    rows = [json.dumps(problem(draw)) for _ in range(ROWS)]
    FILE.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
