"""Training over several devices by DeepSpeed: tokens a second and the peak memory of a process, two processes on a CPU
(gloo, ZeRO stage 2), beside transformers' `Trainer` given the same DeepSpeed JSON. On a GPU: the share of its peak.

The peer has its best settings, as in `train`: batches grouped by length, fused AdamW, examples as tensors beforehand,
eager attention; its clock runs while it trains. Rows differ in length (listops). That both train the same is checked
first: from the same weights, over the same batches in float32, the losses of eight steps agree within 0.001 nats.
"""

import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.measure import REPEATS, Figure, spread
from benchmarks.train import (
    CHECKED_STEPS,
    LISTS,
    LLAMA,
    NATS_APART,
    Case,
    has_encoder,
    model_of,
    padded,
    rows_for_trainer,
)
from benchmarks.utilisation import GPU_SIZES, utilisation
from showhow.datasets.generate import generate
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.machines.deepspeed_config import Precision, deepspeed_config
from showhow.machines.layout import Layout
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.sections.recipe import Recipe
from showhow.tasks import task_named
from showhow.tasks.explain import Level
from showhow.training.batches import IGNORED, Source, row_order, training_batches
from showhow.training.loop import train
from showhow.training.precision import computes_in_bfloat16
from showhow.training.ranks import gathered, summed
from showhow.training.tokens import TokenFile

PROCESSES = 2
CASES = (Case("llama 5M", LLAMA | {"hidden_size": 256, "layers": 5, "heads": 8}, LISTS, 32, 12),)
LARGE_CASES = (Case("t5 5M", {"architecture": "t5", "hidden_size": 256, "layers": 3, "heads": 8}, LISTS, 32, 12),)


def figures(full: bool = False) -> list[Figure]:
    """Measure a llama, in the long form a T5 too; on a GPU models as large as it is for."""
    found = [figure for case in CASES + (LARGE_CASES if full else ()) for figure in _of_case(case)]
    return found + ([utilisation(*sizes) for sizes in GPU_SIZES] if torch.cuda.is_available() else [])


def _of_case(case: Case) -> list[Figure]:
    name, changes = case.task
    task = task_named(name, changes)
    # As many as are trained on at once, since Trainer begins with the longest.
    rows = case.batch_size * case.steps
    spec = DatasetSpec(task=task, level=Level.LONG, split=TRAIN, examples=rows, seed=0, control_length=Level.LONG)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        made = generate(spec, Path(folder), on_cluster=False)
        tokens = tokenise(made, symbol_tokenizer([task]), 4096, 0.0)
        ours, peer = (stack.enter_context(_processes(side, case, tokens)) for side in (_Ours, _Peer))
        ours.ask("speed"), peer.ask("speed")
        memory, memory_of_peer = ours.ask("memory"), peer.ask("memory")
        pairs = [(ours.ask("speed"), peer.ask("speed")) for _ in range(REPEATS)]
        _check_equal_losses(case, ours.ask("losses"), peer.ask("losses"))
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    where = f"{PROCESSES} processes, {case.name}"
    return [
        Figure(f"training, {where}", "tokens/s", median(mine), spread(mine), peer=median(theirs)),
        Figure(f"peak memory, {where}", "MB", memory, 0.0, peer=memory_of_peer, is_rate=False),
    ]


def _check_equal_losses(case: Case, ours: list[float], theirs: list[float]) -> None:
    # Trainer takes a T5 for a model that divides by the number of targets, so it multiplies its losses, which are the
    # means of each process, by the number of processes; gradients are clipped to the same.
    times, apart = (PROCESSES, 20 * NATS_APART) if has_encoder(case) else (1, NATS_APART)
    if len(ours) != CHECKED_STEPS or not np.allclose(ours, np.array(theirs) / times, atol=apart, rtol=0.0):
        raise AssertionError(f"{case.name}: the losses are not equal: {ours} and {theirs}")


@dataclass(frozen=True)
class _Processes:
    """Processes that train together when they are asked to."""

    ends: list[Connection]

    def ask(self, what: str) -> Any:
        """Let all do something, and return what the first says of it."""
        for end in self.ends:
            end.send(what)
        said = [end.recv() for end in self.ends]
        return said[0]


@contextmanager
def _processes(side: type["_Side"], case: Case, tokens: Path) -> Iterator[_Processes]:
    context, port = get_context("spawn"), _free_port()
    pairs = [context.Pipe() for _ in range(PROCESSES)]
    started = [
        context.Process(target=_serve, args=(side, case, tokens, number, port, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pairs)
    ]
    for process, (_, theirs) in zip(started, pairs, strict=True):
        process.start()
        theirs.close()  # so that its end is seen here when the process ends
    try:
        yield _Processes([mine for mine, _ in pairs])
    finally:
        for process, (mine, _) in zip(started, pairs, strict=True):
            mine.close()
            process.join()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _serve(side: type["_Side"], case: Case, tokens: Path, number: int, port: int, asked: Connection) -> None:
    """Runs in each process until nobody asks any more."""
    torch.set_num_threads(1)
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": PROCESSES, "MASTER_PORT": port}
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    os.environ |= {name: str(value) for name, value in names.items()}
    torch.distributed.init_process_group("gloo")
    answers = side(case, TokenFile(tokens))
    try:
        while True:
            what = asked.recv()
            if what == "memory":
                asked.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
            else:
                asked.send(answers.losses() if what == "losses" else answers.tokens_per_second())
    except EOFError:
        torch.distributed.destroy_process_group()


class _Side:
    """What either side does in each of its processes."""

    def __init__(self, case: Case, file: TokenFile) -> None:
        self.case, self.file = case, file

    def losses(self) -> list[float]:
        """Return the losses of the first steps in float32, over the batches of `training_batches`."""
        raise NotImplementedError

    def tokens_per_second(self) -> float:
        """Train for the case's steps."""
        raise NotImplementedError


class _Ours(_Side):
    def __init__(self, case: Case, file: TokenFile) -> None:
        super().__init__(case, file)
        self._recipe, self._timed = self._engine("auto")

    def losses(self) -> list[float]:
        recipe, engine = self._engine("float32")
        engine.model.train()
        batches = training_batches(
            Source(self.file, recipe, 0, has_encoder(self.case)), self.case.batch_size // PROCESSES
        )
        steps = [engine.step(batch, recipe.learning_rate) for batch in islice(batches, CHECKED_STEPS)]
        return [float(summed(loss)) for loss, _ in steps]

    def tokens_per_second(self) -> float:
        batches = training_batches(Source(self.file, self._recipe, 0, has_encoder(self.case)))
        (end,) = train(self._timed, self._recipe, batches, self._recipe.max_examples)
        return end.tokens / end.train_seconds

    def _engine(self, precision: str) -> tuple[Recipe, Any]:
        from showhow.training.deepspeed_engine import DeepSpeedEngine

        recipe = _recipe(self.case, precision)
        return recipe, DeepSpeedEngine(model_of(self.case, self.file), recipe, _layout(self.case))


class _Peer(_Side, TrainerCallback):  # type: ignore[misc]
    def __init__(self, case: Case, file: TokenFile) -> None:
        super().__init__(case, file)
        self._tokens, self._started, self._taken = 0, 0.0, 0.0
        self._rows = rows_for_trainer(file, range(len(file)), has_encoder(case))

    def losses(self) -> list[float]:
        order = row_order(self.file.prompt_lengths + self.file.target_lengths, self.case.batch_size, 0)
        # Trainer gives the processes one micro-batch after another, and we deal a batch among them.
        rows = [
            row for whole in islice(order, CHECKED_STEPS) for own in range(PROCESSES) for row in whole[own::PROCESSES]
        ]
        trainer = self._trainer(rows_for_trainer(self.file, rows, has_encoder(self.case)), precise=True)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    def tokens_per_second(self) -> float:
        import deepspeed

        trainer = self._trainer(self._rows, precise=False)
        trainer.add_callback(self)
        self._tokens = 0
        trainer.train()
        if not isinstance(trainer.model_wrapped, deepspeed.DeepSpeedEngine):
            raise AssertionError("Trainer trained without DeepSpeed")
        return sum(gathered([self._tokens])) / self._taken

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._taken = time.perf_counter() - self._started

    def _collate(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = padded(rows, self.file.special.pad)
        self._tokens += int(batch["attention_mask"].sum())
        if has_encoder(self.case):
            self._tokens += int((batch["labels"] != IGNORED).sum())
        return batch

    def _trainer(self, rows: list[dict[str, torch.Tensor]], *, precise: bool) -> Trainer:
        case, recipe, model = self.case, _recipe(self.case, "auto"), model_of(self.case, self.file)
        # By itself accelerate takes DeepSpeed without a GPU for one process, and deals no batches out.
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState(cpu=True).distributed_type = DistributedType.DEEPSPEED
        half = not precise and computes_in_bfloat16(torch.device("cpu"))
        precision: Precision = "bfloat16" if half else "float32"
        settings = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            accelerator_config={"use_configured_state": True},
            deepspeed=deepspeed_config(recipe, _layout(case), precision, sum(map(torch.numel, model.parameters()))),
            per_device_train_batch_size=case.batch_size // PROCESSES,
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
        trainer = Trainer(model=model, args=settings, data_collator=self._collate, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        return trainer


def _layout(case: Case) -> Layout:
    return Layout(devices=PROCESSES, micro_batch_size=case.batch_size // PROCESSES, zero_stage=2)


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
