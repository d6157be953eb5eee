"""Generates a dataset into Parquet shards, in parallel with Ray Data or, when it is small, in this process.

Work is divided into blocks of candidates. A block is drawn from its own keyed stream, so it does not matter which
process draws it. The driver then collects the hashes of all questions and selects the first of each, and every block
writes its selected rows as one shard. The bytes are therefore the same for any number of workers.
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

from showhow.datasets.atomic import atomic_folder
from showhow.datasets.claims import claimed
from showhow.datasets.examples import BLOCK_EXAMPLES, draw_block
from showhow.datasets.manifest import MANIFEST, Derivation, Manifest, Shard, Source
from showhow.errors import UserError
from showhow.fingerprint import file_sha256
from showhow.sections.dataset_spec import DatasetSpec
from showhow.tasks.base import Task
from showhow.tasks.explain import count_symbols
from showhow.tasks.imported.task import Imported

SCHEMA = pa.schema(
    [("question", pa.string()), ("target", pa.string()), ("answer", pa.string()), ("matched", pa.string())]
)

# Ray Data takes 4-5 s to start; with fewer blocks this process alone is faster.
_BLOCKS_WORTH_A_CLUSTER = 16
# A task that yields fewer different questions than this share of its draws is exhausted. To see each of a million
# equally likely questions takes some 14 million draws, so a dataset may contain every question of a task.
_LEAST_NEW_SHARE = 0.05
_LEAST_DRAWN = 256  # in a round, so that small datasets do not take many rounds

Block = dict[str, Any]
BlockFunction = Callable[[Block], Block]
Hashes = Int64[ndarray, " candidates"]


def is_large(spec: DatasetSpec) -> bool:
    """True for datasets that are worth generating on a cluster. Those of a listed task are not: each worker would read
    the complete list."""
    return spec.task.listed is None and spec.examples > _BLOCKS_WORTH_A_CLUSTER * BLOCK_EXAMPLES


def generate(spec: DatasetSpec, home: Path, on_cluster: bool) -> Path:
    """Return the folder of the dataset, and generate it if it does not exist. `home` must be reachable from every
    worker.

    Raises UserError when the task has too few different questions, or when a finished shard is corrupt."""
    folder = home / spec.fingerprint
    manifest = Manifest.read(folder)
    if manifest is not None:
        manifest.verify(folder)
        return folder
    with claimed(folder, folder / MANIFEST) as is_ours:  # another study may generate the same
        if is_ours:
            with atomic_folder(folder, MANIFEST) as partial:
                _generate(spec, partial, on_cluster).write(partial)
    return folder


def _generate(spec: DatasetSpec, folder: Path, on_cluster: bool) -> Manifest:
    """Write the shards and return their manifest."""
    hashes, blocks = _draw_enough(spec, folder, on_cluster)
    selected = _first_of_each(np.concatenate(hashes), spec.examples)
    writes = [
        block | {"keep": np.flatnonzero(part)}
        for block, part in zip(blocks, np.split(selected, np.cumsum([len(part) for part in hashes])[:-1]), strict=True)
    ]
    written = run_blocks(
        functools.partial(_write_shard, str(folder)), [w for w in writes if len(w["keep"])], on_cluster
    )
    shutil.rmtree(folder / "candidates")
    return _manifest(spec, written, candidates=int(np.flatnonzero(selected)[-1]) + 1)


def _draw_enough(spec: DatasetSpec, folder: Path, on_cluster: bool) -> tuple[list[Hashes], list[Block]]:
    """Draw blocks, in rounds, until they contain enough different questions."""
    (folder / "candidates").mkdir()
    draw = functools.partial(_draw_candidates, spec.model_dump_json(), str(folder))
    blocks: list[Block] = []
    hashes: list[Hashes] = []
    seen: Hashes = np.empty(0, dtype=np.int64)
    drawn, round_size = 0, max(spec.examples, _LEAST_DRAWN)
    while len(seen) < spec.examples:
        if drawn * _LEAST_NEW_SHARE >= max(spec.examples, _LEAST_DRAWN):
            raise _exhausted(spec, len(seen))
        first, before = len(blocks), len(seen)
        blocks += [
            {"block": first + index, "examples": min(BLOCK_EXAMPLES, round_size - index * BLOCK_EXAMPLES)}
            for index in range(math.ceil(round_size / BLOCK_EXAMPLES))
        ]
        hashes += [
            np.asarray(block["hashes"], dtype=np.int64) for block in run_blocks(draw, blocks[first:], on_cluster)
        ]
        seen = np.unique(np.concatenate([seen, *hashes[first:]]))
        drawn += round_size
        # As many as would suffice if the next round had the same share of duplicates as this one, so that a task that
        # yields nothing new is exhausted after few rounds.
        likely = math.ceil((spec.examples - len(seen)) * round_size / max(len(seen) - before, 1))
        round_size = max(min(likely, 4 * spec.examples), _LEAST_DRAWN)
    return hashes, blocks


def _exhausted(spec: DatasetSpec, found: int) -> UserError:
    if isinstance(spec.task, Imported):
        return UserError(
            f"the {spec.split} split asks for {spec.examples:,} different questions, but {spec.task.path} has "
            f"{found:,} there; ask for fewer"
        )
    return UserError(
        f"the {spec.split} split asks for {spec.examples:,} different questions, but the task yields hardly "
        f"more than {found:,} there; ask for fewer or make the task larger ({spec.task!r})"
    )


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
    return summary_of(table, path, int(block["block"]))


def summary_of(table: pa.Table, path: Path, block: int) -> Block:
    """Return a manifest's entries for a shard that was written."""
    texts = table["question"].to_pylist() + table["target"].to_pylist()
    answers = Counter(table["answer"].to_pylist())
    return {
        "block": block,
        "name": path.name,
        "rows": table.num_rows,
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "symbols": count_symbols(texts),
        # As lists, because Ray Data gives every row the keys of all rows.
        "answers": list(answers),
        "answer_counts": list(answers.values()),
    }


def _candidates(folder: str, block: Block) -> Path:
    return Path(folder) / "candidates" / f"{int(block['block']):05d}.parquet"


def _first_of_each(hashes: Hashes, wanted: int) -> ndarray[Any, np.dtype[np.bool_]]:
    """Return a mask of the first occurrence of each question, limited to the first `wanted`."""
    is_first = np.zeros(len(hashes), dtype=bool)
    first = np.sort(np.unique(hashes, return_index=True)[1])[:wanted]
    is_first[first] = True
    return is_first


def _manifest(spec: DatasetSpec, written: Sequence[Block], candidates: int) -> Manifest:
    found = manifest_of(spec, written, spec.fingerprint)
    share = round(1 - found.rows / candidates, 6)
    return found.model_copy(update={"candidates": candidates, "duplicate_share": share, "source": _source(spec)})


def manifest_of(
    spec: DatasetSpec, written: Sequence[Block], address: str, derivation: Derivation | None = None
) -> Manifest:
    """Return the manifest of a dataset whose shards were written; derivation: of a derived dataset."""
    shards = sorted(written, key=lambda block: str(block["name"]))
    answers: Counter[str] = Counter()
    for block in shards:
        answers.update(dict(zip(block["answers"], map(int, block["answer_counts"]), strict=True)))
    # Among equally common answers the first in sorting order, so that the manifest is deterministic.
    majority = min(answers, key=lambda answer: (-answers[answer], answer))
    rows = sum(int(block["rows"]) for block in shards)
    return Manifest(
        fingerprint=address,
        spec=spec.model_copy(update={"task": _without_folder(spec.task)}),
        rows=rows,
        symbols=sum(int(block["symbols"]) for block in shards),
        candidates=rows,
        duplicate_share=0.0,
        chance=round(spec.task.chance, 6),
        majority_answer=majority,
        majority_share=round(answers[majority] / rows, 6),
        shards=tuple(Shard.model_validate({name: block[name] for name in Shard.model_fields}) for block in shards),
        derivation=derivation,
    )


def _without_folder(task: Task) -> Task:
    """Return the task with the name of its file only, as manifests contain no paths."""
    return task.model_copy(update={"path": Path(task.path).name}) if isinstance(task, Imported) else task


def _source(spec: DatasetSpec) -> Source | None:
    if not isinstance(spec.task, Imported):
        return None
    rows = spec.task.rows
    return Source(
        rows_read=rows.read,
        rows_unusable=rows.bad,
        rows_repeated=rows.repeated,
        rows_contradicting=len(rows.contradictions),
        questions_in_split=spec.available or 0,
    )


def run_blocks(function: BlockFunction, blocks: Sequence[Block], on_cluster: bool) -> list[Block]:
    """Apply a function to each block, here or by Ray Data; the results are in the order of the blocks."""
    if not on_cluster:
        return [function(block) for block in blocks]
    import ray  # takes seconds to import, and small datasets never need it

    items = [{"item": block} for block in blocks]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    rows = dataset.map(lambda row: {"item": function(row["item"])}).take_all()
    results: list[Block] = [row["item"] for row in rows]
    return sorted(results, key=lambda block: int(block["block"]))
