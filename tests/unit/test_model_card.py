"""Laws of the model card: it says what was measured, the hub reads its header, and it keeps silent on the machine."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from showhow.evidence.compare import compare
from showhow.evidence.model_card import CardFacts, model_card
from showhow.evidence.outcome import RunOutcome
from showhow.models.exported import Exported
from showhow.sections.trial import Trial
from showhow.tasks.base import TextFormat
from showhow.tracking.tracker import RunStarted, StudyStarted

TRIAL = {
    "name": "trial-003",
    "arm": "long",
    "setting": {},
    "method": {"kind": "plain"},
    "budget": {"unit": "examples", "amount": 800},
    "level": "long",
    "point": {"explanation": "long"},
    "task": {"kind": "modular_sum"},
    "data": {"train_examples": 100, "eval_examples": 10, "eval_splits": {"longer": {"terms": 12}}},
    "model": {"kind": "scratch", "architecture": "llama", "hidden_size": 32, "layers": 1},
    "recipe": {"max_examples": 800, "learning_rate": 1e-3},
    "evaluation": {},
}
PARAMS: dict[str, Any] = {
    "explanation": "long",
    "seed": 1,
    "learning_rate": 1e-3,
    "max_examples": 800,
    "task.kind": "modular_sum",
    "task.terms": 8,
    "task.path": "/home/somebody/rows.jsonl",
    "data.seed": 0,
    "model.architecture": "llama",
}
MANIFEST: dict[str, Any] = {
    "fingerprint": "0123456789abcdef",
    "rows": 100,
    "chance": 0.1,
    "path": "/home/somebody/data",
}
RIGHT, WRONG = (True,) * 9 + (False,), (False,) * 9 + (True,)


def outcomes(level: str, grades: tuple[bool, ...]) -> list[RunOutcome]:
    point: dict[str, Any] = {"learning_rate": 1e-3}
    told = {"selection": sum(grades) / 10, "grades": grades, "examples": 800, "splits": {"longer": 0.25}}
    return [RunOutcome(level, f"trial-{level}", seed, point, "finished", **told) for seed in range(3)]  # type: ignore[arg-type]


@pytest.fixture
def facts() -> CardFacts:
    best, rest = outcomes("long", RIGHT), outcomes("none", WRONG)
    return CardFacts(
        exported=Exported(
            study="sums",
            run="trial-003/seed-1",
            trial=Trial.model_validate(TRIAL),
            layout=TextFormat(" ", "answer "),
            frame=None,
            reply_tokens=31,
            as_adapter=False,
        ),
        study=StudyStarted(
            "sums",
            "How much explanation: a little, or a lot?",
            {"resources": {"devices_per_trial": 2}, "sharding": {"zero_stage": 2}},
            {"version.torch": "2.13.0", "host": "secret-host", "processor": "a fast one"},
            0.0,
        ),
        start=RunStarted("trial-003/seed-1", "trial-003", 1, "long", PARAMS, {"train": MANIFEST}, 1, 0.0),
        outcome=best[1],
        result=compare([*best, *rest], 0.1, 0.12),
        sample={"question": "3+9+4=", "reply": "3+9=2 2+4=6 answer 6"},
        remarks=("went on with micro_batch_size = 4",),
    )


def header(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_header_holds_what_the_hub_searches_by(facts: CardFacts) -> None:
    found = header(model_card(facts))
    assert found["library_name"] == "transformers"
    assert found["tags"] == ["showhow", "modular_sum", "explanation-long"]
    assert "base_model" not in found
    assert "license" not in found
    results = found["model-index"][0]["results"]
    assert [(one["dataset"]["split"], one["metrics"][0]["value"]) for one in results] == [
        ("test", 0.9),
        ("longer", 0.25),
    ]


def test_a_base_model_is_named_with_its_licence(facts: CardFacts) -> None:
    card = model_card(replace(facts, base="Qwen/Qwen2.5-0.5B-Instruct", licence="apache-2.0"))
    found = header(card)
    assert (found["base_model"], found["license"]) == ("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0")
    assert found["base_model_relation"] == "finetune"
    adapter = facts.exported.model_copy(update={"as_adapter": True})
    alone = header(model_card(replace(facts, base="Qwen/Qwen2.5-0.5B-Instruct", exported=adapter)))
    assert (alone["library_name"], alone["base_model_relation"]) == ("peft", "adapter")


def test_it_says_what_was_measured_with_intervals_and_what_guessing_gives(facts: CardFacts) -> None:
    card = model_card(facts)
    for said in (
        "accuracy 0.90 on 10 test questions and 0.25 on longer",
        "Guessing gives 0.12",
        "| none | 0.10 [",
        "| long | 0.90 [",
        "terms = 12): accuracy 0.25",
        "0123456789abcdef",
        "learning_rate = 1e-3",
        "Seed 1, 800 training examples seen",
        "devices_per_trial 2",
        "torch 2.13.0",
        "went on with micro_batch_size = 4",
        "How much explanation: a little, or a lot?",
        *facts.result.conclusion,
    ):
        assert said in card, said


def test_it_says_nothing_of_the_machine_and_is_the_same_for_the_same_facts(facts: CardFacts) -> None:
    card = model_card(facts)
    assert "secret-host" not in card
    assert "/home/somebody" not in card
    assert card == model_card(facts)


def test_every_table_has_as_many_cells_in_each_row(facts: CardFacts) -> None:
    tables = [block.splitlines() for block in model_card(facts).split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_a_frame_of_a_chat_is_written_out_in_the_code(facts: CardFacts) -> None:
    framed = facts.exported.model_copy(update={"frame": ("<|user|>\n", "<|model|>\n")})
    card = model_card(replace(facts, exported=framed))
    assert r"tokenizer('<|user|>\n3+9+4=<|model|>\n', add_special_tokens=False" in card


def test_without_a_sample_or_further_splits_it_is_still_a_card(facts: CardFacts) -> None:
    card = model_card(replace(facts, sample=None, outcome=replace(facts.outcome, splits={}), remarks=()))
    assert "was not tried on questions unlike" in card
    assert "'3+9+4='" in card


def test_a_model_of_an_arm_that_is_no_level_says_which_and_within_what(facts: CardFacts) -> None:
    assert "as the arm" not in model_card(facts)
    start = replace(facts.start, arm="mixup", setting={"model.layers": 2})
    card = model_card(replace(facts, start=start))
    assert "at the explanation level **long**, as the arm **mixup** of its study (layers 2)." in card
    assert header(card)["tags"] == ["showhow", "modular_sum", "explanation-long", "arm-mixup"]


def test_the_card_of_a_method_that_asks_for_bare_answers_asks_as_the_method_does(facts: CardFacts) -> None:
    trial = Trial.model_validate(TRIAL | {"method": {"kind": "step_by_step"}})
    exported = facts.exported.model_copy(update={"trial": trial, "asked_as": ("[label] ", "")})
    card = model_card(replace(facts, exported=exported))
    for text in ("by the method **step_by_step**", "tokenizer('[label] ", "A reply is the bare answer."):
        assert text in card
        assert text not in model_card(facts)
    assert "wrong steps" in model_card(facts)
    assert "wrong steps" not in card
