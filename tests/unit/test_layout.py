"""Laws of the house: nothing shadows Python's `platform`, files stay short, and the core loads nothing heavy."""

import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from showhow.study.study import Study

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "showhow"
IGNORED = {"__pycache__", "showhow-runs", "shared"}  # and what is hidden
HEAVY = (
    "ray",
    "torch",
    "mlflow",
    "transformers",
    "tokenizers",
    "pyarrow",
    "deepspeed",
    "optuna",
    "matplotlib",
    "pandas",
)


def files(folder: Path, pattern: str) -> list[Path]:
    def is_ours(path: Path) -> bool:
        return not any(part in IGNORED or part.startswith(".") for part in path.relative_to(ROOT).parts)

    return sorted(filter(is_ours, folder.rglob(pattern)))


def test_nothing_shadows_pythons_platform() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert files(ROOT, "platform*") == [ROOT / "platform"]
    assert platform.python_implementation()


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in files(PACKAGE, "*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_files_are_short_enough_to_be_read() -> None:
    lengths = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in files(PACKAGE, "*.py")}
    most = {path: 150 if path.parts[0] in ("tasks", "methods") else 300 for path in lengths}
    assert {str(path): length for path, length in lengths.items() if length > most[path]} == {}


def test_folders_are_small_enough_to_be_read_like_a_table_of_contents() -> None:
    sizes = Counter(path.parent for path in files(PACKAGE, "*.py") if path.name != "__init__.py")
    assert {str(folder): size for folder, size in sizes.items() if size > 15} == {}


def test_every_module_says_what_it_owns() -> None:
    undocumented = [p for p in files(PACKAGE, "*.py") if p.read_text() and not p.read_text().startswith('"""')]
    assert undocumented == []


def loaded_by(code: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    """Those of some modules that a fresh interpreter has loaded after running the code."""
    show = f"import sys; print('LOADED', *(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


STUDY = "search_spaces/quickstart.toml"
COMMANDS = [
    ["check", STUDY],
    ["plan", STUDY],
    ["plan", "search_spaces/paper_t5.toml"],
    ["plan", "search_spaces/lora_qwen.toml"],
    ["tasks"],
    ["methods"],
    ["explain", "listops"],
    ["explain", "modular_sum", "--level", "none"],
]


def test_the_core_and_the_commands_that_start_nothing_load_nothing_heavy() -> None:
    names = (
        "",
        ".study.study",
        ".study.plan",
        ".tasks",
        ".tasks.gallery",
        ".evidence.compare",
        ".home.folder",
        ".cli.main",
        ".testing",
    )
    imports = [f"import showhow{name}" for name in names] + ["showhow.Study, showhow.UserError"]
    calls = [f"assert showhow.cli.main.main({arguments!r}) == 0" for arguments in COMMANDS]
    assert loaded_by("\n".join(imports + calls)) == set()


def test_checking_a_study_whose_task_needs_no_arrays_loads_no_numpy() -> None:
    code = f"from showhow.cli.main import main\nassert main(['check', {STUDY!r}]) == 0"
    assert loaded_by(code, ("numpy",)) == set()


@pytest.mark.parametrize("path", files(ROOT / "search_spaces", "*.toml"), ids=lambda path: path.stem)
def test_every_shipped_study_loads_and_gives_a_reason_at_each_range(path: Path) -> None:
    assert Study.load(path).trials
    ranges = [line for line in path.read_text().splitlines() if re.search(r"uniform|integers", line)]
    assert [line for line in ranges if "#" not in line] == []


def test_the_study_files_that_the_readme_names_exist() -> None:
    named = set(
        re.findall(r"(?:search_spaces|cluster|docs|benchmarks|dashboards)/[\w./-]*\w", (ROOT / "README.md").read_text())
    )
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
