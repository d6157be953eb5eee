"""Laws of the guides: what they show is complete and works, from the class to the study that names it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = {"add-a-task": "parity", "add-a-method": "curriculum"}


def files_of(guide: str) -> dict[str, str]:
    """The files that a guide shows, by name: blocks whose first line is a comment with it."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(params=GUIDES)
def package(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """The folder of a guide's files, installed as a package, and its kind."""
    files = files_of(request.param)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    offers = [
        f"[{group}]\n" + "\n".join(f"{kind} = {place}" for kind, place in kinds.items())
        for group, kinds in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(offers) + "\n")
    return tmp_path, GUIDES[request.param]


def run(folder: Path, *command: str) -> str:
    """What a Python command prints in a folder whose modules can be imported."""
    paths = os.pathsep.join([str(folder), str(ROOT / "platform"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


SHOWN = """
import sys
from showhow.cli.main import main
kind, command = sys.argv[1:]
import study
from showhow import Study
assert main([command]) == 0 and main(["check", f"{kind}.toml"]) == 0
of_file = Study.load(f"{kind}.toml")
assert of_file.arms == study.study.arms, (of_file.arms, study.study.arms)
assert kind in (of_file.trials[-1].task.kind, of_file.trials[-1].method.kind)
assert study.study.with_changes({"name": "again"}).trials == study.study.trials
"""


def test_the_example_keeps_the_laws_and_is_used_from_toml_and_from_python(package: tuple[Path, str]) -> None:
    folder, kind = package
    assert re.search(r"\d+ passed", run(folder, "-m", "pytest", "-p", "no:cacheprovider", f"test_{kind}.py"))
    command = "tasks" if kind == "parity" else "methods"
    shown = run(folder, "-c", SHOWN, kind, command)
    assert f"\n{kind}: " in shown


def test_a_registered_class_and_one_of_a_package_give_the_same_study(package: tuple[Path, str]) -> None:
    folder, kind = package
    code = f"from showhow import Study; print(Study.load('{kind}.toml').fingerprint)"
    registered = f"import showhow, {kind}; showhow.register({kind}.{kind.capitalize()}); {code}"
    assert run(folder, "-c", code) == run(folder, "-c", registered)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_two_pages_and_names_files_that_exist(guide: str) -> None:
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) < 800
    named = set(re.findall(r"(?:platform|tests|docs|search_spaces)/[\w./-]*\w", prose))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
