"""An exported run is the run: transformers loads it, and its replies are those that were recorded of the run."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import llama_folder, qwen_folder, seq2seq_folder
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from studied import LLAMA, SMALL, T5, studied
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from showhow.cli.main import DONE, USER_ERROR, main
from showhow.errors import UserError
from showhow.exports.answer import ask
from showhow.home.export import ExportedRun, Wish, export_run
from showhow.home.folder import StudyFolder
from showhow.models.exported import Exported
from showhow.tasks.asking import Answer, read_question
from showhow.tracking.jsonl import read_events
from showhow.tracking.tracker import RepliesSampled
from showhow.training.tokens import TokenFile

LORA = 'adapter = { kind = "lora", rank = 4 }\n'
Made = Callable[..., StudyFolder]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a small study that was run, each kind once."""
    known: dict[str, StudyFolder] = {}

    def study(kind: str) -> StudyFolder:
        if kind not in known:
            home = tmp_path_factory.mktemp("home")
            known[kind] = studied(home, SMALL + section(kind, home / "base"))
        return known[kind]

    return study


def section(kind: str, base: Path) -> str:
    makers = {"qwen": qwen_folder, "lora": qwen_folder, "dora": seq2seq_folder, "prompt": llama_folder}
    makers |= {"pretrained": seq2seq_folder, "half": qwen_folder, "half-t5": seq2seq_folder}
    if kind not in makers:
        return {"llama": LLAMA, "t5": T5, "step_by_step": LLAMA + 'method = { kind = "step_by_step" }\n'}[kind]
    makers[kind](base)
    if kind.startswith("half"):
        (AutoModelForSeq2SeqLM if kind == "half-t5" else AutoModelForCausalLM).from_pretrained(base).to(
            torch.bfloat16
        ).save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    adapters = {
        "lora": LORA,
        "dora": LORA.replace("lora", "dora"),
        "half": LORA,
        "prompt": 'adapter = { kind = "prompt", tokens = 3 }\n',
    }
    return f'model = {{ kind = "pretrained", name = "{base}" }}\n' + adapters.get(kind, "")


def exported(folder: StudyFolder, **wish: Any) -> ExportedRun:
    return export_run(folder, Wish(**wish), lambda _line: None)


def recorded(folder: StudyFolder, run: str) -> list[dict[str, Any]]:
    events = [event for event in read_events(folder.journal) if isinstance(event, RepliesSampled)]
    return next(event.rows for event in events if event.run == run and event.split == "test")


def asked(run: ExportedRun, questions: list[str]) -> list[str]:
    task = run.exported.trial.task
    answers = ask(run.folder, run.exported, [read_question(task, one) for one in questions])
    return [answer.reply for answer in answers if isinstance(answer, Answer)]


def generated(folder: Path, questions: list[str]) -> list[str]:
    """The replies as somebody without ShowHow has them."""
    told = json.loads((folder / "showhow.json").read_text())
    frame, (before, after) = told["frame"], told["asked_as"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    has_encoder = json.loads((folder / "config.json").read_text()).get("is_encoder_decoder")
    model = (AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM).from_pretrained(folder)
    replies = []
    for question in questions:
        prompt = before + question + after
        text = prompt if frame is None else frame[0] + prompt + frame[1]
        tokens = tokenizer(text, add_special_tokens=frame is None, return_tensors="pt")
        written = model.generate(**tokens)[0, 0 if has_encoder else tokens["input_ids"].shape[1] :]
        replies.append(tokenizer.decode(written, skip_special_tokens=True))
    return replies


@pytest.mark.parametrize("kind", ["llama", "t5", "step_by_step", "pretrained", "lora", "dora"])
def test_transformers_and_predict_give_the_replies_that_were_recorded(made: Made, kind: str) -> None:
    run = exported(made(kind))
    rows = recorded(made(kind), run.exported.run)
    questions = [row["question"] for row in rows]
    assert asked(run, questions) == [row["reply"] for row in rows]
    assert generated(run.folder, questions) == [row["reply"] for row in rows]


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_an_adapter_alone_gives_the_same_replies(made: Made, kind: str) -> None:
    run = exported(made(kind), as_adapter=kind == "lora")
    rows = recorded(made(kind), run.exported.run)
    assert run.exported.as_adapter
    assert sorted(path.name for path in run.folder.glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert asked(run, [row["question"] for row in rows]) == [row["reply"] for row in rows]


@pytest.mark.parametrize("kind", ["llama", "t5", "pretrained"])
def test_the_exported_tokenizer_reads_and_writes_as_in_training(made: Made, kind: str) -> None:
    folder = made(kind)
    run = exported(folder)
    tokenizer = AutoTokenizer.from_pretrained(run.folder)
    (path,) = [path for path in folder.home.glob("datasets/*/*.arrow") if len(TokenFile(path)) == 150]
    file = TokenFile(path)
    for row, (question, target) in enumerate(zip(file.texts("question", 20), file.texts("target", 20), strict=True)):
        assert tokenizer.encode(question) == file.prompt(row).tolist()
        assert tokenizer.decode(file.target(row), skip_special_tokens=True) == target
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (file.special.end, file.special.pad)


def test_the_weights_are_safetensors_and_nothing_else_is_left(made: Made) -> None:
    run = exported(made("llama"))
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "showhow.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {tensor.dtype for tensor in load_file(run.folder / "model.safetensors").values()} == {torch.float32}
    assert json.loads((run.folder / "generation_config.json").read_text())["do_sample"] is False
    assert {path.name for path in run.folder.parent.iterdir()} == {run.folder.name}


@pytest.mark.parametrize("kind", ["half", "half-t5"])
def test_a_model_has_the_type_of_its_base_and_the_replies_that_were_recorded(made: Made, kind: str) -> None:
    run = exported(made(kind))
    assert {tensor.dtype for tensor in load_file(run.folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((run.folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert "Its weights are in bfloat16, as its base's are." in (run.folder / "README.md").read_text()
    rows = recorded(made(kind), run.exported.run)
    assert asked(run, [row["question"] for row in rows]) == [row["reply"] for row in rows]


def test_an_adapter_of_a_half_base_stays_as_it_was_trained(made: Made) -> None:
    run = exported(made("half"), as_adapter=True)
    assert {tensor.dtype for tensor in load_file(run.folder / "adapter_model.safetensors").values()} == {torch.float32}
    rows = recorded(made("half"), run.exported.run)
    assert asked(run, [row["question"] for row in rows]) == [row["reply"] for row in rows]


@pytest.mark.parametrize("kind", ["llama", "t5", "lora", "prompt"])
def test_the_code_of_the_model_card_runs_and_prints_the_reply_beside_it(
    made: Made, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = exported(made(kind))
    card = (run.folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code, {"FOLDER": str(run.folder)})  # noqa: S102 - the card that was just written
    assert capsys.readouterr().out.strip() == recorded(made(kind), run.exported.run)[0]["reply"].strip()


def test_the_hub_reads_the_card_and_it_names_no_place_of_this_machine(made: Made) -> None:
    run = exported(made("lora"))
    text = (run.folder / "README.md").read_text()
    header = ModelCard(text).data
    assert (header.library_name, header.license, header.metrics) == ("transformers", "apache-2.0", ["accuracy"])
    assert header.tags == ["showhow", "modular_sum", "explanation-long"]
    assert {result.dataset_split for result in header.eval_results} == {"test", "longer"}
    assert str(made("lora").home) not in text
    assert "secret-host" not in text


def test_the_best_run_is_chosen_by_validation_and_its_export_is_not_made_twice(made: Made) -> None:
    folder = made("llama")
    first, again = exported(folder), exported(folder)
    assert again.folder == first.folder
    assert not again.is_new
    by_seed = {seed: exported(folder, run=f"trial-000/seed-{seed}").outcome.selection for seed in (0, 1)}
    assert first.outcome.selection == max(by_seed.values())


def test_a_folder_with_something_else_is_not_touched(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="was not exported by ShowHow"):
        exported(made("llama"), to=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    one, other = "trial-000/seed-0", "trial-000/seed-1"
    target = exported(made("llama"), run=one, to=tmp_path / "new").folder
    assert not exported(made("llama"), run=one, to=target).is_new
    with pytest.raises(UserError, match="--overwrite"):
        exported(made("llama"), run=other, to=target)
    assert exported(made("llama"), run=other, to=target, overwrite=True).is_new
    assert Exported.read(target).run == other


def test_an_export_that_fails_leaves_nothing(made: Made, tmp_path: Path) -> None:
    copy = shutil.copytree(made("llama").home, tmp_path / "home")
    folder = StudyFolder(copy, "small")
    shutil.rmtree(folder.path / "exported", ignore_errors=True)
    for file in folder.checkpoints.rglob("*.safetensors"):
        os.truncate(file, 100)
    with pytest.raises(UserError, match="no complete weights"):
        exported(folder)
    assert not list((folder.path).glob("exported/*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "smal"], 'there is no study "smal"'),
        (["predict", "smal", "1+1="], 'Did you mean "small"?'),
        (["predict", "./smal", "1+1="], "a folder that"),
        (["export", "small", "--run", "trial-000/seed-7"], 'Did you mean "trial-000/seed-1"?'),
        (["export", "small", "--run", "trial-000"], 'Did you mean "trial-000/seed-1"?'),
        (["export", "small", "--adapter"], "Leave --adapter out"),
        (["predict", "small", "1+x"], 'at position 3 found "x"'),
        (["predict", "small", "1+77="], 'at position 3 found "77", which none of its training questions could have'),
        (["predict", "small", "1+x", "1+77="], 'question 2: the model of trial-000/seed-1 cannot read "1+77="'),
    ],
)
def test_each_mistake_is_answered(
    made: Made,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOWHOW_HOME", str(made("llama").home))
    assert main(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_weights_that_were_not_kept_are_said_with_what_there_is(made: Made, tmp_path: Path) -> None:
    folder = StudyFolder(shutil.copytree(made("llama").home, tmp_path / "home"), "small")
    shutil.rmtree(folder.path / "exported", ignore_errors=True)
    shutil.rmtree(folder.checkpoints / "trial-000/seed-0")
    assert exported(folder).exported.run == "trial-000/seed-1"
    with pytest.raises(UserError, match=r"trial-000/seed-0 has no saved weights\. Runs with weights: trial-000/seed-1"):
        exported(folder, run="trial-000/seed-0")
    shutil.rmtree(folder.path / "exported")
    shutil.rmtree(folder.checkpoints)
    with pytest.raises(UserError, match=r"Runs with weights: none.*keep_best"):
        exported(folder)


def test_an_unfinished_study_exports_a_run_by_name_only(made: Made, tmp_path: Path) -> None:
    folder = StudyFolder(shutil.copytree(made("llama").home, tmp_path / "home"), "small")
    lines = folder.journal.read_text().splitlines(keepends=True)
    folder.journal.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="is not finished"):
        exported(folder)
    assert exported(folder, run="trial-000/seed-0").folder.exists()


def test_predict_prints_the_answers_and_explains_them(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made("llama")
    monkeypatch.setenv("SHOWHOW_HOME", str(folder.home))
    run = exported(folder)
    row = recorded(folder, run.exported.run)[0]
    answer, right = (row[text].rpartition("answer")[2].strip() for text in ("reply", "target"))
    line = f"{answer}  {'right' if answer == right else f'wrong: {right}'}\n"
    for name in ("small", str(run.folder)):
        assert main(["predict", name, row["question"], row["question"].replace("+", " + ")]) == DONE
        assert capsys.readouterr().out == line + line
    assert main(["predict", "small", row["question"], "--json"]) == DONE
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["question"], told["reply"], told["right"]) == (row["question"], row["reply"], row["answer_right"])
    assert [step["right"] for step in told["steps"]].count(True) == round(row["steps_right"] * len(told["steps"]))
    assert main(["predict", "small", row["question"], "--explain"]) == DONE
    first, *graded = capsys.readouterr().out.splitlines()
    assert first == row["question"]
    assert len(graded) == len(told["steps"]) + 1
    assert [("right" in line) for line in graded] == [step["right"] for step in told["steps"]] + [told["right"]]


def test_questions_that_cannot_be_read_keep_no_other_from_its_answer(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made("llama")
    monkeypatch.setenv("SHOWHOW_HOME", str(folder.home))
    monkeypatch.setattr("sys.stdin", io.StringIO("1+2+3\n\n1+x\n"))
    assert main(["predict", "small", "1+77=", "2+2+2=", "-"]) == USER_ERROR
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line == "not asked" for line in lines] == [True, False, False, True]
    assert "2 of 4 questions could not be answered" in told.err
    assert 'question 1: the model of trial-000/seed-1 cannot read "1+77=": at position 3 found "77"' in told.err
    assert 'question 4: modular_sum cannot read "1+x": at position 3 found "x", expected a number' in told.err
    assert main(["predict", "small", "2+2+2=", "1+x", "--json"]) == USER_ERROR
    good, bad = json.loads(capsys.readouterr().out)
    assert good["expected"] == "0"
    assert bad["question"] == "1+x"
    assert "at position 3" in bad["error"]
