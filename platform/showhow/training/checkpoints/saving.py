"""Checkpoints: a run saves its state to resume from, and its weights at the end.

A checkpoint's content does not depend on the engine nor on the number of processes: each process writes its share of
the tensors, and any number of processes can read them by name. The files are in files.py; home/retention.py decides
which runs keep theirs.
"""

import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import safe_open

from showhow.fingerprint import Json, fingerprint
from showhow.machines.assignment import Assignment
from showhow.training.checkpoints.files import (
    MANIFEST,
    WEIGHT,
    Manifest,
    Share,
    Standing,
    TensorFile,
    checkpoints_in,
    complete,
    named,
    write_json,
    write_tensors,
)
from showhow.training.engine import Engine
from showhow.training.ranks import agreed, dealt, gathered, rank, world_size

_LARGEST_FILE_BYTES = 2 * 10**9
# To wait for the shares of other processes; the second after an error, when some may be gone.
_PATIENCE_SECONDS, _LAST_PATIENCE_SECONDS = 1800.0, 10.0


class Checkpoints:
    """The checkpoints of one run. All its processes must call each method together.

    As a context manager it waits at its exit for pending writes, and raises their OSError unless it exits by another
    exception."""

    def __init__(self, run: Assignment, model: torch.nn.Module, stage: str = "", folder: Path | None = None) -> None:
        """`model`: as it is before an engine takes it; stage: the address of its training; folder: one other than the
        run's own."""
        self._run, self._folder = run, folder or run.checkpoints
        self._trained = _fingerprint(run if folder is None else None, model, stage)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._deadline = math.inf
        self._saved_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._deadline = time.monotonic() + _LAST_PATIENCE_SECONDS
        self._writer.shutdown(wait=True)
        if kind is None:
            self._settle()

    def resume(self, engine: Engine) -> Standing | None:
        """Load the state of the latest intact checkpoint into an engine, and return its standing; None where there is
        none. Newer ones are deleted: interrupted saves, corrupt files, weights of an end that was not recorded."""
        if self._folder is None:
            return None
        manifest, examples = self._latest(self._folder)
        if rank() == 0:
            for newer in checkpoints_in(self._folder):
                if int(newer.name) > examples:
                    shutil.rmtree(newer)
        if manifest is None:
            return None
        with ExitStack() as opened:
            folder = named(self._folder, examples)
            files = [opened.enter_context(safe_open(folder / file.name, "pt")) for file in manifest.files]
            places = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (not a dict)
            engine.load_state(lambda name: places[name].get_tensor(name), manifest.steps)
        return manifest.standing

    def _latest(self, folder: Path) -> tuple[Manifest | None, int]:
        """Return the latest checkpoint to resume from and its examples, or None and -1. Each process verifies its share
        of the files."""
        candidates = iter(complete(folder))
        # The first process chooses: another machine may see a folder a moment later.
        while (chosen := int(agreed(next(candidates, -1)))) >= 0:
            checkpoint = named(folder, chosen)
            manifest = Manifest.of(checkpoint)
            fits = manifest is not None and manifest.has_optimizer and manifest.trained == self._trained
            files = manifest.files if manifest is not None and fits else ()
            if all(gathered([fits and all(file.is_intact(checkpoint) for file in dealt(files))])):
                return manifest, chosen
        return None, -1

    def save_if_due(self, engine: Engine, standing: Standing) -> None:
        """Save the state if the last save was long enough ago. Waits for the previous save and until the tensors are
        copied; the files are written while training continues. Raises OSError where the previous save failed."""
        every = self._run.save_every_seconds
        if self._folder is not None and agreed(time.monotonic() - self._saved_at >= every):
            self._save(self._folder, engine, standing, with_optimizer=True)

    def save_weights(self, engine: Engine, standing: Standing) -> None:
        """Save only the weights, at the end of a run that may keep them, and wait until they are written. Raises
        OSError where that fails."""
        if self._folder is not None and self._run.keep_weights:
            self._save(self._folder, engine, standing, with_optimizer=False)
            self._settle()

    def _save(self, folder: Path, engine: Engine, standing: Standing, with_optimizer: bool) -> None:
        self._settle()
        target = named(folder, standing.progress.examples)
        target.mkdir(parents=True, exist_ok=True)
        stem = f"{rank() + 1:05}-of-{world_size():05}"
        shares = [
            self._writer.submit(write_tensors, target / f"{kind}-{stem}-{number:05}.safetensors", tensors)
            for number, (kind, tensors) in enumerate(_own_share(engine, with_optimizer))
        ]
        manifest = Manifest(
            trained=self._trained,
            steps=standing.progress.examples // self._run.trial.recipe.batch_size,
            standing=standing,
            has_optimizer=with_optimizer,
            processes=world_size(),
        )
        self._writing = self._writer.submit(self._complete, target, shares, manifest, rank())
        self._saved_at = time.monotonic()

    def _complete(self, target: Path, shares: list[Future[TensorFile]], manifest: Manifest, own_rank: int) -> None:
        """Report this process's files. The first process waits for all and writes the manifest."""
        try:
            files = tuple(share.result() for share in shares)
        except OSError as error:
            write_json(_share_of(target, own_rank), Share(error=str(error)))
            raise
        if own_rank > 0:
            write_json(_share_of(target, own_rank), Share(files=files))
            return
        for other in range(1, manifest.processes):
            files += self._files_in(_share_of(target, other))
        write_json(target / MANIFEST, manifest.model_copy(update={"files": files}))
        for old in [folder for folder in checkpoints_in(target.parent) if folder < target][:-1]:
            shutil.rmtree(old, ignore_errors=True)  # the next save removes the rest

    def _files_in(self, path: Path) -> tuple[TensorFile, ...]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not path.exists():
            time.sleep(0.02)
            if time.monotonic() > min(deadline, self._deadline):
                raise OSError(f"{path} is missing: another process could not write its share of the checkpoint")
        share = Share.model_validate_json(path.read_bytes())
        if share.error is not None:
            raise OSError(share.error)
        return share.files

    def _settle(self) -> None:
        """Wait for the pending save. Raises OSError where it failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _share_of(checkpoint: Path, number: int) -> Path:
    return checkpoint / f"share-{number + 1:05}.json"


def _own_share(engine: Engine, with_optimizer: bool) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield copies of this process's share of the state, one file at a time, weights and optimizer apart."""
    files: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "optimizer": {}}
    sizes = {"weights": 0, "optimizer": 0}
    for number, (name, tensor) in enumerate(engine.state(weights_only=not with_optimizer)):
        if number % world_size() != rank():
            continue
        kind = "weights" if name.startswith(WEIGHT) else "optimizer"
        files[kind][name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        sizes[kind] += tensor.nbytes
        if sizes[kind] >= _LARGEST_FILE_BYTES:
            yield kind, files[kind]
            files[kind], sizes[kind] = {}, 0
    yield from ((kind, tensors) for kind, tensors in files.items() if tensors)


def _fingerprint(run: Assignment | None, model: torch.nn.Module, stage: str) -> str:
    """Return what must match for a state to be loaded. run: None for a stage that runs share, which its address
    identifies."""
    # Without shapes: where processes partition a model as they load it, none has the full ones.
    names: list[Json] = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    own: dict[str, Json] = {} if run is None else {"trial": run.trial.model_dump(mode="json"), "seed": run.seed}
    return fingerprint({**own, "parameters": names, "stage": stage})
