"""The model card of an exported run: a README for people, with a header that the Hugging Face hub reads. Pure.

The header is YAML (https://huggingface.co/docs/hub/model-cards), each value in JSON, which is also YAML.
The figures are those of the study's journal and result; nothing is measured here.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from showhow.evidence.naming import names_of
from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import StudyResult
from showhow.evidence.settings import settings_in_words
from showhow.evidence.table import ResultTable, result_table
from showhow.evidence.wording import listed, param, share
from showhow.fingerprint import Json, canonical_json
from showhow.metrics import TEST
from showhow.models.exported import Exported
from showhow.sections.recipe import Recipe
from showhow.tasks.explain import Level
from showhow.tracking.tracker import RunStarted, StudyStarted

_ENVIRONMENT = ("system", "processor", "cluster.cpus", "cluster.gpus")  # and the versions; not the host's name
_OF_DATASET = ("rows", "rows_too_long", "symbols", "chance", "majority_share", "fingerprint")


@dataclass(frozen=True)
class CardFacts:
    """The content of a card. start, study: from the journal; outcome: the run's, result: its study's; sample: a row of
    RepliesSampled; base: the pretrained model's name on the hub, licence: from its own card; has_encoder: whether the
    model has one; dtype: of its weights; remarks: sentences on what happened to this run."""

    exported: Exported
    study: StudyStarted
    start: RunStarted
    outcome: RunOutcome
    result: StudyResult
    sample: Mapping[str, Json] | None = None
    base: str | None = None
    licence: str | None = None
    has_encoder: bool = False
    dtype: str = "float32"
    remarks: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        """The explanation level that the model was trained at."""
        return self.exported.trial.level

    @property
    def arm(self) -> str | None:
        """The arm that the model belongs to; None where it is only the explanation level."""
        return None if self.start.arm == self.level.value else self.start.arm

    @property
    def accuracy(self) -> float | None:
        """The share of test questions answered right."""
        grades = self.outcome.grades
        return sum(grades) / len(grades) if grades else None


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown. The same facts give the same text."""
    sections = (
        ("How to ask it", _usage(facts)),
        ("Results", _results(facts)),
        ("Limits", _limits(facts)),
        ("Task and data", _data(facts)),
        ("Recipe", _recipe(facts)),
        ("Layout and environment", _environment(facts)),
    )
    texts = [_header(facts), *_opening(facts), *("\n".join([f"## {title}", *lines]) for title, lines in sections)]
    return "\n\n".join(texts) + "\n"


def _name(facts: CardFacts) -> str:
    return f"{facts.exported.study}-{facts.exported.run.replace('/', '-')}"


def _header(facts: CardFacts) -> str:
    exported, kind = facts.exported, facts.exported.trial.task.kind
    values: dict[str, Json] = {
        "library_name": "peft" if exported.as_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["showhow", kind, f"explanation-{facts.level.value}", *([f"arm-{facts.arm}"] if facts.arm else [])],
        "metrics": ["accuracy"],
    }
    if facts.base:
        values |= {"base_model": facts.base, "base_model_relation": "adapter" if exported.as_adapter else "finetune"}
    if facts.licence:
        values["license"] = facts.licence
    measured: list[Json] = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"{kind}, {split} questions", "type": kind, "split": split},
            "metrics": [{"type": "accuracy", "value": round(accuracy, 6)}],
        }
        for split, accuracy in {TEST: facts.accuracy, **facts.outcome.splits}.items()
        if accuracy is not None
    ]
    values["model-index"] = [{"name": _name(facts), "results": measured}]
    return "\n".join(["---", *(f"{name}: {canonical_json(value)}" for name, value in values.items()), "---"])


def _opening(facts: CardFacts) -> list[str]:
    params, exported = facts.start.params, facts.exported
    base = facts.base or PurePath(str(params.get("model.name", ""))).name
    made = f"{base}, fine-tuned" if base else f"A {params.get('model.architecture')} trained from scratch"
    level = f"at the explanation level **{facts.level.value}**"
    method = exported.trial.method.kind
    how = "" if method == "plain" else f" by the method **{method}**"
    learned = f"by ShowHow on `{exported.trial.task.kind}` {level}{how}{_as_arm(facts)}"
    source = f"It is run `{exported.run}` of the study `{exported.study}`: {facts.study.question}"
    shown = []
    if facts.sample:
        question, reply = str(facts.sample["question"]), str(facts.sample["reply"])
        shown = ["\n".join(["Asked", *_block(question), "it writes", *_block(reply)])]
    return [f"# {_name(facts)}", f"{made} {learned}. {source}", *shown]


def _as_arm(facts: CardFacts) -> str:
    """Return the model's arm and setting, where there are any."""
    arm = f", as the arm **{facts.arm}** of its study" if facts.arm else ""
    place = settings_in_words([facts.start.setting])[0]
    return f"{arm} ({place})" if place else arm


def _block(text: str, language: str = "") -> list[str]:
    fence = "~~~" if "```" in text else "```"
    return [f"{fence}{language}", *text.splitlines(), fence]


def _usage(facts: CardFacts) -> list[str]:
    exported, kind = facts.exported, "ModelForSeq2SeqLM" if facts.has_encoder else "ModelForCausalLM"
    reader = f"AutoPeft{kind}" if exported.as_adapter else f"Auto{kind}"
    imports = [f"from transformers import {reader}, PreTrainedTokenizerFast"]
    if exported.as_adapter:
        imports = [f"from peft import {reader}", "from transformers import PreTrainedTokenizerFast, GenerationConfig"]
    question = str(facts.sample["question"]) if facts.sample else exported.trial.task.example_question
    before, after = exported.frame or ("", "")  # of the chat template, with its special tokens
    options = "" if exported.frame is None else "add_special_tokens=False, "
    begin = "" if facts.has_encoder else ', tokens["input_ids"].shape[1]:'
    greedy = ", generation_config=GenerationConfig.from_pretrained(FOLDER)" if exported.as_adapter else ""
    code = (
        *imports,
        "",
        "tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)",
        f"model = {reader}.from_pretrained(FOLDER)",
        f'tokens = tokenizer({before + exported.prompt(question) + after!r}, {options}return_tensors="pt")',
        f"reply = model.generate(**tokens{greedy})[0{begin}]",
        "print(tokenizer.decode(reply, skip_special_tokens=True))",
    )
    layout = exported.layout
    steps = f"steps with {layout.step_separator!r} between them, then {layout.answer_prefix!r} and the answer"
    reply = "the bare answer" if exported.level is Level.NONE else steps
    command = f"showhow predict FOLDER {shlex.quote(question)} --explain"
    return [
        f"`FOLDER` is the folder of this file. With ShowHow: `{command}`.",
        *_block("\n".join(code), "python"),
        f"A reply is {reply}. It is written greedily; right ones to the test questions have at most "
        f"{exported.reply_tokens:,} tokens. {_weights(facts)}",
    ]


def _weights(facts: CardFacts) -> str:
    whose = "The adapter's" if facts.exported.as_adapter else "Its"
    if facts.dtype == "float32":
        return f"{whose} weights are in float32."
    return (
        f"{whose} weights are in {facts.dtype}, as its base's are. `showhow predict` computes with them in float32, "
        f"and transformers in {facts.dtype}: where two tokens are almost as likely, they may write different ones."
    )


def _results(facts: CardFacts) -> list[str]:
    outcome, result = facts.outcome, facts.result
    table = result_table(result, "")
    accuracies = [f"{share(facts.accuracy)} on {len(outcome.grades or ()):,} test questions"]
    accuracies += [f"{share(accuracy)} on {split}" for split, accuracy in outcome.splits.items()]
    own = f"This model: accuracy {listed(accuracies)}"
    own += f"; its steps are right in {outcome.steps_right:.0%}" if outcome.steps_right is not None else ""
    return [
        f"{own}. Guessing gives {share(result.guessing)}. On validation questions, by which the best run of a study "
        f"is chosen, its accuracy is {share(outcome.selection)}.",
        "",
        f"All {names_of(result).several} of the study, each by its best trial:",
        "",
        *_rows(table),
        "",
        f"{table.caption}. {' '.join((*result.conclusion, *table.notes))}",
    ]


def _rows(table: ResultTable) -> list[str]:
    return [
        f"| {' | '.join(column.name for column in table.columns)} |",
        f"|{'---|' * len(table.columns)}",
        *(f"| {' | '.join(cells)} |" for cells in zip(*(column.cells for column in table.columns), strict=True)),
    ]


def _limits(facts: CardFacts) -> list[str]:
    kind, splits = facts.exported.trial.task.kind, facts.outcome.splits
    lines = [f"- It knows `{kind}` questions as described below, worded as above, and nothing else."]
    for split, changes in facts.exported.trial.data.eval_splits.items():
        if split in splits:
            changed = ", ".join(f"{name} = {param(value)}" for name, value in changes.items())
            lines.append(f"- On questions unlike those it was trained on ({changed}): accuracy {share(splits[split])}.")
    if not splits:
        lines.append("- It was not tried on questions unlike those it was trained on.")
    if facts.exported.level is not Level.NONE:
        lines.append("- A right answer may follow from wrong steps; `showhow predict --explain` grades each step.")
    return lines


def _data(facts: CardFacts) -> list[str]:
    params = facts.start.params
    settings = {
        name.removeprefix("task."): PurePath(str(value)).name if name == "task.path" else value
        for name, value in params.items()
        if name.startswith("task.")
    }
    described = ", ".join(f"{name} = {param(value)}" for name, value in settings.items() if value is not None)
    columns = [name for name in _OF_DATASET if any(name in manifest for manifest in facts.start.datasets.values())]
    return [
        f"Task: {described}. Data seed {param(params.get('data.seed'))}; no question is in two splits.",
        "",
        f"| split | {' | '.join(name.replace('_', ' ') for name in columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(
            f"| {split} | {' | '.join(param(manifest.get(name)) for name in columns)} |"
            for split, manifest in facts.start.datasets.items()
        ),
    ]


def _recipe(facts: CardFacts) -> list[str]:
    params = facts.start.params
    lines = [f"Seed {facts.start.seed}, {facts.outcome.examples:,} training examples seen."]
    groups = {"recipe": {name: params[name] for name in Recipe.model_fields if name in params}}
    for section in ("method", "model", "adapter"):
        inside = {name.partition(".")[2]: value for name, value in params.items() if name.startswith(f"{section}.")}
        if "name" in inside:
            inside["name"] = facts.base or PurePath(str(inside["name"])).name
        groups[section] = inside
    for section, settings in groups.items():
        written = ", ".join(f"{name} = {param(value)}" for name, value in settings.items() if value is not None)
        lines += [f"- {section}: {written}"] if written else []
    return lines


def _environment(facts: CardFacts) -> list[str]:
    system, definition = facts.study.facts, facts.study.definition
    lines = [f"- {remark}" for remark in facts.remarks]
    for section in ("resources", "sharding"):
        settings = definition.get(section)
        if isinstance(settings, dict):
            lines.append(f"- {section}: {_settings(settings)}")
    versions = {name.removeprefix("version."): system[name] for name in system if name.startswith("version.")}
    others = {name: system[name] for name in _ENVIRONMENT if name in system}
    return [*lines, *(f"- {_settings(group)}" for group in (versions, others) if group)]


def _settings(values: Mapping[str, Json] | Iterable[tuple[str, Json]]) -> str:
    return ", ".join(f"{name} {param(value)}" for name, value in dict(values).items() if value is not None)
