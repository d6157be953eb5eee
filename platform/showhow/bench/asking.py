"""The stages without training: `reply`, in which a model answers prompts, and `score`, the mean nats of its
targets."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from showhow.bench.job import Job, first_alone
from showhow.bench.models import StagedModel
from showhow.bench.stages import StageRecord
from showhow.datasets import derived
from showhow.datasets.dataset import Dataset
from showhow.datasets.manifest import Derivation
from showhow.errors import TrialError
from showhow.methods.bench import Sampling, Spent
from showhow.methods.row import Row
from showhow.seeds import seed_for
from showhow.tasks.base import TextFormat
from showhow.tasks.explain import Level
from showhow.tasks.grading import form_of, grade
from showhow.training.batches import IGNORED, causal_batch, seq2seq_batch
from showhow.training.engine import Engine, this_device
from showhow.training.evaluate import EXTRA_TOKENS
from showhow.training.losses import target_logits
from showhow.training.memory import memory_needed_for
from showhow.training.model import forward_flops_per_token, is_seq2seq
from showhow.training.ranks import dealt, gathered, highest, is_shared_out
from showhow.training.replies.reply import written_replies
from showhow.training.tokens import TokenFile

_VERSION = 1


def score(job: Job, model: StagedModel, data: Dataset, column: str) -> Dataset:
    """Return the rows with a column: the mean nats of a target token under a model."""

    def compute(engine: Engine, file: TokenFile) -> tuple[list[dict[str, Any]], int]:
        values = _nats(job, engine, file)
        return [{column: value} for value in values], int(file.prompt_lengths.sum() + file.target_lengths.sum())

    return _read_by(job, "score", {"column": column}, model, data, compute)


def reply(job: Job, model: StagedModel, data: Dataset, sampling: Sampling) -> Dataset:
    """Return a row for each reply, with the columns `reply` and `reply_number`."""
    settings = {"temperature": sampling.temperature, "replies": sampling.replies, "max_tokens": sampling.max_tokens}

    def compute(engine: Engine, file: TokenFile) -> tuple[list[dict[str, Any]], int]:
        texts, tokens = _written(job, engine, file, sampling)
        return [{"reply": text, "reply_number": number} for text, number in texts], tokens

    return _read_by(job, "reply", settings, model, data, compute)


def graded(job: Job, replies: Dataset) -> Dataset:
    """Return replies with the columns `right` and, where the target has steps, `steps_right`."""
    own = job.run.trial.task.text_format
    new = job.words.layout(own)
    function = partial(
        _graded,
        level=replies.manifest.spec.level.value,
        separators=f"{own.step_separator}\x1f{new.step_separator}",
        prefix=new.answer_prefix,
    )
    return job.data.map(replies, function, version=2)


def _graded(row: Row, level: str, separators: str, prefix: str) -> list[Row]:
    own, new = separators.split("\x1f")
    reply = row.columns.get("reply")
    if not isinstance(reply, str):
        raise TrialError(f'the row "{row.question}" has no reply to grade')
    target, layout = row.target.replace(own, new), TextFormat(new, prefix)
    found = grade(reply, target, form_of(target, Level(level), layout), layout)
    steps = {} if found.steps_right is None else {"steps_right": found.steps_right}
    return [row.with_(right=found.answer_right, **steps)]


def _read_by(
    job: Job, operation: str, settings: dict[str, Any], model: StagedModel, data: Dataset, compute: Any
) -> Dataset:
    """Return the rows with columns that a model computes. `compute` returns these, one or several dicts for each row in
    order, and the number of tokens that the model read or wrote."""
    trial, inputs = job.run.trial, (model.address, data.address)
    settings = settings | {
        "tokens": [job.words.fingerprint, trial.data.max_tokens],
        "precision": trial.recipe.precision,
    }
    if settings.get("temperature"):
        settings["seed"] = job.run.seed
    address = job.stages.address(operation, _VERSION, settings, inputs)
    derivation = Derivation(operation=operation, version=_VERSION, settings=settings, inputs=inputs)
    with job.stages.claimed(address) as is_ours:
        if is_ours:
            started, file = time.perf_counter(), job.file(data)
            if len(file) < len(data):
                raise TrialError(f"{operation}: {len(data) - len(file):,} rows are longer than data.max_tokens")
            engine = job.models.engine(model)
            columns, tokens = compute(engine, file)
            first_alone(lambda: derived.from_rows(_joined(data, columns), data, job.data.folder, derivation))
            record = StageRecord(
                operation=operation,
                settings=settings,
                inputs=inputs,
                tokens=tokens,
                flops=forward_flops_per_token(engine.model, engine.flops_per_token) * tokens,
                seconds=time.perf_counter() - started,
                models=0,
            )
            job.stages.finish(address, record)
    found, made = job.stages.finished(address), derived.found(job.data.folder, derivation)
    if found is None or made is None:
        raise TrialError(f"{job.stages.path(address)} or its data were removed; delete it and run the study again")
    spent = Spent(tokens=found.tokens, flops=found.flops)
    job.charge("replies" if operation == "reply" else "scores", spent)
    job.listeners.stage(operation, address, not is_ours, spent, found.seconds)
    return made


def _joined(data: Dataset, columns: Sequence[dict[str, Any]]) -> list[Row]:
    each = len(columns) // len(data)
    return [row.with_(**columns[number * each + one]) for number, row in enumerate(data.rows()) for one in range(each)]


def _nats(job: Job, engine: Engine, file: TokenFile) -> list[float]:
    """Return the mean nats of a target token for each row. The rows are split among the processes."""
    collate = seq2seq_batch if is_seq2seq(engine.model) else causal_batch
    order = np.argsort(file.prompt_lengths + file.target_lengths, kind="stable")
    own = dealt(order.tolist())
    at_once = max(1, job.run.layout.micro_batch_size)
    found: list[float] = []
    engine.model.eval()
    # All processes gather each layer of sharded weights, so one without remaining rows reads a row again.
    together = is_shared_out(engine.model)
    batches = -(-len(own) // at_once)
    for batch_number in range(int(highest(batches)) if together else batches):
        chosen = own[batch_number * at_once : (batch_number + 1) * at_once]
        rows = np.array(chosen if len(chosen) else order[:1])
        batch = {name: tensor.to(this_device()) for name, tensor in collate(file, rows).items()}
        with memory_needed_for(f"scoring {len(rows)} rows at a time"), torch.no_grad(), engine.autocast():
            logits, labels = target_logits(engine.model, batch, not together)
            losses = cross_entropy(logits, labels, reduction="none")
        found += _means(losses, (batch["labels"] != IGNORED).sum(dim=1))[: len(chosen)]
    scores = np.empty(len(file))
    scores[order] = gathered(found)
    return [float(one) for one in scores]


def _means(losses: Float[Tensor, " targets"], lengths: Tensor) -> list[float]:
    return [float(part.mean()) for part in torch.split(losses, lengths.tolist())]


def _written(job: Job, engine: Engine, file: TokenFile, sampling: Sampling) -> tuple[list[tuple[str, int]], int]:
    """Return `sampling.replies` replies to each prompt in order, each with its number; and the number of tokens read
    and written."""
    longest = sampling.max_tokens or int(file.target_lengths.max()) + EXTRA_TOKENS
    prompts = [file.prompt(row) for row in range(len(file)) for _ in range(sampling.replies)]
    own = dealt(prompts)
    at_once = job.run.layout.asked_at_once or job.run.trial.evaluation.batch_size
    seed = seed_for("replies", job.run.seed, repr(sampling.temperature))
    with memory_needed_for(f"writing replies to {at_once} questions at a time"), engine.autocast():
        written = written_replies(engine.model, own, file.special, longest, at_once, (sampling.temperature, seed))
    texts: list[str] = gathered(job.words.tokenizer.decode_batch(written, skip_special_tokens=True))
    tokens = sum(gathered([len(prompt) + len(one) for prompt, one in zip(own, written, strict=True)]))
    return [(text, number % sampling.replies) for number, text in enumerate(texts)], tokens
