"""Laws of the notes: what is no mistake of a study and yet to be known before it runs, check, plan and run say."""

import json
from pathlib import Path

import pytest
from studies import changed, load

from showhow.cli.main import DONE, main
from showhow.machines.layout import Layout
from showhow.machines.room import Cluster, Demand, Node, shortage
from showhow.sections.resources import Resources
from showhow.study.notes import notes_on

SCRATCH = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
ON_THE_HUB = (SCRATCH, 'kind = "pretrained"\nname = "somebody/something"')


def resources(text: str) -> tuple[str, str]:
    return "cpus_per_device = 1", text


def demand(devices: int, **each: float) -> Demand:
    return Demand(1, (Layout(micro_batch_size=1, devices=devices),), Resources.model_validate(each))


def test_a_study_that_this_machine_can_run_as_it_says_has_no_notes(tmp_path: Path) -> None:
    assert notes_on(load(tmp_path)) == []


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_study_too_large_for_this_machine_is_valid_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(changed(resources("cpus_per_device = 10_000")))
    assert main([command, str(path)]) == DONE
    note = capsys.readouterr().out.splitlines()[-1]
    assert note.startswith("note: it cannot run on this machine alone. resources.cpus_per_device = 10000, but this")
    assert "give the --address of a cluster" in note


def test_a_machine_without_a_compiler_is_told_what_one_is_good_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (note,) = notes_on(load(tmp_path))
    assert note.startswith("there is no C++ compiler here")


def test_what_a_cluster_may_hold_is_not_asked_of_this_machine(tmp_path: Path) -> None:
    assert notes_on(load(tmp_path, changed(resources("cpus_per_device = 10_000"))), is_for_this_machine=False) == []


def test_too_many_devices_are_told_with_how_many_there_are() -> None:
    two = Cluster((Node(2, 0.0),))
    assert shortage(two, demand(2), "it") is None
    assert "takes 4 devices of 1 CPUs and 0 GPUs each, but it has room for 2" in (shortage(two, demand(4), "it") or "")
    assert "gpus_per_device = 1, but it has 0 GPUs" in (shortage(two, demand(1, gpus_per_device=1.0), "it") or "")
    several = Cluster((Node(2, 1.0), Node(2, 1.0)))
    assert shortage(several, demand(2, gpus_per_device=1.0), "it") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('devices_per_trial = "auto"', 'resources.devices_per_trial = "auto" takes a single device, even'),
        ("devices_per_trial = 2", 'sharding.zero_stage = "auto" takes the lowest stage, even'),
    ],
)
def test_what_auto_assumes_of_a_model_that_is_not_here_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (note,) = notes_on(load(tmp_path, changed(ON_THE_HUB, resources(text))), is_for_this_machine=False)
    assert note.startswith(said)
    assert 'as the weights of somebody/something are not on this disk. Download them first ("hf download ' in note
    assert notes_on(load(tmp_path, changed(ON_THE_HUB)), is_for_this_machine=False) == []  # nothing is assumed


def test_what_auto_assumes_of_a_gpu_of_unknown_size_is_said(tmp_path: Path) -> None:
    asked = 'devices_per_trial = "auto"\ngpus_per_device = 1'
    (note,) = notes_on(load(tmp_path, changed(resources(asked))), is_for_this_machine=False)
    assert "as the memory of a GPU is unknown. Set resources.device_gb" in note
    sized = load(tmp_path, changed(resources(f"{asked}\ndevice_gb = 80")))
    assert notes_on(sized, is_for_this_machine=False) == []


def test_rows_that_answer_a_question_otherwise_are_named_with_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"question": f"{number}?", "steps": ["so"], "answer": number} for number in range(400)]
    rows += [rows[3], *({"question": f"{number}?", "steps": ["so"], "answer": -1} for number in range(7))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = 'kind = "modular_sum"\nterms = 6'
    sizes = ("train_examples = 2_000\neval_examples = 100", "train_examples = 100\neval_examples = 20")
    text = changed((task, f'kind = "imported"\npath = "{path}"'), sizes, ("eval_splits.longer = { terms = 8 }", ""))
    (note,) = notes_on(load(tmp_path, text))
    told, *lines = note.splitlines()
    assert told == f"{path}: 7 rows repeat a question with another answer; the first answer is kept"
    assert lines[0] == f'{path}:402: has the answer "-1", and the same question in line 1 has "0"'
    assert len(lines) == 5
