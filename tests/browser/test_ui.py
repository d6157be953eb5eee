"""What a person sees: the study's page in MLflow's UI, in a real browser."""

import shutil
import subprocess
from pathlib import Path

import pytest

from showhow.tracking.mlflow.server import serve_ui
from showhow.tracking.mlflow.tracker import MlflowTracker, publish_views
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted, StudyEnded, StudyStarted

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--window-size=2600,1200", "--virtual-time-budget=60000"),
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]


def a_small_study() -> list[Event]:
    told: list[Event] = [StudyStarted("tiny", "Does it show?", {"levels": ["none", "long"]}, {}, 1000.0)]
    for number, (level, accuracy) in enumerate({"none": 0.125, "long": 0.9375}.items()):
        key = f"trial-{number}/seed-0"
        told.append(RunStarted(key, f"trial-{number}", 0, level, {"learning_rate": 1e-3}, {}, 1, 1001.0))
        for examples in range(64, 641, 64):
            metrics = {"validation/accuracy": accuracy * examples / 640, "train_loss": 2.0}
            told.append(Reported(key, examples, metrics, 1002.0 + examples))
        status, rule = ("stopped", "median") if level == "none" else ("finished", None)
        told.append(RunEnded(key, "stopped" if status == "stopped" else "finished", rule, None, {}, 2000.0))
    return [*told, StudyEnded("finished", "It does.", [], {}, 2001.0)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of the page of each view, as the browser shows it."""
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = MlflowTracker(uri, folder / "study")
    for event in a_small_study():
        tracker.record(event)
    tracker.close(timeout_seconds=120)
    with serve_ui(uri) as server:
        addresses = publish_views(uri, folder / "study", server.address)
        return {name: shown(address, folder / name) for name, address in addresses.items()}


def shown(address: str, profile: Path) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_study_page_lists_parent_and_runs_best_first(pages: dict[str, str]) -> None:
    page = pages["study"]
    for text in (">tiny<", "long · trial-1 · seed 0", "none · trial-0 · seed 0", "0.9375", "0.125"):
        assert text in page
    assert page.index("long · trial-1 · seed 0") < page.index("none · trial-0 · seed 0")


def test_the_study_page_has_our_columns(pages: dict[str, str]) -> None:
    page = pages["study"]
    for column in ("showhow.status", "showhow.stopped_by", "validation/accuracy", "Description"):
        assert column in page
    for cell in (">stopped<", ">median<", "Stopped early by the rule median."):
        assert cell in page


def test_the_arms_page_groups_runs_by_arm_and_draws_a_curve_for_each(pages: dict[str, str]) -> None:
    page = pages["arms"]
    for text in ("Group: long", "Group: none", "By arm", "validation/accuracy"):
        assert text in page
    assert "long · trial-1 · seed 0 (validation/accuracy)" in page, "the legend of a drawn chart: a curve for each run"
