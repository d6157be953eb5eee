"""Laws of the pages for who changes the code: what they name exists, and no room of the house is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "showhow"
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
MADE_BY_STUDIES = {"datasets/ADDRESS", "stages/ADDRESS", "journal.jsonl", "results.json"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def paths_in(page: str) -> set[str]:
    """Paths in code spans and links."""
    spans = re.findall(r"`([^`\n]+)`", text_of(page)) + re.findall(r"\]\(([^)]+)\)", text_of(page))
    words = [word.strip(",") for span in spans for word in span.split()]
    return {word for word in words if re.fullmatch(r"\.?[\w./-]+(/|/[\w.-]+|\.(md|py|toml|lock|jsonl?))", word)}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    named = paths_in(page) - MADE_BY_STUDIES
    assert len(named) > 10
    places = (ROOT, PACKAGE, (ROOT / page).parent)
    outside = {".venv/bin/pytest"}
    assert [one for one in sorted(named - outside) if not any((place / one).exists() for place in places)] == []


def test_every_folder_of_the_package_is_named_in_the_architecture() -> None:
    folders = {str(path.parent.relative_to(PACKAGE)) + "/" for path in PACKAGE.rglob("__init__.py")} - {"./"}
    assert sorted(folders - paths_in("docs/architecture.md")) == []


def test_every_module_of_the_ground_floor_is_named_in_the_architecture() -> None:
    assert sorted({path.name for path in PACKAGE.glob("[a-z]*.py")} - paths_in("docs/architecture.md")) == []


def test_every_folder_of_tests_is_named_in_contributing() -> None:
    folders = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if [*path.glob("test_*.py")]}
    assert sorted(folders - paths_in("CONTRIBUTING.md")) == []


def test_every_target_of_make_that_contributing_names_is_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make (\w+)", text_of("CONTRIBUTING.md"))) <= targets
