"""Laws of datasets: whole or not at all, no question twice, counted rightly, the same bytes for the same spec."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from showhow.datasets.atomic import atomic_file
from showhow.datasets.examples import draw_block, question_hash
from showhow.datasets.generate import generate
from showhow.datasets.manifest import MANIFEST, Manifest
from showhow.errors import UserError
from showhow.fingerprint import file_sha256
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level, symbols

GENERATE = """
import sys
from pathlib import Path
from showhow.datasets.generate import generate
from showhow.sections.dataset_spec import DatasetSpec
print("ready", flush=True)
sys.stdin.readline()
generate(DatasetSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), on_cluster=False)
"""


def spec(examples: int, level: Level = Level.LONG, split: str = TRAIN, **changes: Any) -> DatasetSpec:
    task = task_named("modular_sum", {"terms": 3} | changes)
    return DatasetSpec(task=task, level=level, split=split, examples=examples, seed=0, control_length=Level.LONG)


def made(of: DatasetSpec, home: Path) -> tuple[Path, Manifest]:
    folder = generate(of, home, on_cluster=False)
    manifest = Manifest.read(folder)
    assert manifest is not None
    return folder, manifest


def table(folder: Path, manifest: Manifest) -> pa.Table:
    return pa.concat_tables(pq.read_table(folder / shard.name) for shard in manifest.shards)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def started(of: DatasetSpec, home: Path) -> subprocess.Popen[str]:
    """A process that generates the dataset once it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", GENERATE, of.model_dump_json(), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize(("examples", "terms"), [(1, 3), (255, 3), (700, 3), (9000, 5)])
def test_a_dataset_has_exactly_the_rows_asked_for_and_no_question_twice(
    tmp_path: Path, examples: int, terms: int
) -> None:
    folder, manifest = made(spec(examples, terms=terms), tmp_path)
    questions = table(folder, manifest)["question"].to_pylist()
    assert len(questions) == len(set(questions)) == examples == manifest.rows == sum(s.rows for s in manifest.shards)


def test_duplicates_are_counted_as_someone_with_paper_and_pencil_would(tmp_path: Path) -> None:
    of = spec(300)  # some 800 questions belong to training, so candidates repeat themselves
    folder, manifest = made(of, tmp_path)
    seen: dict[str, str] = {}
    candidates = 0
    for row in draw_block(of, 0, 300)[0] + draw_block(of, 1, 256)[0]:
        if len(seen) == 300:
            break
        candidates += 1
        seen.setdefault(row.question, row.target)
    assert manifest.candidates == candidates > 300
    assert manifest.duplicate_share == pytest.approx(1 - 300 / candidates, abs=1e-6)
    rows = table(folder, manifest)
    assert dict(zip(rows["question"].to_pylist(), rows["target"].to_pylist(), strict=True)) == seen


def test_the_manifest_counts_answers_symbols_and_bytes_rightly(tmp_path: Path) -> None:
    folder, manifest = made(spec(500, below=7, modulus=4, terms=4), tmp_path)
    rows = table(folder, manifest)
    counts = Counter(rows["answer"].to_pylist())
    assert manifest.chance == 0.25
    assert counts[manifest.majority_answer] == max(counts.values())
    assert manifest.majority_share == pytest.approx(max(counts.values()) / 500, abs=1e-6)
    texts = rows["question"].to_pylist() + rows["target"].to_pylist()
    assert manifest.symbols == sum(len(symbols(text)) for text in texts)
    for shard in manifest.shards:
        path = folder / shard.name
        assert (path.stat().st_size, file_sha256(path)) == (shard.bytes, shard.sha256)
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_same_spec_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    one, _ = made(spec(9000, Level.SHUFFLED, terms=5), tmp_path / "one")
    other, _ = made(spec(9000, Level.SHUFFLED, terms=5), tmp_path / "two" / "deeper")
    assert contents(one) == contents(other)


def test_a_finished_dataset_is_reused(tmp_path: Path) -> None:
    folder, _ = made(spec(300), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    assert generate(spec(300), tmp_path, on_cluster=False) == folder
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before


def test_a_dataset_without_a_manifest_is_made_again(tmp_path: Path) -> None:
    folder, _ = made(spec(300), tmp_path)
    whole = contents(folder)
    (folder / MANIFEST).unlink()
    (folder / "shard-00000.parquet").write_bytes(b"half of it")
    (folder / "shard-00009.parquet").write_bytes(b"of an older generation")
    made(spec(300), tmp_path)
    assert contents(folder) == whole


def test_a_generation_killed_in_the_middle_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    of = spec(40_000, terms=6)
    process = started(of, tmp_path)
    go(process)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("**/candidates/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert Manifest.read(tmp_path / of.fingerprint) is None
    assert not (tmp_path / of.fingerprint).exists()
    assert len(list(tmp_path.iterdir())) == 2  # what it left: a partial folder and a claim
    folder, manifest = made(of, tmp_path)
    assert manifest.rows == 40_000
    assert list(tmp_path.iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *(shard.name for shard in manifest.shards)}


def test_processes_that_generate_the_same_dataset_at_once_all_get_it_whole(tmp_path: Path) -> None:
    of = spec(6_000, terms=5)
    reference, _ = made(of, tmp_path / "reference")
    processes = [started(of, tmp_path / "shared") for _ in range(3)]
    for process in processes:
        go(process)
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [of.fingerprint]
    assert contents(tmp_path / "shared" / of.fingerprint) == contents(reference)


def test_a_corrupt_shard_is_detected_and_named(tmp_path: Path) -> None:
    folder, manifest = made(spec(9000, terms=5), tmp_path)
    shard = folder / manifest.shards[1].name
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name} is corrupt.*delete {folder}"):
        generate(spec(9000, terms=5), tmp_path, on_cluster=False)
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name} is missing.*delete {folder}"):
        generate(spec(9000, terms=5), tmp_path, on_cluster=False)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder, _ = made(spec(10), tmp_path)
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:100])
    with pytest.raises(UserError, match=rf"{folder / MANIFEST} is not a manifest"):
        generate(spec(10), tmp_path, on_cluster=False)


@pytest.mark.parametrize("split", ["train", "validation", "test", "longer"])
def test_a_dataset_may_hold_every_question_of_its_split_but_not_one_more(tmp_path: Path, split: str) -> None:
    buckets = spec(1, split=split).buckets
    there = sum(question_hash(f"{a}+{b}=") % 100 in buckets for a in range(15) for b in range(15))
    _, manifest = made(spec(there, split=split, terms=2, below=15), tmp_path)
    assert manifest.rows == there
    with pytest.raises(UserError, match=rf"{split} split asks for {there + 1:,}.*{there:,} there"):
        generate(spec(there + 1, split=split, terms=2, below=15), tmp_path, on_cluster=False)
    assert [path.name for path in tmp_path.iterdir()] == [manifest.fingerprint]


def test_a_split_without_any_question_is_exhausted(tmp_path: Path) -> None:
    of = next(
        spec(1, split=split, terms=2, below=2)
        for split in ("validation", "test")
        if not draw_block(spec(1, split=split, terms=2, below=2), 0, 1)[0]
    )
    with pytest.raises(UserError, match="hardly more than 0 there"):
        generate(of, tmp_path / "home", on_cluster=False)
    assert not list((tmp_path / "home").iterdir())


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file"
    with suppress(KeyError), atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert not list(path.parent.iterdir())
    with atomic_file(path) as one, atomic_file(path) as other:
        assert one != other
        one.write_text("whole")
        other.write_text("whole")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["file"]
