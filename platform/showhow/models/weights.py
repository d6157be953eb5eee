"""The names and shapes of the tensors in the safetensors files of a model's folder, read from the headers. Pure; no
weight is read.

Format: the length of the header in 8 bytes (little-endian), then the header in JSON: for each tensor its type, its
shape and its offsets in the rest of the file (https://github.com/huggingface/safetensors, "Format").
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_LONGEST_HEADER = 100_000_000  # bytes; the format's own bound
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Parts of the names of layers that have a matrix and are not linear layers: embeddings of tokens and of positions, and
# the output matrix.
_EMBEDDINGS = ("embed", "wte", "wpe", "shared", "relative_attention_bias", "lm_head")
_CONVERT = (
    "from transformers import {0}; {0}.from_pretrained(FOLDER, use_safetensors=False).save_pretrained(FOLDER) writes "
    "them as safetensors, if you trust who made them"
)


@dataclass(frozen=True)
class TensorShapes:
    """The tensors of a model: their shapes by name."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def matrices(self) -> list[str]:
        """The full names of the layers that have a matrix."""
        return [name.removesuffix(".weight") for name, shape in self.shapes.items() if len(shape) == 2]

    @property
    def linear_layers(self) -> list[str]:
        """The names, after the last dot, of the layers that an adapter can change."""
        names = {layer.rpartition(".")[2] for layer in self.matrices}
        return sorted(name for name in names if not is_embedding(name))

    def has_layer(self, target: str) -> bool:
        """True when a layer's name is `target`, or ends with a dot and `target`."""
        return any(is_called(layer, target) for layer in self.matrices)


def is_embedding(name: str) -> bool:
    """True for embeddings of tokens or positions, and for the output matrix."""
    return any(part in name for part in _EMBEDDINGS)


def is_called(layer: str, target: str) -> bool:
    """True when a layer's name is `target`, or ends with a dot and `target`."""
    return f".{layer}".endswith(f".{target}")


def read_weights(folder: Path) -> TensorShapes | str:
    """Return the tensors that transformers would load from a folder, or a message why it could not."""
    index = folder / INDEX
    if not index.is_file():
        if not (folder / _SINGLE).is_file():
            return _nothing_in(folder)
        return _read([folder / _SINGLE])
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return f"has an {INDEX} that cannot be read; copy it again from where the model comes from"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return f"lacks {', '.join(missing)}, which {INDEX} names; copy them from where the model comes from"
    return _read(folder / name for name in names)


def _nothing_in(folder: Path) -> str:
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if not pickled:
        return f"contains no weights: neither {_SINGLE} nor {INDEX}"
    kind = "AutoModelForSeq2SeqLM" if _is_seq2seq(folder) else "AutoModelForCausalLM"
    found = ", ".join(pickled[:3]) + (", ..." if len(pickled) > 3 else "")
    return f"contains only pickled weights ({found}), which could run any code when read; {_CONVERT.format(kind)}"


def _is_seq2seq(folder: Path) -> bool:
    try:
        return '"is_encoder_decoder": true' in (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _read(files: Iterable[Path]) -> TensorShapes | str:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        stat = path.stat()
        header = _header(path, stat.st_mtime_ns, stat.st_size)
        if header is None:
            return f"has weights that are truncated or not safetensors ({path.name}); copy them again"
        shapes |= header
    return TensorShapes(shapes)


@cache  # called for every trial of a study
def _header(path: Path, changed_at: int, size: int) -> dict[str, tuple[int, ...]] | None:  # noqa: ARG001 - a changed file is read again
    """Return the shapes in a file, or None where it is not complete."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, _LONGEST_HEADER):
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        shapes = {name: tuple(map(int, tensor["shape"])) for name, tensor in header.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    return shapes if 8 + length + max(ends, default=0) == size else None
