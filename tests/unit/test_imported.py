"""Laws of imported datasets: what is imported is what was written, bad rows are named and counted, and a dataset is
addressed by its content."""

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import TEXT, line_of

from showhow.cli.main import main
from showhow.errors import UserError
from showhow.home.folder import StudyFolder
from showhow.sections.dataset_spec import TRAIN
from showhow.study.study import Study
from showhow.tasks import task_named
from showhow.tasks.base import Problem
from showhow.tasks.explain import Level, explain
from showhow.tasks.imported.task import Imported

Row = dict[str, Any]
GOOD: Row = {"question": "2 and 3?", "steps": ["2 + 3 = 5"], "answer": "5"}


def written(path: Path, *lines: Row | str | bytes) -> Path:
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def imported(path: Path, **settings: Any) -> Imported:
    task = task_named("imported", {"path": str(path), **settings})
    assert isinstance(task, Imported)
    return task


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        _ = imported(path, **settings).listed
    return str(caught.value)


def steps(problem: Problem, level: Level = Level.LONG) -> list[str]:
    layout = Imported.model_construct(answer_prefix="Answer: ").text_format
    return explain(problem, level, layout).split("\n")[:-1]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: text.strip() != "")
answers = texts.filter(lambda text: not re.search(r"[\r\n]", text.strip()) and "Answer:" not in text)
explanations = texts.filter(lambda text: "Answer:" not in text)
rows = st.lists(
    st.tuples(texts, st.lists(explanations, min_size=1, max_size=4), answers), min_size=1, unique_by=lambda row: row[0]
)


@settings(deadline=None, max_examples=150)
@given(rows=rows, ascii_only=st.booleans(), line_break=st.sampled_from(["\n", "\r\n"]), mark=st.booleans())
def test_what_is_imported_is_what_was_written_whatever_the_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], ascii_only: bool, line_break: str, mark: bool
) -> None:
    keys = ("question", "steps", "answer")
    lines = [json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=ascii_only) for row in rows]
    path = tmp_path_factory.mktemp("import") / "rows.jsonl"
    path.write_bytes((line_break.join([*lines, "", ""])).encode("utf-8-sig" if mark else "utf-8"))
    found = imported(path).listed
    assert [problem.question for problem in found] == [question for question, _, _ in rows]
    assert [problem.answer for problem in found] == [answer.strip() for _, _, answer in rows]
    for problem, (_, explanation, _) in zip(found, rows, strict=True):
        parts = [line for text in explanation for line in re.split(r"\r\n|\n|\r", text)]
        assert steps(problem) == [line for line in parts if line.strip()]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [1, 1, 1]), (2, [1, 2, 2]), (3, [1, 2, 3]), (4, [2, 3, 4]), (9, [3, 6, 9])]
)
def test_a_level_shows_whole_steps_from_the_beginning(tmp_path: Path, count: int, shown: list[int]) -> None:
    every = [f"step {number}" for number in range(count)]
    (problem,) = imported(written(tmp_path / "a.jsonl", GOOD | {"steps": every})).listed
    levels = (Level.SHORT, Level.MEDIUM, Level.LONG)
    assert [steps(problem, level) for level in levels] == [every[:number] for number in shown]
    assert explain(problem, Level.NONE, imported(tmp_path / "a.jsonl").text_format) == "5"


def test_a_column_of_a_level_stands_above_its_part_of_the_steps(tmp_path: Path) -> None:
    row = {"question": "q", "answer": 1, "steps": "a\nb\nc", "short": "brief", "medium": ["one", "two\nthree"]}
    (problem,) = imported(written(tmp_path / "a.jsonl", row)).listed
    assert [steps(problem, level) for level in (Level.SHORT, Level.MEDIUM, Level.LONG)] == [
        ["brief"], ["one", "two", "three"], ["a", "b", "c"],
    ]  # fmt: skip
    only_long = {"question": "q", "answer": 1, "long": "a\nb\nc"}
    (problem,) = imported(written(tmp_path / "b.jsonl", only_long)).listed
    assert [steps(problem, level) for level in (Level.SHORT, Level.LONG)] == [["a"], ["a", "b", "c"]]


def test_files_like_gsm8k_are_read_by_their_separator_and_columns_by_their_names(tmp_path: Path) -> None:
    row = {"problem": "Natalia?", "answer": "She sold 24.\nIn all #### no, 72.\n#### 1,072"}
    task = imported(written(tmp_path / "a.json", row), answer_separator="####", question_column="problem")
    (problem,) = task.listed
    assert (problem.question, problem.answer) == ("Natalia?", "1,072")
    assert steps(problem) == ["She sold 24.", "In all #### no, 72."]


@pytest.mark.parametrize("number", ["5", "4.50", "-0", "1e3", "123456789012345678901234567890"])
def test_a_number_stays_as_it_is_written(tmp_path: Path, number: str) -> None:
    row = '{"question": "q", "steps": [' + number + '], "answer": ' + number + "}"
    (problem,) = imported(written(tmp_path / "a.jsonl", row)).listed
    assert (problem.answer, steps(problem)) == (number, [number])


FAULTS: list[tuple[Row | str | bytes, str]] = [
    (b'{"question": "\xff"}', "is not UTF-8 text"),
    ("\ufeff".encode("utf-16"), "is not UTF-8 text"),
    ('{"question": "q", ', "is no JSON in one line (Expecting"),
    ("[" * 100_000, "is nested too deeply"),
    ("[1, 2]", "is no JSON object; a row is written"),
    ('{"question": "\\ud800", "steps": ["a"], "answer": 1}', '"question" holds half a character'),
    ({"steps": ["a"], "answer": 1}, '"question" is missing'),
    (GOOD | {"question": None}, '"question" is missing'),
    (GOOD | {"question": " \n"}, "the question is empty"),
    (GOOD | {"question": ["q"]}, '"question" is neither text nor number'),
    (GOOD | {"answer": True}, '"answer" is neither text nor number'),
    (GOOD | {"answer": "  "}, "the answer is empty"),
    (GOOD | {"answer": "a\nb"}, "the answer has several lines"),
    (GOOD | {"answer": "Answer: 5"}, 'the answer holds answer_prefix "Answer:"'),
    (GOOD | {"steps": []}, '"steps" has no step'),
    (GOOD | {"steps": None}, '"steps" is missing'),
    (GOOD | {"steps": {"a": 1}}, '"steps" is neither text nor a list of texts'),
    (GOOD | {"steps": ["a", None]}, '"steps" is neither text nor number'),
    (GOOD | {"steps": ["a", "Answer: b"]}, "a step holds answer_prefix \"Answer:\"; choose another: 'Answer: b'"),
    (GOOD | {"long": " "}, '"long" has no step'),
]


@pytest.mark.parametrize(("row", "said"), FAULTS, ids=range(len(FAULTS)))
def test_a_row_that_cannot_be_used_is_named_by_its_line_and_left_out_only_where_that_is_allowed(
    tmp_path: Path, row: Row | str | bytes, said: str
) -> None:
    good = GOOD | {"long": "a"} if isinstance(row, dict) and "long" in row else GOOD
    path = written(tmp_path / "a.jsonl", good, "", row, good | {"question": "another"})
    answer = refusal(path)
    assert f"{path}:3: {said}" in answer
    assert "1 of 3 rows cannot be used, and task.max_bad_share = 0" in answer
    found = imported(path, max_bad_share=0.34).rows
    assert [problem.question for problem in found.listed] == ["2 and 3?", "another"]
    assert (found.read, sum(found.bad.values()), found.repeated) == (3, 1, 0)
    (reason,) = found.bad
    assert reason.partition(" (")[0] in answer


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    answer = refusal(written(tmp_path / "a.jsonl", *["{"] * 30, GOOD), max_bad_share=0.5)
    assert answer.count("is no JSON") == 5
    assert "30 of 31 rows cannot be used, and task.max_bad_share = 0.5" in answer
    assert "1 of 1 rows" in refusal(written(tmp_path / "b.jsonl", GOOD | {"answer": ""}), max_bad_share=1.0)
    assert "has no rows" in refusal(written(tmp_path / "c.jsonl", ""))


def test_a_question_that_comes_again_is_counted_and_the_first_one_kept(tmp_path: Path) -> None:
    found = imported(written(tmp_path / "a.jsonl", GOOD, GOOD | {"answer": 6}, GOOD | {"question": "other"})).rows
    assert [(problem.question, problem.answer) for problem in found.listed] == [("2 and 3?", "5"), ("other", "5")]
    assert (found.read, found.bad, found.repeated) == (3, {}, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"answer_column": "anser"},
            ['no row has a column "anser". Did you mean "answer"?', "question, steps, answer"],
        ),
        ({"question_column": "q"}, ["task.question_column = "]),
        ({"explanation_column": "step"}, ['Did you mean "steps"?', "task.explanation_column = "]),
        ({"medium_column": "half"}, ["task.medium_column = "]),
        ({"answer_separator": "####"}, ['a.jsonl:1: "answer" has no answer_separator "####"']),
        ({"answer_prefix": " "}, ["answer_prefix = ' ' is not allowed"]),
        ({"answer_prefix": "a\nb"}, ["answer_prefix"]),
        ({"max_bad_share": 2}, ["max_bad_share = 2 is not allowed"]),
        ({"colum": "x"}, ['imported has no parameter "colum"']),
        ({"sha256": "0" * 64}, ["has other content"]),
        ({"path": "missing.jsonl"}, ["missing.jsonl: cannot be read (No such file or directory)"]),
        ({"path": "table.xlsx"}, ["imported from JSON Lines", "Parquet"]),
    ],
)
def test_a_wrong_setting_is_answered_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Row, said: list[str]
) -> None:
    written(tmp_path / "a.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        _ = task_named("imported", {"path": "a.jsonl", **changes}).listed
    for part in said:
        assert part in str(caught.value)


def test_rows_without_any_explanation_are_refused_with_the_settings_that_name_one(tmp_path: Path) -> None:
    answer = refusal(written(tmp_path / "a.jsonl", {"question": "q", "answer": 1, "why": "because"}))
    for part in (
        "no column holds a worked solution",
        "question, answer, why",
        "explanation_column",
        "answer_separator",
    ):
        assert part in answer


def test_guessing_among_few_answers_is_chance_and_among_many_is_none(tmp_path: Path) -> None:
    few = [GOOD | {"question": str(number), "answer": number % 4} for number in range(40)]
    assert imported(written(tmp_path / "a.jsonl", *few)).chance == 0.25
    many = [GOOD | {"question": str(number), "answer": number} for number in range(101)]
    assert imported(written(tmp_path / "b.jsonl", *many)).chance == 0.0


def test_a_drawn_problem_is_a_row_and_can_be_looked_up(tmp_path: Path) -> None:
    task = imported(written(tmp_path / "a.jsonl", *(GOOD | {"question": f"q{number}"} for number in range(9))))
    drawn = {task.draw(random.Random(seed)).question for seed in range(60)}
    assert drawn == {f"q{number}" for number in range(9)}
    assert task.solve("q3").question == "q3"
    with pytest.raises(UserError, match=r'no question "q33"\. Did you mean "q3"'):
        task.solve("q33")


# A study of an imported dataset

IMPORTED = (
    TEXT.replace('kind = "modular_sum"\nterms = 6', 'kind = "imported"\npath = "data/rows.jsonl"')
    .replace("eval_splits.longer = { terms = 8 }\n", "")
    .replace("2_000", "60")
    .replace("eval_examples = 100", "eval_examples = 6")
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study file beside the folder with its rows."""
    rows = [GOOD | {"question": f"What is {number}?", "answer": number % 3} for number in range(120)]
    written(tmp_path / "data" / "rows.jsonl", *rows)
    study = tmp_path / "study.toml"
    study.write_text(IMPORTED)
    return study


def said_of(file: Path, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        Study.load(file, settings)
    return str(caught.value)


def test_a_path_begins_at_the_study_file_and_one_of_an_option_at_the_folder_of_the_command(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "data")
    found = [Study.load(file).task, Study.load(file, ["task.path=rows.jsonl"]).task]
    assert [task.path for task in found if isinstance(task, Imported)] == [str(tmp_path / "data" / "rows.jsonl")] * 2


def test_the_content_names_a_dataset_and_not_its_place(file: Path, tmp_path: Path) -> None:
    before = Study.load(file)
    elsewhere = tmp_path / "moved.jsonl"
    elsewhere.write_bytes((tmp_path / "data" / "rows.jsonl").read_bytes())
    moved = Study.load(file, [f"task.path={elsewhere}"])
    with elsewhere.open("a") as more:
        more.write(json.dumps(GOOD) + "\n")
    longer = Study.load(file, [f"task.path={elsewhere}"])
    assert moved.task != before.task
    assert moved.fingerprint == before.fingerprint != longer.fingerprint
    prints = [study.trials[0].dataset(TRAIN).fingerprint for study in (before, moved, longer)]
    assert prints[0] == prints[1] != prints[2]
    assert before.task.identity == moved.task.identity != longer.task.identity


def test_a_study_goes_on_after_its_file_was_moved_but_not_after_it_changed(file: Path, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "home", "small")
    folder.make()
    folder.claim(Study.load(file))
    folder.journal.write_text("{}\n")  # it has begun
    rows = tmp_path / "data" / "rows.jsonl"
    moved = rows.rename(tmp_path / "rows.jsonl")
    folder.claim(Study.load(file, [f"task.path={moved}"]))
    moved.write_bytes(moved.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"task.sha256 was"):
        folder.claim(Study.load(file, [f"task.path={moved}"]))


def test_what_was_stored_of_a_study_is_read_without_the_file(file: Path, tmp_path: Path) -> None:
    study = Study.load(file)
    (tmp_path / "data" / "rows.jsonl").unlink()
    assert Study.model_validate_json(json.dumps(study.definition()), strict=True) == study


def test_a_file_that_changes_after_the_study_was_read_is_noticed(file: Path, tmp_path: Path) -> None:
    text = file.read_text().replace("train_examples = 60", "train_examples = 61")  # rows of another study are kept
    file.write_text(text)
    task = Study.load(file, ["task.answer_prefix=So: "]).task
    path = tmp_path / "data" / "rows.jsonl"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="has changed since the study was read"):
        _ = task.changed({"answer_prefix": "Hence: "}).listed


def test_no_more_is_asked_of_a_split_than_the_file_has_there(file: Path) -> None:
    there = Study.load(file).trials[0].dataset(TRAIN).available
    assert there is not None
    assert 80 < there < 110  # of 120
    assert Study.load(file, [f"data.train_examples={there}"]).trials[0].dataset(TRAIN).examples == there
    answer = said_of(file, f"data.train_examples={there + 1}")
    assert f"{there + 1} different questions wanted in the train split, but this task has {there} there" in answer


def test_a_mistake_is_answered_with_the_line_of_the_setting(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace("rows.jsonl", "row.jsonl"))
    answer = said_of(file)
    assert f"study.toml:{line_of(text, 'path =')}: task.path: " in answer
    assert "Did you mean" in answer
    assert "sha256" not in answer
    file.write_text(text.replace('path = "data/rows.jsonl"', ""))
    assert said_of(file).endswith('task.path: is missing: write path = "text"')
    file.write_text(text.replace('path = "data/rows.jsonl"', "path = 3"))
    assert "task.path: got 3, must be text" in said_of(file)
    file.write_text(text.replace("[search]", '[search]\ntask.path = { grid = ["a.jsonl"] }'))
    assert "task.path: nothing of this name can be searched" in said_of(file)


def test_another_file_may_be_an_evaluation_split_and_shares_no_question_with_training(
    file: Path, tmp_path: Path
) -> None:
    written(tmp_path / "other.jsonl", *(GOOD | {"question": f"What is {number}?"} for number in range(300)))
    file.write_text(IMPORTED.replace("[data]", '[data]\neval_splits.other = { path = "other.jsonl" }'))
    trial = Study.load(file).trials[0]
    task = trial.dataset("other").task
    assert isinstance(task, Imported)
    assert (task.path, len(task.listed)) == (str(tmp_path / "other.jsonl"), 300)
    assert not set(trial.dataset("other").buckets) & set(trial.dataset(TRAIN).buckets)
    assert (
        Study.load(file).fingerprint
        == Study.load(file, [f"data.eval_splits.other.path={tmp_path}/other.jsonl"]).fingerprint
    )
    file.write_text(file.read_text().replace("other.jsonl", "gone.jsonl"))
    assert "data.eval_splits.other.path: " in said_of(file)


def test_the_commands_show_the_format_and_rows(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "data" / "rows.jsonl"
    assert main(["tasks"]) == 0
    told = capsys.readouterr().out
    assert "imported: Questions, worked solutions and answers" in told
    assert "answer_separator" in told
    assert "first two thirds" in told
    assert main(["explain", "imported", "--set", f"path={rows}", "--level", "medium"]) == 0
    question, *target = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"What is \d+\?", question)
    assert target[0] == "2 + 3 = 5"
    assert target[1].startswith("Answer: ")
    assert main(["explain", "imported", "--set", f"path={rows}", "--question", "What is 7?"]) == 0
    assert capsys.readouterr().out == "2 + 3 = 5\nAnswer: 1\n"
    assert main(["explain", "imported"]) == 2
    assert "imported has no path yet" in capsys.readouterr().err
    assert main(["check", str(file)]) == 0
    assert main(["plan", os.fspath(file)]) == 0
