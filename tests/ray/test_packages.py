"""A task, a method and a metric of somebody else's, used from Python, from a study file, and in workers that cannot
import them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ray.conftest import TINY, Command

# What a package of somebody else's holds. Nothing of it is on the path of the tests.
SOURCE = '''
import random
from typing import Annotated, Literal

from pydantic import Field

import showhow
from showhow.errors import UserError
from showhow.methods.base import Method
from showhow.tasks.base import Problem, TextFormat, Wording


class Parity(showhow.Task):
    """Is the number of ones even (0) or odd (1)? Steps: the parity so far."""

    kind: Literal["parity"] = "parity"
    bits: Annotated[int, Field(ge=2, le=64)] = 6
    example_question = "1 0 1 ="

    @property
    def text_format(self):
        return TextFormat(step_separator=" ", answer_prefix="answer ")

    def draw(self, rng: random.Random):
        return self._worked([rng.randrange(2) for _ in range(self.bits)])

    def solve(self, question: str):
        digits = question.replace("=", "").split()
        if not digits or set(digits) - {"0", "1"}:
            raise UserError(f'parity cannot read "{question}"; write ones and zeros, such as 1 0 1 =')
        return self._worked([int(digit) for digit in digits])

    def _worked(self, bits):
        steps, so_far = [], 0
        for bit in bits:
            so_far ^= bit
            steps.append((bit, so_far))
        wording = Wording(short="{1}".format, medium="{0}:{1}".format, long="{0}+:{1}".format)
        return Problem(" ".join(map(str, bits)) + " =", tuple(steps), wording, str(so_far))

    @property
    def answers(self):
        return ("0", "1")

    @property
    def largest_number(self):
        return 1

    @property
    def distinct_questions(self):
        return 2**self.bits


class Curriculum(showhow.Method):
    """First the shorter half of the rows, then all."""

    kind: Literal["curriculum"] = "curriculum"
    first: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5

    def run(self, bench, prepared):
        measured = bench.map(prepared, with_length, version=1)
        short, _ = bench.split(measured, 2, by="length")
        (model,) = bench.train(bench.start(), short, examples=self.first, watched=False)
        return bench.train(model, prepared)[-1]


def with_length(row):
    return [row.with_(length=len(row.target))]


class Brevity(showhow.Metric):
    """Letters of a reply, mean."""

    name, unit, better, meaning = "brevity", "letters", "lower", "letters of a reply, mean over replies"

    def measure(self, replies):
        return sum(len(reply.text) for reply in replies) / len(replies) if replies else None
'''
STUDY = (
    TINY.replace('kind = "modular_sum"\nterms = 3\nbelow = 5\nmodulus = 5', 'kind = "parity"\nbits = 9')
    .replace("{ terms = 4 }", "{ bits = 11 }")
    .replace('explanation = { grid = ["none", "long"] }', 'method = { grid = ["plain", "curriculum"] }')
    .replace("every_examples = 80\n", 'every_examples = 80\nmetrics = ["brevity"]\n')
    .replace("[data]\n", '[compare]\nby = ["method"]\n\n[data]\nexplanation = "long"\n')
    .replace("max_examples = 800", "max_examples = 240")
)
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import theirs, showhow
for one in (theirs.Parity, theirs.Curriculum, theirs.Brevity):
    showhow.register(one)
sys.path.remove(sys.argv[3])  # no other process finds it there
if __name__ == "__main__":
    study = showhow.Study.load(sys.argv[1])
    result = showhow.run_study(study, home=Path(sys.argv[2]))
    frame = showhow.results("tiny", home=Path(sys.argv[2])).frame()
    print(sorted(frame["arm"]), sorted(set(frame["status"])), float(frame["test/brevity"].min()) > 0)
    again = showhow.Study.of(**{key: value for key, value in study.definition().items() if value is not None})
    print(again.fingerprint == study.fingerprint)
"""


def installed(folder: Path) -> Path:
    """Their package as pip would have laid it: a module, and the metadata that name its entry points."""
    (folder / "theirs.py").write_text(SOURCE)
    metadata = folder / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = {"tasks": "parity = theirs:Parity", "methods": "curriculum = theirs:Curriculum"}
    points["metrics"] = "brevity = theirs:Brevity"
    text = "\n".join(f"[showhow.{group}]\n{line}\n" for group, line in points.items())
    (metadata / "entry_points.txt").write_text(text)
    return folder


def test_registered_classes_are_used_from_python_and_travel_to_workers_that_cannot_import_them(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "theirs.py").write_text(SOURCE)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [tmp_path / "study.toml", tmp_path / "home", tmp_path / "package"]
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    frame, is_same = done.stdout.splitlines()[-2:]
    assert frame == "['curriculum', 'curriculum', 'plain', 'plain'] ['finished'] True"
    assert is_same == "True"


def test_an_installed_packages_classes_are_used_by_their_kind_in_a_study_file(tmp_path: Path, showhow: Command) -> None:
    (tmp_path / "package").mkdir()
    package = installed(tmp_path / "package")
    (tmp_path / "study.toml").write_text(STUDY)
    run = showhow("run", tmp_path / "study.toml", home=tmp_path / "home", PYTHONPATH=str(package))
    said, complaints = run.communicate(timeout=300)
    assert run.returncode == 0, complaints + said
    journal = [json.loads(line) for line in (tmp_path / "home" / "tiny" / "journal.jsonl").read_text().splitlines()]
    stages = [event for event in journal if event["event"] == "StageEnded" and "trial-001" in event["run"]]
    assert [stage["operation"] for stage in stages][-4:] == ["map", "split", "train", "train"] or len(stages) >= 4
    finals = [event for event in journal if event["event"] == "Reported" and "test/brevity" in event["metrics"]]
    assert len({event["run"] for event in finals}) == 4
    shown = showhow("methods", home=tmp_path / "home", PYTHONPATH=str(package)).communicate(timeout=60)[0]
    assert "curriculum" in shown
    assert "First the shorter half of the rows, then all." in shown


@pytest.mark.parametrize("broken", ["import nothing_of_this_name", "raise ValueError('no')"])
def test_a_package_that_cannot_be_imported_is_named_before_any_process_starts(
    tmp_path: Path, showhow: Command, broken: str
) -> None:
    (tmp_path / "package").mkdir()
    package = installed(tmp_path / "package")
    (package / "theirs.py").write_text(broken + "\n" + SOURCE)
    (tmp_path / "study.toml").write_text(STUDY)
    check = showhow("check", tmp_path / "study.toml", home=tmp_path / "home", PYTHONPATH=str(package))
    _, complaints = check.communicate(timeout=60)
    assert check.returncode == 2
    assert "study.toml:" in complaints
    assert "theirs" in complaints
    assert "Traceback" not in complaints
