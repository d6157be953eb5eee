"""Laws of the command line: what it prints, its exit codes, and how little it loads and takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from studies import TEXT, changed

from showhow import __version__
from showhow.cli.main import DONE, USER_ERROR, main
from showhow.home.folder import StudyFolder
from showhow.study.study import Study
from showhow.tasks import TASKS
from showhow.tasks.explain import Level
from showhow.tracking.jsonl import JsonlTracker
from showhow.tracking.tracker import StudyStarted

COMMAND = [str(Path(sys.executable).with_name("showhow"))]
LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOWHOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    return path


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def test_check_says_what_the_study_compares(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(study)]) == DONE
    assert capsys.readouterr().out == f"{study}: study small is valid; it compares none and long with 2 seeds\n"


def test_a_mistake_is_said_on_stderr_without_a_traceback_and_ends_with_2(study: Path) -> None:
    study.write_text(changed(("terms = 6", "tersm = 6")))
    for command in ("check", "run"):
        done = call(command, study)
        assert done.returncode == USER_ERROR
        assert done.stdout == ""
        assert done.stderr.startswith(f"showhow: {study}:7: task.tersm: there is no such setting.")
        assert "Traceback" not in done.stderr
    assert not (study.parent / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["chek"], ["check"], ["check", "--set", "--name"], ["results"], ["explain", "listops", "--seed", "x"]],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == USER_ERROR
    assert "usage: showhow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "no.toml"], "there is no such file"),
        (["results", "no"], 'there is no study "no"'),
        (["results", "../no"], 'there is no study "../no"'),
        (["results", ""], 'there is no study ""'),
        (["ui", "no"], 'there is no study "no"'),
        (["explain", "modularsum"], 'Did you mean "modular_sum"?'),
        (["explain", "listops", "--level", "lng"], 'Did you mean "long"?'),
        (["explain", "listops", "--set", "depth"], "write it as key=value"),
        (["explain", "listops", "--set", "max_dept=3"], 'Did you mean "max_depth"?'),
        (["explain", "listops", "--set", "max_depth=[["], "max_depth"),
        (["explain", "listops", "--set", f"max_depth={'9' * 5000}"], "max_depth"),
        (["explain", "listops", "--set", "preset=x"], "presets of this task"),
        (["explain", "modular_sum", "--question", "3+x="], 'at position 3 found "x"'),
        (["explain", "modular_sum", "--question", ""], "expected a number"),
    ],
)
@pytest.mark.usefixtures("study")
def test_each_mistake_is_answered(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("showhow: ")
    assert said in captured.err


def test_a_typed_question_is_answered_with_the_target_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "modular_sum", "--question", "3 + 9+4"]) == DONE
    assert capsys.readouterr().out == "3+9=2 2+4=6 answer 6\n"


def test_a_drawn_question_is_the_same_for_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for seed in ("3", "3", "4"):
        assert main(["explain", "listops-30", "--level", "medium", "--seed", seed]) == DONE
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]


def test_a_parameter_of_the_task_may_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "modular_sum", "--set", "style=sentence", "terms=2", "--level", "long"]) == DONE
    assert " plus " in capsys.readouterr().out


def test_the_catalogue_shows_every_task_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == DONE
    entries = capsys.readouterr().out.split("\n\n")
    text = "\n".join(entries)
    for kind, task in TASKS.items():
        assert f"{kind}: " in text
        assert all(preset in text for preset in task.presets)
        assert all(f"  {name} = " in text for name in task.model_fields if name != "kind")
    assert all(text.count(f"  {level.value} ") == len(TASKS) for level in Level)


def test_overrides_may_follow_one_option_or_several(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["check", str(study), "--set", "seeds=[5]", "search.explanation.grid=['filler']"]
    several = ["check", str(study), "--set", "seeds=[5]", "--set", "search.explanation.grid=['filler']"]
    assert [main(one), main(several)] == [DONE, DONE]
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == f"{study}: study small is valid; it compares filler with 1 seed"


def test_overrides_may_stand_before_the_file(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["seeds=[5]", "search.explanation.grid=['filler']"]
    before = ["check", "--set", *changes, str(study)]
    apart = ["check", "--set", changes[0], str(study), f"--set={changes[1]}"]
    assert [main(before), main(apart)] == [DONE, DONE]
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == f"{study}: study small is valid; it compares filler with 1 seed"
    assert main(["explain", "--set", "terms=2", "style=sentence", "modular_sum"]) == DONE
    assert " plus " in capsys.readouterr().out


def test_a_name_may_be_given_and_is_checked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(study), "--name", "007"]) == DONE
    assert "study 007 is valid" in capsys.readouterr().out
    assert main(["check", str(study), "--name", "a/b"]) == USER_ERROR
    assert capsys.readouterr().err.startswith('showhow: --name a/b: name: got "a/b"')


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_plan_fits_the_screen(
    study: Path, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    study.write_text(changed((LR, LR + "\nwarmup_examples = { integers = [0, 99] }")))
    assert main(["plan", str(study)]) == DONE
    out = capsys.readouterr().out
    assert all(len(line) <= int(columns) for line in out.splitlines())
    for part in ("8 (4 trials x 2 seeds)", "4,600 rows", "learning_rate = searched", "schedule = constant"):
        assert part in out
    assert "None" not in out


def test_text_of_a_study_is_printed_as_it_stands(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(changed(('"How much?"', '"[red]How[/red] [MAX 4 2 ] :smile: [/]"')))
    assert main(["plan", str(study)]) == DONE
    assert "small · [red]How[/red] [MAX 4 2 ] :smile: [/]" in capsys.readouterr().out


def test_a_plan_says_when_nothing_fits(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(changed(("cpus_per_device = 1", "cpus_per_device = 10_000")))
    assert main(["plan", str(study)]) == DONE
    assert "none fits on" in capsys.readouterr().out


def test_a_closed_pipe_is_no_fault() -> None:
    done = subprocess.run(f"{COMMAND[0]} tasks | head -1", shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stderr == ""


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"showhow {__version__}\n"


def test_results_of_a_study_that_has_just_started_are_empty_and_no_fault(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(study)
    assert main(["results", "small", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["rows"] == []
    assert main(["results", "small"]) == DONE
    told = capsys.readouterr().out
    assert "showhow ui small" in told
    assert "The study is not finished" in told
    assert "run STUDY.toml --name small\n" in told


def begun(study: Path) -> StudyFolder:
    """The folder of a study of which no run has started yet."""
    folder = StudyFolder(study.parent / "home", "small")
    folder.make()
    folder.claim(Study.load(study))
    tracker = JsonlTracker(folder.journal)
    tracker.record(StudyStarted("small", "How much?", {}, {}, 0.0))
    tracker.close()
    return folder


def test_a_damaged_study_is_a_mistake_to_mend(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun(study)
    folder.definition.write_text("{}")
    assert main(["results", "small"]) == USER_ERROR
    assert "study.json cannot be read" in capsys.readouterr().err
