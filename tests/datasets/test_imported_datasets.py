"""Laws of datasets made of a user's rows: each question once, in one split, counted; the bytes depend on the content
alone; and Parquet holds what JSON Lines do."""

import json
import operator
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from showhow.datasets.generate import generate, is_large
from showhow.datasets.manifest import Manifest
from showhow.datasets.prepare import Preparation
from showhow.datasets.tokenise import tokenise
from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.errors import UserError
from showhow.sections.dataset_spec import TRAIN, DatasetSpec, question_hash
from showhow.study.study import Study
from showhow.tasks import task_named
from showhow.tasks.explain import Level, symbols
from showhow.tasks.imported.file import located
from showhow.training.tokens import TokenFile

STUDY = Path(__file__).parents[2] / "search_spaces" / "lora_qwen.toml"
WORDS = STUDY.parent / "data" / "word_problems.jsonl"
SPLITS = (TRAIN, "validation", "test")


def rows_written(path: Path, count: int) -> list[dict[str, Any]]:
    """Rows whose steps tell them apart, with a year, a price and signs that no drawn task has."""
    rows = [
        {"question": f"Café № {n}: 1999 or {n}?", "steps": [f"“{n}” it is", f"costs £{n}.50"], "answer": n % 7}
        for n in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows


def spec(path: Path, split: str = TRAIN, examples: int = 1, level: Level = Level.LONG, **settings: Any) -> DatasetSpec:
    task = task_named("imported", {"path": str(path), **settings})
    return DatasetSpec(task=task, level=level, split=split, examples=examples, seed=0, control_length=Level.LONG)


def whole(path: Path, split: str, level: Level = Level.LONG, **settings: Any) -> DatasetSpec:
    of = spec(path, split, level=level, **settings)
    return of.model_copy(update={"examples": of.available})


def made(of: DatasetSpec, home: Path) -> tuple[pa.Table, Manifest]:
    folder = generate(of, home, on_cluster=False)
    manifest = Manifest.read(folder)
    assert manifest is not None
    return pa.concat_tables(pq.read_table(folder / shard.name) for shard in manifest.shards), manifest


def test_every_row_is_in_exactly_one_split_with_its_solution_and_answer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = rows_written(path, 9000)  # more than one block
    tables = {split: made(whole(path, split), tmp_path)[0].to_pylist() for split in SPLITS}
    found = {row["question"]: (row["target"], row["answer"]) for table in tables.values() for row in table}
    assert sum(map(len, tables.values())) == len(found) == 9000
    assert found == {
        row["question"]: ("\n".join([*row["steps"], f"Answer: {row['answer']}"]), str(row["answer"])) for row in rows
    }
    for split, table in tables.items():
        buckets = spec(path, split).buckets
        assert all(question_hash(row["question"]) % 100 in buckets for row in table)


def test_what_became_of_the_rows_stands_in_the_manifest_and_where_they_lay_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a secret place" / "rows.jsonl"
    rows_written(path, 200)
    with path.open("a") as more:
        more.write('{"question": "broken\n{"question": "", "steps": "a", "answer": 1}\n')
        more.write(path.read_text(encoding="utf-8").splitlines()[0] + "\n")
    rows, manifest = made(spec(path, examples=50, max_bad_share=0.5), tmp_path / "home")
    assert manifest.source is not None
    assert manifest.source.rows_read == 203
    assert manifest.source.rows_unusable == {"is no JSON in one line": 1, "the question is empty": 1}
    assert manifest.source.rows_repeated == 1
    assert manifest.source.questions_in_split == spec(path, max_bad_share=0.5).available
    assert (manifest.rows, manifest.chance, rows.num_rows) == (50, round(1 / 7, 6), 50)
    text = manifest.model_dump_json()
    assert "secret" not in text
    assert "rows.jsonl" in text


def test_the_bytes_depend_on_the_content_and_not_on_its_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        rows_written(tmp_path / folder / "rows.jsonl", 300)
    specs = [spec(tmp_path / folder / "rows.jsonl", examples=60, level=Level.SHUFFLED) for folder in ("one", "two")]
    folders = [generate(of, tmp_path / "homes" / str(index), on_cluster=False) for index, of in enumerate(specs)]
    assert folders[0].name == folders[1].name
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two


def test_parquet_holds_what_json_lines_do(tmp_path: Path) -> None:
    rows = rows_written(tmp_path / "rows.jsonl", 100)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    tasks = [task_named("imported", {"path": str(tmp_path / f"rows.{kind}")}) for kind in ("jsonl", "parquet")]
    assert tasks[0].listed == tasks[1].listed
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"bad\.parquet: is no Parquet file that can be read"):
        _ = task_named("imported", {"path": str(tmp_path / "bad.parquet")}).listed
    pq.write_table(
        pa.table({"question": ["q", "r"], "steps": ["a", None], "answer": [1.5, 2.0]}), tmp_path / "b.parquet"
    )
    with pytest.raises(UserError, match=r'b\.parquet:2: "steps" is missing'):
        _ = task_named("imported", {"path": str(tmp_path / "b.parquet")}).listed


def test_all_levels_explain_the_same_rows_and_the_seed_chooses_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows_written(path, 300)
    asked = {level: made(spec(path, examples=60, level=level), tmp_path)[0]["question"].to_pylist() for level in Level}
    assert all(questions == asked[Level.NONE] for questions in asked.values())
    longer = made(spec(path, examples=90), tmp_path)[0]["question"].to_pylist()
    assert longer[:60] == asked[Level.LONG]
    other = made(spec(path, examples=60).model_copy(update={"seed": 1}), tmp_path)[0]["question"].to_pylist()
    assert set(other) != set(longer[:60])


def test_controls_have_the_length_of_the_explanation_and_never_show_a_question_held_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows_written(path, 300)
    real, _ = made(whole(path, TRAIN), tmp_path)
    filler, _ = made(whole(path, TRAIN, Level.FILLER), tmp_path)
    shuffled, _ = made(whole(path, TRAIN, Level.SHUFFLED), tmp_path)
    steps = {target.rpartition("\n")[0] for target in real["target"].to_pylist()}
    for explained, filled, mixed in zip(real.to_pylist(), filler.to_pylist(), shuffled.to_pylist(), strict=True):
        assert len(symbols(filled["target"])) == len(symbols(explained["target"]))
        assert filled["matched"] == explained["target"]
        assert mixed["target"].rpartition("\n")[0] in steps - {explained["target"].rpartition("\n")[0]}
        assert mixed["target"].endswith(f"Answer: {explained['answer']}")


def test_one_question_alone_cannot_be_shuffled_and_a_split_gives_no_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows_written(path, 12)
    alone = next(split for split in SPLITS if (spec(path, split).available or 0) == 1)
    with pytest.raises(UserError, match="has one question"):
        generate(spec(path, alone, level=Level.SHUFFLED), tmp_path / "home", on_cluster=False)
    there = spec(path).available
    with pytest.raises(UserError, match=rf"train split asks for 500 .* has {there} there; ask for fewer"):
        generate(spec(path, examples=500), tmp_path / "home", on_cluster=False)
    assert list((tmp_path / "home").iterdir()) == []
    assert not is_large(spec(path, examples=10_000_000))


def test_the_tokenizer_made_for_a_file_knows_all_its_symbols_and_gives_the_texts_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows_written(path, 120)
    words = symbol_tokenizer([spec(path).task])
    for split in SPLITS:
        for level in (Level.NONE, Level.SHORT, Level.LONG, Level.FILLER):
            of = whole(path, split, level)
            file = TokenFile(tokenise(generate(of, tmp_path, on_cluster=False), words, 4096, 0.0))
            tokens = [file.prompt(0).tolist() + file.target(0).tolist()]
            row = made(of, tmp_path)[0].to_pylist()[0]
            assert words.tokenizer.decode_batch(tokens) == [row["question"] + row["target"]]


def test_the_tracker_is_told_what_became_of_the_rows(tmp_path: Path) -> None:
    model = 'model={ kind = "scratch", architecture = "llama", hidden_size = 32, layers = 1 }'
    values = tomllib.loads(STUDY.read_text())
    del values["adapter"], values["search"]["adapter"]
    values |= {"model": tomllib.loads(model)["model"]}
    values["task"]["path"] = str(WORDS)
    study = Study.model_validate_json(json.dumps(values | {"task": located(values["task"], tmp_path)}), strict=True)
    told = Preparation(tmp_path, lambda _line: None).of(study.trials[0]).manifests
    assert {split: manifest["rows"] for split, manifest in told.items()} == {"train": 440, "validation": 60, "test": 60}
    for manifest in told.values():
        assert (manifest["rows_read"], manifest["rows_repeated"], manifest["task"]) == (600, 0, "imported")
        assert manifest["rows_unusable"] == {}


def test_the_shipped_word_problems_are_what_their_script_writes_and_their_steps_are_right(tmp_path: Path) -> None:
    script = shutil.copy(WORDS.with_name("make_word_problems.py"), tmp_path)
    subprocess.run([sys.executable, script], check=True, timeout=60)
    assert (tmp_path / WORDS.name).read_bytes() == WORDS.read_bytes()
    rows = [json.loads(line) for line in WORDS.read_text().splitlines()]
    for row in rows:
        counted = int(re.findall(r"\d+", row["steps"][0])[0])
        for step in row["steps"]:
            for first, sign, second, result in re.findall(r"(\d+) ([*+-]) (\d+) = (\d+)", step):
                counted = {"*": operator.mul, "+": operator.add, "-": operator.sub}[sign](int(first), int(second))
                assert counted == int(result)
        assert counted == row["answer"]
