"""Laws of the views: every name in dashboards/ exists, and an address says which page of which study it opens."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from showhow import metrics
from showhow.tracking.mlflow.content import RUN, STUDY_ID
from showhow.tracking.mlflow.views import View, dashboards, is_view, load_views

VIEWS = load_views()


def test_every_shipped_view_is_loaded() -> None:
    files = {file.stem for file in dashboards().glob("*.json") if is_view(file)}
    assert {view.name for view in VIEWS} == files >= {"study", "arms"}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_metric_of_a_view_is_one_we_report(view: View) -> None:
    for name in view.metrics():
        metrics.find(name)
        split = name.rpartition("/")[0]
        assert split in ("", metrics.VALIDATION, metrics.TEST)
        assert bool(split) == (metrics.find(name) in metrics.SPLIT_METRICS)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_order_follows_the_direction_of_its_metric(view: View) -> None:
    assert view.ascending == (metrics.find(view.order_by).better == "lower")


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_shows_one_study_alone(view: View) -> None:
    state = json.loads(view.state("0123456789abcdef"))
    assert f"tags.`{STUDY_ID}` = '0123456789abcdef'" in state["searchFilter"]
    assert "{" not in state["searchFilter"]
    assert len(view.state("0123456789abcdef")) < 20_000, "MLflow's limit for an experiment tag"
    assert all(column in state["columnOrder"] for column in state["selectedColumns"])
    assert view.key("a") != view.key("b")


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_address_names_the_tag_that_holds_the_view(view: View) -> None:
    address = urlsplit(view.address("http://me:hunter2@127.0.0.1:5000/", "7", "abc"))
    assert address.netloc == "127.0.0.1:5000"
    page, _, query = address.fragment.partition("?")
    assert page == "/experiments/7/runs"
    told = parse_qs(query)
    assert view.tag("abc") == f"mlflow.sharedViewState.{told['viewStateShareKey'][0]}"
    assert told["compareRunsMode"] == [view.mode.upper()]


def test_views_have_different_keys_and_tags_are_ours() -> None:
    assert len({view.key("abc") for view in VIEWS}) == len(VIEWS)
    tags = {column.tag for view in VIEWS for column in view.columns if column.tag} | {RUN, STUDY_ID}
    assert all(tag.startswith("showhow.") for tag in tags)
