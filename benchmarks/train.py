"""Training speed in tokens a second, one thread on a CPU: our loop, batches and engine beside transformers' `Trainer`.

The peer has its best settings: batches grouped by length, bfloat16, fused AdamW, examples as tensors beforehand, no
logging, saving or evaluation, and eager attention, which on a CPU is faster than its default (in bfloat16 the backward
pass of SDPA takes ten times as long). Its clock runs from `on_train_begin` to `on_train_end`, so setting up is not
counted, and it has a process of its own, because our engine changes how its process keeps memory. That both train the
same is checked first: from the same weights, over the same batches in float32, the losses of eight steps agree within
0.001 nats.

The limit is arithmetic: the floating-point operations of our step's matrix products, and of attention as transformers
does it (counted by torch's FlopCounterMode, which does not see ours), by the speed of a matrix product of 1024 x 1024 x
1024 in bfloat16 measured in the same run.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.measure import REPEATS, Figure, seconds, spread
from showhow.datasets.generate import generate
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.tasks import task_named
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, row_order, training_batches
from showhow.training.engine import PlainEngine
from showhow.training.loop import train
from showhow.training.losses import response_loss
from showhow.training.model import build_model, is_seq2seq
from showhow.training.precision import computes_in_bfloat16
from showhow.training.tokens import TokenFile

CHECKED_STEPS, NATS_APART = 8, 1e-3


@dataclass(frozen=True)
class Case:
    """A model, what it learns, and how many steps are timed at once."""

    name: str
    model: dict[str, Any]
    task: tuple[str, dict[str, Any]]
    batch_size: int
    steps: int


SUMS = ("modular_sum", {"terms": 6})
LISTS = ("listops", {"style": "symbols", "min_length": 3, "max_length": 20, "max_arguments": 4})
LLAMA = {"architecture": "llama", "rope_theta": 30.0, "initializer_range": 0.06, "tie_embeddings": False}
CASES = (
    Case("llama 0.3M", LLAMA | {"hidden_size": 128, "layers": 2, "heads": 8, "mlp_size": 256}, SUMS, 16, 60),
    Case("t5 0.3M", {"architecture": "t5", "hidden_size": 96, "layers": 1, "heads": 6}, SUMS, 16, 60),
)
LARGE_CASES = (
    Case("llama 5M", LLAMA | {"hidden_size": 256, "layers": 5, "heads": 8}, LISTS, 32, 10),
    Case("t5 5M", {"architecture": "t5", "hidden_size": 256, "layers": 3, "heads": 8}, LISTS, 32, 10),
)


def figures(full: bool = False) -> list[Figure]:
    """Measure the small models; in the long form the large ones too."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return [_figure(case, Path(folder)) for case in CASES + (LARGE_CASES if full else ())]


def _figure(case: Case, folder: Path) -> Figure:
    name, changes = case.task
    task = task_named(name, changes)
    # As many rows as are trained on: Trainer's batches begin with the longest rows.
    spec = DatasetSpec(
        task=task,
        level=Level.LONG,
        split=TRAIN,
        examples=case.batch_size * case.steps,
        seed=0,
        control_length=Level.LONG,
    )
    file = TokenFile(tokenise(generate(spec, folder, on_cluster=False), symbol_tokenizer([task]), 4096, 0.0))
    _check_equal_losses(case, file, folder)
    ours = _Ours(case, file)
    with ProcessPoolExecutor(1, get_context("spawn")) as other_process:
        pairs = [
            (ours.tokens_per_second(), other_process.submit(_peer_tokens_per_second, case, file.path, folder).result())
            for _ in range(1 + REPEATS)
        ]
    mine, theirs = ([pair[side] for pair in pairs[1:]] for side in (0, 1))
    limit = matmul_speed() / ours.operations_per_token()
    return Figure(f"training {case.name}", "tokens/s", median(mine), spread(mine), peer=median(theirs), limit=limit)


class _Ours:
    def __init__(self, case: Case, file: TokenFile, precision: str = "auto") -> None:
        self._recipe = _recipe(case, precision)
        self._file = file
        self.engine = PlainEngine(model_of(case, file), self._recipe)

    def tokens_per_second(self) -> float:
        """Train as a run does: the loop, its batches, its engine."""
        seq2seq = is_seq2seq(self.engine.model)
        batches = training_batches(Source(self._file, self._recipe, 0, seq2seq))
        (end,) = train(self.engine, self._recipe, batches, self._recipe.max_examples)
        return end.tokens / end.train_seconds

    def operations_per_token(self) -> float:
        """Floating-point operations of a step's matrix products, attention's included, by its tokens."""
        batches = list(_first(training_batches(Source(self._file, self._recipe, 0, is_seq2seq(self.engine.model)))))
        with FlopCounterMode(display=False) as ours:
            for batch in batches:
                self.engine.step(batch, 0.0)
        with FlopCounterMode(display=False) as of_transformers:
            for batch in batches:
                response_loss(self.engine.model, batch.micro_batches[0], may_be_lean=False).backward()
        counts = of_transformers.get_flop_counts()["Global"].items()
        of_attention = sum(count for operation, count in counts if "bmm" in str(operation))
        return (ours.get_total_flops() + of_attention) / sum(batch.tokens for batch in batches)


_peers: dict[str, "_Peer"] = {}


def _peer_tokens_per_second(case: Case, path: Path, folder: Path) -> float:
    """Runs in the peer's process, which keeps its trainer."""
    torch.set_num_threads(1)
    if case.name not in _peers:
        _peers[case.name] = _Peer(case, TokenFile(path), folder)
    return _peers[case.name].tokens_per_second()


class _Peer(TrainerCallback):  # type: ignore[misc]
    def __init__(self, case: Case, file: TokenFile, folder: Path) -> None:
        self._tokens, self._started, self._taken = 0, 0.0, 0.0
        self._seq2seq, self._pad = has_encoder(case), file.special.pad
        self._case, self._file, self._folder = case, file, folder
        self._rows = rows_for_trainer(file, range(len(file)), self._seq2seq)

    def tokens_per_second(self) -> float:
        self._tokens = 0
        trainer = _trainer(self._case, self._file, self._rows, self._folder, self._collate, precise=False)
        trainer.add_callback(self)
        trainer.train()
        return self._tokens / self._taken

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._taken = time.perf_counter() - self._started

    def _collate(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = padded(rows, self._pad)
        self._tokens += int(batch["attention_mask"].sum())
        if self._seq2seq:
            self._tokens += int((batch["labels"] != IGNORED).sum())
        return batch


def _check_equal_losses(case: Case, file: TokenFile, folder: Path) -> None:
    """Train both over the same batches in float32 and compare the losses of the first steps."""
    recipe = _recipe(case, "float32")
    engine = PlainEngine(model_of(case, file), recipe)
    engine.model.train()
    batches = training_batches(Source(file, recipe, 0, has_encoder(case)))
    ours = [float(engine.step(batch, recipe.learning_rate)[0]) for batch in _first(batches)]
    order = np.concatenate(list(_first(row_order(file.prompt_lengths + file.target_lengths, case.batch_size, 0))))
    rows = rows_for_trainer(file, order.tolist(), has_encoder(case))
    pad = file.special.pad
    trainer = _trainer(case, file, rows, folder, lambda some: padded(some, pad), precise=True)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not np.allclose(ours, theirs, atol=NATS_APART, rtol=0.0):
        raise AssertionError(f"{case.name}: the losses are not equal: {ours} and {theirs}")


def _trainer(
    case: Case, file: TokenFile, rows: list[dict[str, torch.Tensor]], folder: Path, collate: Any, *, precise: bool
) -> Trainer:
    recipe = _recipe(case, "auto")
    settings = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        bf16=not precise and computes_in_bfloat16(torch.device("cpu")),
        per_device_train_batch_size=case.batch_size,
        max_steps=CHECKED_STEPS if precise else case.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta2=recipe.beta_2,
        max_grad_norm=recipe.gradient_clip,
        train_sampling_strategy="sequential" if precise else "group_by_length",
        logging_strategy="steps" if precise else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model_of(case, file), args=settings, data_collator=collate, train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    return trainer


def padded(rows: list[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    """Return rows padded on the right to the longest, the labels with -100."""
    inputs = [row["input_ids"] for row in rows]
    return {
        "input_ids": pad_sequence(inputs, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=IGNORED),
    }


def rows_for_trainer(file: TokenFile, rows: Any, seq2seq: bool) -> list[dict[str, torch.Tensor]]:
    found = []
    for row in rows:
        prompt, target = (torch.from_numpy(part.astype(np.int64)) for part in (file.prompt(row), file.target(row)))
        if seq2seq:
            found.append({"input_ids": prompt, "labels": target})
        else:
            labels = torch.cat([torch.full_like(prompt, IGNORED), target])
            found.append({"input_ids": torch.cat([prompt, target]), "labels": labels})
    return found


def _recipe(case: Case, precision: str) -> Recipe:
    return Recipe.model_validate(
        {
            "batch_size": case.batch_size,
            "max_examples": case.batch_size * case.steps,
            "learning_rate": 5.5e-4,
            "beta_2": 0.99,
            "precision": precision,
        }
    )


def model_of(case: Case, file: TokenFile) -> torch.nn.Module:
    model: Any = build_model(ScratchModel.model_validate(case.model), file.special, 0)
    model.set_attn_implementation("eager")
    return model  # type: ignore[no-any-return]


def has_encoder(case: Case) -> bool:
    return bool(case.model["architecture"] == "t5")


def _first(batches: Iterator[Any]) -> Iterator[Any]:
    return islice(batches, CHECKED_STEPS)


def matmul_speed() -> float:
    """Floating-point operations a second of a large matrix product, in the type that training computes in."""
    dtype = torch.bfloat16 if computes_in_bfloat16(torch.device("cpu")) else torch.float32
    left, right = (torch.ones(1024, 1024, dtype=dtype) for _ in range(2))
    return 2 * 1024**3 / median(seconds(lambda: torch.mm(left, right)) for _ in range(10))
