"""The manifest of a dataset: what produced it, what was counted, and the hash of each shard.

It is written last, so a dataset with a manifest is finished and one without was interrupted. It contains neither times
nor paths, so the same spec gives the same manifest byte for byte.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from showhow.datasets.atomic import atomic_file
from showhow.errors import UserError
from showhow.fingerprint import file_sha256
from showhow.sections.dataset_spec import DatasetSpec
from showhow.sections.scalars import STRICT

MANIFEST = "manifest.json"


class Shard(BaseModel):
    """One Parquet file: its name within the dataset's folder, rows, bytes, and the SHA-256 of the bytes."""

    model_config = STRICT

    name: str
    rows: int
    bytes: int
    sha256: str


class Source(BaseModel):
    """Counts of the rows of an imported file: those read; those unusable, by reason; those that repeat the question of
    an earlier row, and among these those with another answer. The other rows have a question each;
    questions_in_split: how many of them belong to the dataset's split."""

    model_config = STRICT

    rows_read: int
    rows_unusable: dict[str, int]
    rows_repeated: int
    rows_contradicting: int = 0
    questions_in_split: int


class Derivation(BaseModel):
    """How a dataset was derived from others: the operation, its version, its settings, and the fingerprints of its
    inputs."""

    model_config = STRICT

    operation: str
    version: int
    settings: dict[str, Any]
    inputs: tuple[str, ...]


class Manifest(BaseModel):
    """What produced a dataset.

    spec: of the problems that it contains, or that it was derived from. symbols: of questions and targets, which are
    the tokens of the from-scratch tokenizer. duplicate_share: the share of the drawn candidates that repeated a
    question and were dropped. chance: how often guessing is right. majority_answer, majority_share: the commonest
    answer and how often it is right. source: of an imported dataset. derivation: of a derived dataset."""

    model_config = STRICT

    fingerprint: str
    spec: DatasetSpec
    rows: int
    symbols: int
    candidates: int
    duplicate_share: float
    chance: float
    majority_answer: str
    majority_share: float
    shards: tuple[Shard, ...]
    source: Source | None = None
    derivation: Derivation | None = None

    def write(self, folder: Path) -> None:
        """Write the manifest in one move, so that it is there completely or not at all."""
        with atomic_file(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Return the manifest of a finished dataset, or None for one that is missing or was interrupted."""
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(
                f"{path} is not a manifest of this version ({error.error_count()} faults); delete its folder"
            ) from None

    def verify(self, folder: Path) -> None:
        """Compare each shard with its hash. Raises UserError naming the first shard that is missing or corrupt."""
        for shard in self.shards:
            path = folder / shard.name
            if not path.is_file():
                raise UserError(f"{path} is missing; delete {folder} and it will be generated again")
            if path.stat().st_size != shard.bytes or file_sha256(path) != shard.sha256:
                raise UserError(
                    f"{path} is corrupt: its bytes do not have the hash in {MANIFEST}; "
                    f"delete {folder} and it will be generated again"
                )
