"""What a study will cost before it starts: runs, examples, tokens, disk, memory. Estimates from formulas and drawn
problems."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from showhow.seeds import rng_for
from showhow.study.dataset_spec import TRAIN, DatasetSpec
from showhow.study.recipe import PretrainedModel, ScratchModel
from showhow.study.study import Study
from showhow.study.trial import Trial
from showhow.tasks.base import Problem, Task
from showhow.tasks.explain import FILLER_SYMBOL, Level, explain, render, symbols

_PROBLEMS_DRAWN = 200
_SPECIAL_TOKENS = 3  # padding, the end, the unknown
# Parquet with zstd, and Arrow with 4 bytes a token, its text and its offsets. Four sets of modular_sum and listops
# datasets took 85% to 97% of this.
_DISK_BYTES_PER_SYMBOL, _DISK_BYTES_PER_ROW = 7, 10
# A process that has imported torch and transformers, resident.
_PROCESS_BYTES = 750_000_000
# float32 weights, gradients and Adam's two moments (Rajbhandari et al., arXiv 1910.02054, section 3.1, without fp16
# copies).
_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class LevelPlan:
    """One level: its trials, and the mean length in symbols of question and target."""

    level: Level
    trials: int
    prompt_symbols: float
    target_symbols: float


@dataclass(frozen=True)
class Plan:
    """A study's size. Training figures are upper bounds: stop rules and goals only lower them. parameters and memory
    are None for a pretrained model that is not on this disk. at_once: runs side by side on a machine of `cpus` CPUs."""

    levels: tuple[LevelPlan, ...]
    trials: int
    seeds: int
    datasets: int
    dataset_rows: int
    train_examples: int
    train_tokens: int
    parameters: int | None
    flops: float | None
    disk_bytes: int
    memory_bytes_per_run: int | None
    at_once: int

    @property
    def runs(self) -> int:
        """Trials times seeds."""
        return self.trials * self.seeds


def make_plan(study: Study, cpus: int) -> Plan:
    """Return what a study will cost. `cpus`: of the machine or cluster that it will run on."""
    trials = planned_trials(study)
    lengths = {trial.name: sum(mean_symbols(trial.dataset(TRAIN))) for trial in trials}
    tokens = {trial.name: round(lengths[trial.name] * trial.recipe.max_examples) for trial in trials}
    sizes = {trial.name: parameter_count(trial) for trial in trials}
    memories = [memory_bytes(trial, sizes[trial.name], lengths[trial.name]) for trial in trials]
    specs = {spec.fingerprint: spec for trial in trials for spec in map(trial.dataset, trial.splits)}
    seeds = len(study.seeds)
    known = [size for size in sizes.values() if size is not None]
    all_known = len(known) == len(trials)
    at_once = cpus // study.resources.cpus_per_device
    return Plan(
        levels=tuple(_level_plan(level, trials) for level in study.levels),
        trials=len(trials),
        seeds=seeds,
        datasets=len(specs),
        dataset_rows=sum(spec.examples for spec in specs.values()),
        train_examples=seeds * sum(trial.recipe.max_examples for trial in trials),
        train_tokens=seeds * sum(tokens.values()),
        parameters=max(known) if all_known else None,
        flops=seeds * sum(6.0 * (sizes[name] or 0) * count for name, count in tokens.items()) if all_known else None,
        disk_bytes=sum(_disk_bytes(spec) for spec in specs.values()),
        memory_bytes_per_run=max(memory or 0 for memory in memories) if all_known else None,
        at_once=min(at_once, study.resources.max_concurrent or at_once, len(trials) * seeds),
    )


def planned_trials(study: Study) -> tuple[Trial, ...]:
    """Return the trials; for a search that chooses as it goes, as many at the lower bounds of its axes."""
    if study.search.method == "random":
        return study.trials
    lows = {name: axis.extremes[0] for name, axis in study.search.axes.items()}
    points = [lows | {"explanation": level.value} for _ in range(study.search.samples) for level in study.levels]
    return tuple(study.trial(study.trial_name(index), point) for index, point in enumerate(points))


@cache
def mean_symbols(spec: DatasetSpec) -> tuple[float, float]:
    """Return the mean number of symbols in a question and in a target (its end counted), over some drawn problems."""
    return _mean_symbols(spec.task, spec.level, spec.control_length)


@cache
def _mean_symbols(task: Task, level: Level, control_length: Level) -> tuple[float, float]:
    layout, problems = task.text_format, _drawn(task)
    targets = [
        render(problem, level, layout, control_length, other)
        for problem, other in zip(problems, problems[1:] + problems[:1], strict=True)
    ]
    prompt = fmean(len(symbols(problem.question)) for problem in problems)
    return prompt, fmean(len(symbols(target)) + 1 for target in targets)


@cache
def _drawn(task: Task) -> list[Problem]:
    rng = rng_for("plan", task.model_dump_json())
    return [task.draw(rng) for _ in range(_PROBLEMS_DRAWN)]


@cache
def vocabulary_size(task: Task) -> int:
    """Return how many tokens the tokenizer made of a task's symbols has: special ones, each number, words and signs as
    far as drawn problems show them."""
    texts = [FILLER_SYMBOL]
    for problem in _drawn(task):
        texts += [problem.question, *(explain(problem, level, task.text_format) for level in Level if level.has_steps)]
    words = {symbol for text in texts for symbol in symbols(text) if not symbol.isdecimal()}
    return _SPECIAL_TOKENS + task.largest_number + 1 + len(words)


def parameter_count(trial: Trial) -> int | None:
    """Return the number of parameters; of a pretrained model from the headers of its safetensors files (None without
    them)."""
    if isinstance(trial.model, ScratchModel):
        return trial.model.parameter_count(_vocabulary(trial))
    return _stored_parameters(trial.model)


def _vocabulary(trial: Trial) -> int:
    """The splits share a tokenizer."""
    return max(vocabulary_size(trial.dataset(split).task) for split in trial.splits)


def _stored_parameters(model: PretrainedModel) -> int | None:
    """Add up the tensors named in the headers: 8 bytes of length (little-endian), then JSON
    (https://github.com/huggingface/safetensors, "Format")."""
    count = 0
    for path in Path(model.name).glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for extent in tensor["shape"]:
                    size *= extent
                count += size
    return count or None


def memory_bytes(trial: Trial, parameters: int | None, tokens: float) -> int | None:
    """Estimate the resident memory of a run: the process, weights and optimizer, and what the backward pass keeps.

    Activations: s b h (34 + 5 a s / h) bytes a layer in 16 bit (Korthikanti et al., arXiv 2205.05198, eq. 2), twice
    that in 32; s: tokens a row, b: rows at once, h: hidden size, a: attention heads."""
    if parameters is None:
        return None
    activations = 0.0
    if isinstance(trial.model, ScratchModel):
        rows = trial.recipe.micro_batch_size or trial.recipe.batch_size
        size, heads = trial.model.hidden_size, trial.model.attention_heads
        activations = 2 * tokens * rows * (34 * size + 5 * heads * tokens) * trial.model.layers
        activations += 3 * 4 * tokens * rows * _vocabulary(trial)
    return round(_PROCESS_BYTES + _BYTES_PER_PARAMETER * parameters + activations)


def _level_plan(level: Level, trials: tuple[Trial, ...]) -> LevelPlan:
    of_level = [trial for trial in trials if trial.level is level]
    lengths = [mean_symbols(trial.dataset(TRAIN)) for trial in of_level]
    return LevelPlan(level, len(of_level), fmean(p for p, _ in lengths), fmean(t for _, t in lengths))


def _disk_bytes(spec: DatasetSpec) -> int:
    return round(spec.examples * (sum(mean_symbols(spec)) * _DISK_BYTES_PER_SYMBOL + _DISK_BYTES_PER_ROW))
