"""The files of a checkpoint: their names, the manifest, how they are written atomically and verified.

A checkpoint is a folder named by the examples seen, in the run's own folder: safetensors files, and a manifest that is
written last, so its existence means that the checkpoint is complete. Weights and optimizer tensors are in
separate files, so that either can be read without the other.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from showhow.fingerprint import file_sha256
from showhow.training.loop import Progress

WEIGHT = "weight/"  # prefix of the names of parameters; the others are the optimizer's
MANIFEST = "manifest.json"
_STRICT = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Standing(BaseModel):
    """The progress of a run. reported: the metrics that it reported then; solved_at: examples seen when it first
    solved the task; eval_seconds: time spent evaluating."""

    model_config = _STRICT

    progress: Progress
    reported: dict[str, float] = {}
    solved_at: int | None = None
    eval_seconds: float = 0.0


class TensorFile(BaseModel):
    """One file of tensors."""

    model_config = _STRICT

    name: str
    bytes: int
    sha256: str

    def is_intact(self, checkpoint: Path) -> bool:
        """Return whether it is in a checkpoint as it was written."""
        path = checkpoint / self.name
        try:
            inside = path.parent == checkpoint and path.stat().st_size == self.bytes
            return inside and file_sha256(path) == self.sha256
        except OSError:
            return False


class Share(BaseModel):
    """What one process wrote, or why it could not."""

    model_config = _STRICT

    files: tuple[TensorFile, ...] = ()
    error: str | None = None


class Manifest(BaseModel):
    """The content of a checkpoint. trained: fingerprint of the trial, the seed, and the trained parameters' names."""

    model_config = _STRICT

    trained: str
    steps: int
    standing: Standing
    has_optimizer: bool
    processes: int
    files: tuple[TensorFile, ...] = ()

    @classmethod
    def of(cls, checkpoint: Path) -> "Manifest | None":
        """Return the manifest of a checkpoint; None where it is missing or unreadable."""
        try:
            return cls.model_validate_json((checkpoint / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return None


def read_weights(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return the latest weights in a run's folder of checkpoints, float32 by parameter name; only those trained.
    None where there is no complete and intact checkpoint."""
    for examples in complete(folder):
        checkpoint = named(folder, examples)
        manifest = Manifest.of(checkpoint)
        if manifest is not None and all(file.is_intact(checkpoint) for file in manifest.files):
            return dict(tensor for file in manifest.files for tensor in _weights(checkpoint / file.name))
    return None


def write_weights(folder: Path, weights: dict[str, torch.Tensor], trained: str) -> None:
    """Write weights that are not the result of training, by parameter name, where `read_weights` finds them."""
    checkpoint = named(folder, 0)
    checkpoint.mkdir(parents=True, exist_ok=True)
    file = write_tensors(checkpoint / "weights.safetensors", {f"{WEIGHT}{name}": one for name, one in weights.items()})
    nothing = Progress(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    manifest = Manifest(
        trained=trained, steps=0, standing=Standing(progress=nothing), has_optimizer=False, processes=1, files=(file,)
    )
    write_json(checkpoint / MANIFEST, manifest)


def _weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name.startswith(WEIGHT):
                yield name.removeprefix(WEIGHT), file.get_tensor(name)


def named(folder: Path, examples: int) -> Path:
    """Return the checkpoint that a run made after `examples` examples."""
    return folder / f"{examples:012}"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, complete or not, oldest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry for entry in entries if re.fullmatch(r"\d{12}", entry.name))


def complete(folder: Path) -> list[int]:
    """Return the examples of each complete checkpoint, latest first."""
    return [int(entry.name) for entry in reversed(checkpoints_in(folder)) if (entry / MANIFEST).exists()]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> TensorFile:
    """Write one file atomically. Raises OSError where that fails."""
    partial = _partial(path)
    try:
        save_file(tensors, partial)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    written = TensorFile(name=path.name, bytes=partial.stat().st_size, sha256=file_sha256(partial))
    _force(partial)
    partial.replace(path)
    return written


def write_json(path: Path, content: BaseModel) -> None:
    """Write a small file atomically, after all earlier writes to its folder."""
    partial = _partial(path)
    partial.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _force(partial)
    _force(path.parent)
    partial.replace(path)
    _force(path.parent)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


def _force(path: Path) -> None:
    """Make a file's content, or a folder's names, survive a power cut (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
