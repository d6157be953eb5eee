"""Writes a trained run as a Hugging Face folder: weights, configuration, tokenizer, model card, and `showhow.json`.

transformers' own classes load it, and its replies are those of the run: the model is built as for training, and the
saved weights are loaded into it.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TextGenerationPipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.logging import disable_progress_bar

from showhow.datasets.atomic import atomic_folder
from showhow.datasets.prepare import Prepared
from showhow.datasets.tokenizer import StudyTokenizer
from showhow.errors import TrialError, UserError
from showhow.exports.tokenizer import licence_of, write_tokenizer
from showhow.exports.weights import write_model
from showhow.methods.base import Method
from showhow.methods.row import Row
from showhow.metrics import TEST
from showhow.models.exported import EXPORTED, Exported
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial
from showhow.training.checkpoints.files import read_weights
from showhow.training.evaluate import EXTRA_TOKENS
from showhow.training.model import build_model, is_seq2seq
from showhow.training.tokens import SpecialTokens, TokenFile


@dataclass(frozen=True)
class TrainedRun:
    """A run to export. key: its name in its study; weights: the folder of its checkpoints; prepared: its datasets."""

    study: str
    key: str
    trial: Trial
    seed: int
    weights: Path
    prepared: Prepared


@dataclass(frozen=True)
class Described:
    """The facts of a model card that come from the model and its base. dtype: of the written weights; licence: of the
    base, as in its card."""

    exported: Exported
    has_encoder: bool
    dtype: str
    licence: str | None


def export(run: TrainedRun, folder: Path, as_adapter: bool, card: Callable[[Described], str]) -> Exported:
    """Write a run to a folder, which appears complete or not at all; an earlier export there is replaced.

    Low-rank adapters are merged into their base unless `as_adapter`. Weights are written in float32, or in the 16-bit
    type of a pretrained base. Raises UserError when there are no usable weights."""
    disable_progress_bar()
    file = TokenFile(Path(run.prepared.shards[TEST]))
    words = StudyTokenizer.read(Path(run.prepared.tokenizer))
    model = _trained_model(run, file.special)
    exported = Exported(
        study=run.study,
        run=run.key,
        trial=run.trial,
        layout=file.layout,
        frame=words.frame,
        asked_as=_asked_as(run.trial.method),
        reply_tokens=int(file.target_lengths.max()),
        as_adapter=as_adapter,
    )
    with atomic_folder(folder, EXPORTED) as partial:
        dtype = write_model(model, run.trial, _greedy(file, model), partial, as_adapter)
        written = str(dtype).removeprefix("torch.")
        described = Described(exported, is_seq2seq(model), written, licence_of(run.trial.model))
        write_tokenizer(words, run.trial.model, partial)
        (partial / "README.md").write_text(card(described), encoding="utf-8")
        exported.write(partial)
        if (folder / EXPORTED).exists():
            shutil.rmtree(folder)
    return exported


def _asked_as(method: Method) -> tuple[str, str]:
    """Return the text that a method puts before and after a question. Raises UserError where its prompts have another
    form."""
    sign = "\ue000"  # a private-use character, which no prompt contains
    prompt = method.asked(Row(question=sign, prompt=sign, target="", answer="")).prompt
    before, found, after = prompt.partition(sign)
    if not found or sign in after:
        raise UserError(
            f"the method {method.kind} makes prompts that do not contain the question exactly once, so it has no export"
        )
    return before, after


def _trained_model(run: TrainedRun, special: SpecialTokens) -> Any:
    weights = read_weights(run.weights)
    if weights is None:
        raise UserError(
            f"{run.weights} contains no complete weights; they were removed or cut off, so the run cannot be exported"
        )
    spec = run.trial.model
    if isinstance(spec, PretrainedModel):
        spec = spec.model_copy(update={"quantise": "none"})  # an adapter is merged into weights that are not quantised
    try:
        model: Any = build_model(spec, special, run.seed, run.trial.adapter)
    except TrialError as error:
        raise UserError(str(error)) from None
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shapes = {name: parameter.shape for name, parameter in trained.items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise UserError(f"{run.weights} has weights of another model; has {run.trial.model} changed since the run?")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    return model.eval()


def _greedy(file: TokenFile, model: Any) -> GenerationConfig:
    """Return the settings of generation: the same as when the run was evaluated."""
    special, start = file.special, model.config.decoder_start_token_id if is_seq2seq(model) else None
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=int(file.target_lengths.max()) + EXTRA_TOKENS,
        pad_token_id=special.pad,
        eos_token_id=special.end,
        bos_token_id=special.start,
        decoder_start_token_id=special.pad if start is None and is_seq2seq(model) else start,
    )


def let_mlflow_describe() -> None:
    """Let MLflow describe a model by its folder, without loading it: MLflow 3.17 needs the class of a pipeline, where
    transformers 5.23 has put its name, though it accepts both."""
    PIPELINE_REGISTRY.supported_tasks["text-generation"]["impl"] = TextGenerationPipeline
