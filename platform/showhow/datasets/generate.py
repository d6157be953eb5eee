"""Generates a dataset into Parquet shards, in parallel with Ray Data or, when it is small, in this process.

Work is cut into blocks of candidates. A block is drawn from its own keyed stream, so who draws it does not matter; the
driver then sees the hashes of all questions, keeps the first of each, and every block writes what it keeps as one
shard. The bytes are therefore the same whatever the number of workers.
"""

import functools
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from numpy import ndarray

from showhow.datasets.examples import BLOCK_EXAMPLES, draw_block
from showhow.datasets.manifest import Manifest, Shard
from showhow.errors import UserError
from showhow.fingerprint import file_sha256
from showhow.study.dataset_spec import DatasetSpec
from showhow.tasks.explain import symbols

SCHEMA = pa.schema(
    [("question", pa.string()), ("target", pa.string()), ("answer", pa.string()), ("matched", pa.string())]
)

# Ray Data takes 4-5 s to start; below so many blocks this process alone is faster.
_BLOCKS_WORTH_A_CLUSTER = 16
# A task that yields fewer new questions than this share of its draws is exhausted.
_LEAST_NEW_SHARE = 0.02
_LEAST_DRAWN = 256  # a round, so that a few repeats at the end do not look like exhaustion

Block = dict[str, Any]
BlockFunction = Callable[[Block], Block]


def is_large(spec: DatasetSpec) -> bool:
    """True for datasets that are worth spreading over a cluster."""
    return spec.examples > _BLOCKS_WORTH_A_CLUSTER * BLOCK_EXAMPLES


def generate(spec: DatasetSpec, home: Path, on_cluster: bool) -> Path:
    """Return the folder of the dataset, generating it unless it is there already. `home` must be reachable from every
    worker.

    Raises UserError when the task has too few different questions, or when a finished shard no longer has its bytes."""
    folder = home / spec.fingerprint
    manifest = Manifest.read(folder)
    if manifest is not None:
        manifest.verify(folder)
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted generation
    folder.mkdir(parents=True)
    hashes, blocks = _draw_enough(spec, folder, on_cluster)
    kept = _first_of_each(np.concatenate(hashes), spec.examples)
    writes = [
        block | {"keep": np.flatnonzero(part)}
        for block, part in zip(blocks, np.split(kept, np.cumsum([len(part) for part in hashes])[:-1]), strict=True)
    ]
    written = _run(functools.partial(_write_shard, str(folder)), [w for w in writes if len(w["keep"])], on_cluster)
    _manifest(spec, written, candidates=_drawn_until_full(kept), folder=folder).write(folder)
    shutil.rmtree(folder / "candidates")
    return folder


def _draw_enough(
    spec: DatasetSpec, folder: Path, on_cluster: bool
) -> tuple[list[Int64[ndarray, " candidates"]], list[Block]]:
    """Draw blocks, in rounds, until they hold enough different questions."""
    (folder / "candidates").mkdir()
    blocks: list[Block] = []
    hashes: list[Int64[ndarray, " candidates"]] = []
    seen: Int64[ndarray, " questions"] = np.empty(0, dtype=np.int64)
    while len(seen) < spec.examples:
        missing = max(spec.examples - len(seen), _LEAST_DRAWN)
        first = len(blocks)
        new = [
            {"block": first + index, "examples": min(BLOCK_EXAMPLES, missing - index * BLOCK_EXAMPLES)}
            for index in range(math.ceil(missing / BLOCK_EXAMPLES))
        ]
        drawn = _run(functools.partial(_draw_candidates, spec.model_dump_json(), str(folder)), new, on_cluster)
        blocks += new
        hashes += [np.asarray(block["hashes"], dtype=np.int64) for block in drawn]
        before, seen = len(seen), np.unique(np.concatenate([seen, *hashes[first:]]))
        if len(seen) - before < _LEAST_NEW_SHARE * missing:
            shutil.rmtree(folder)
            raise UserError(
                f"the {spec.split} split asks for {spec.examples:,} different questions, but the task yields hardly "
                f"more than {len(seen):,} there; ask for fewer or make the task larger ({spec.task!r})"
            )
    return hashes, blocks


def _draw_candidates(spec_json: str, folder: str, block: Block) -> Block:
    spec = DatasetSpec.model_validate_json(spec_json)
    rows, hashes = draw_block(spec, int(block["block"]), int(block["examples"]))
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    pq.write_table(pa.table(columns, schema=SCHEMA), _candidates(folder, block), compression="none")
    return {"block": block["block"], "hashes": np.asarray(hashes, dtype=np.int64)}


def _write_shard(folder: str, block: Block) -> Block:
    candidates = pq.read_table(_candidates(folder, block), schema=SCHEMA)
    table = candidates.take(pa.array(np.asarray(block["keep"], dtype=np.int64)))
    path = Path(folder) / f"shard-{int(block['block']):05d}.parquet"
    pq.write_table(table, path, compression="zstd")
    texts = table["question"].to_pylist() + table["target"].to_pylist()
    return {
        "block": block["block"],
        "name": path.name,
        "rows": table.num_rows,
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "symbols": sum(len(symbols(text)) for text in texts),
        "answers": Counter(table["answer"].to_pylist()),
    }


def _candidates(folder: str, block: Block) -> Path:
    return Path(folder) / "candidates" / f"{int(block['block']):05d}.parquet"


def _first_of_each(hashes: Int64[ndarray, " candidates"], wanted: int) -> ndarray[Any, np.dtype[np.bool_]]:
    """Mark the first occurrence of each question, and of those only the first `wanted`."""
    kept = np.zeros(len(hashes), dtype=bool)
    first = np.sort(np.unique(hashes, return_index=True)[1])[:wanted]
    kept[first] = True
    return kept


def _drawn_until_full(kept: ndarray[Any, np.dtype[np.bool_]]) -> int:
    return int(np.flatnonzero(kept)[-1]) + 1


def _manifest(spec: DatasetSpec, written: Sequence[Block], candidates: int, folder: Path) -> Manifest:
    shards = sorted(written, key=lambda block: str(block["name"]))
    answers: Counter[str] = sum((Counter(block["answers"]) for block in shards), Counter())
    # Of equally common answers the first in order of spelling, so that the manifest does not depend on chance.
    majority = min(answers, key=lambda answer: (-answers[answer], answer))
    rows = sum(int(block["rows"]) for block in shards)
    return Manifest(
        fingerprint=folder.name,
        spec=spec,
        rows=rows,
        symbols=sum(int(block["symbols"]) for block in shards),
        candidates=candidates,
        duplicate_share=round(1 - rows / candidates, 6),
        chance=round(1 / len(spec.task.answers), 6),
        majority_answer=majority,
        majority_share=round(answers[majority] / rows, 6),
        shards=tuple(Shard.model_validate({name: block[name] for name in Shard.model_fields}) for block in shards),
    )


def _run(function: BlockFunction, blocks: Sequence[Block], on_cluster: bool) -> list[Block]:
    """Apply a function to each block, here or by Ray Data; the results stand in the order of the blocks."""
    if not on_cluster:
        return [function(block) for block in blocks]
    import ray  # loads in seconds, and small datasets never need it

    items = [{"item": block} for block in blocks]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    rows = dataset.map(lambda row: {"item": function(row["item"])}).take_all()
    results: list[Block] = [row["item"] for row in rows]
    return sorted(results, key=lambda block: int(block["block"]))
