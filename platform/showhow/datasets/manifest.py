"""The manifest of a dataset: what it is, what was counted while making it, and the hash of each shard.

It is written last, so a dataset with a manifest is finished and one without was interrupted. It holds neither times nor
places, so the same spec gives the same manifest byte for byte.
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
    """What became of the rows of an imported file: how many were read; were unusable, by reason; repeated a question of
    an earlier row, and of those how many with another answer. The others have a question each, of which so many belong
    to the dataset's split."""

    model_config = STRICT

    rows_read: int
    rows_unusable: dict[str, int]
    rows_repeated: int
    rows_contradicting: int = 0
    questions_in_split: int


class Derivation(BaseModel):
    """How a dataset was made of others: the operation, the version of what it does, its settings, and the fingerprints
    of its inputs."""

    model_config = STRICT

    operation: str
    version: int
    settings: dict[str, Any]
    inputs: tuple[str, ...]


class Manifest(BaseModel):
    """What produced a dataset. spec: of the problems that it holds, or that it was derived from. symbols: tokens as the
    from-scratch tokenizer counts them, questions and targets. duplicate_share: of the candidates drawn, the share
    dropped because the question was there already. chance: how often guessing is right. majority_answer,
    majority_share: the commonest answer and how often it is right. source: of an imported dataset; derivation: of one
    that was made of others."""

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
        """Write the manifest in one move, so that it is there whole or not at all."""
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
        """Compare each shard with its hash. Raises UserError naming the first that is missing or has other bytes."""
        for shard in self.shards:
            path = folder / shard.name
            if not path.is_file():
                raise UserError(f"{path} is missing; delete {folder} and it will be generated again")
            if path.stat().st_size != shard.bytes or file_sha256(path) != shard.sha256:
                raise UserError(
                    f"{path} is corrupt: its bytes do not have the hash in {MANIFEST}; "
                    f"delete {folder} and it will be generated again"
                )
