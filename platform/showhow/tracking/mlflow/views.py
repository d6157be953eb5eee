"""The pages of the MLflow UI that `showhow ui` opens: readable JSON in `dashboards/`, turned into MLflow's view state.

MLflow 3.17 reads a shared view from an experiment tag `mlflow.sharedViewState.KEY` (JSON) when the page's address
contains `?viewStateShareKey=KEY`. Such a view contains filter, order, columns, grouping and charts; the address itself
can contain only filter and order. The names are those of MLflow's own page (mlflow/server/js, ExperimentPageUIState and
ExperimentPageSearchFacetsState); there is no other documentation. Pure: runs.py sets the tags.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict

from showhow.fingerprint import Json, canonical_json, fingerprint

_FIRST_COLUMNS: dict[str, Json] = {"attributes.`Run Name`": 220, "runDateAndNestInfo": 130}  # MLflow always shows them


class Column(BaseModel):
    """One column of the table: exactly one of tag, metric and attribute is set. `width` is in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tag: str | None = None
    metric: str | None = None
    attribute: Literal["Created", "Duration", "Dataset", "Description", "Source", "User"] | None = None
    width: int

    def key(self) -> str:
        """Return MLflow's name of the column, such as metrics.`test/accuracy`."""
        named = {"tags": self.tag, "metrics": self.metric, "attributes": self.attribute}
        kind, name = next((kind, name) for kind, name in named.items() if name is not None)
        return f"{kind}.`{name}`"


class Chart(BaseModel):
    """One line chart: a metric over the training examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    metric: str
    title: str


class View(BaseModel):
    """One page: which runs, in which order, with which columns (table) or charts (chart)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    mode: Literal["table", "chart"]
    filter: str
    order_by: str
    ascending: bool
    columns: tuple[Column, ...]
    group_by_tag: str | None
    charts: tuple[Chart, ...]

    def metrics(self) -> set[str]:
        """Return every metric the view names."""
        columns = {column.metric for column in self.columns if column.metric}
        return columns | {chart.metric for chart in self.charts} | {self.order_by}

    def state(self, study_id: str) -> str:
        """Return the view of one study as the JSON that MLflow stores in the tag."""
        state: dict[str, Json] = {
            "searchFilter": self.filter.replace("{study_id}", study_id),
            "orderByKey": f"metrics.`{self.order_by}`",
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [column.key() for column in self.columns],
            "columnOrder": [*_FIRST_COLUMNS, *(column.key() for column in self.columns)],
            "columnWidths": {**_FIRST_COLUMNS, **{column.key(): column.width for column in self.columns}},
            "runsHiddenMode": "SHOW_ALL",
            "groupBy": self._group_by(),
            "useGroupedValuesInCharts": False,  # a mean over the unfinished runs drops when solved ones end
            "hideEmptyCharts": True,
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
        if self.charts:
            state["isAccordionReordered"] = True
            state["compareRunSections"] = [
                {"uuid": "showhow", "name": self.title, "display": True, "isReordered": True}
            ]
            state["compareRunCharts"] = [_line_chart(chart) for chart in self.charts]
        return canonical_json(state)

    def key(self, study_id: str) -> str:
        """Return the share key: the same view of the same study always has the same one."""
        return fingerprint([self.name, study_id])

    def tag(self, study_id: str) -> str:
        """Return the name of the experiment tag with the view's state."""
        return f"mlflow.sharedViewState.{self.key(study_id)}"

    def address(self, base: str, experiment_id: str, study_id: str) -> str:
        """Return the page's address below `base`, such as http://127.0.0.1:5000; a password in `base` is left out."""
        query = {"viewStateShareKey": self.key(study_id), "compareRunsMode": self.mode.upper()}
        query["workflowType"] = "machine_learning"  # without it MLflow shows its menu for chat applications
        scheme, _, rest = base.rstrip("/").partition("://")
        host, slash, path = rest.partition("/")
        return (
            f"{scheme}://{host.rpartition('@')[2]}{slash}{path}/#/experiments/{experiment_id}/runs?{urlencode(query)}"
        )

    def _group_by(self) -> Json:
        if self.group_by_tag is None:
            return None
        return {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": self.group_by_tag}]}


@cache
def load_views() -> tuple[View, ...]:
    """Return every view of the `dashboards` folder, in order of its file name. Raises ValueError for a bad one."""
    files = sorted(dashboards().glob("*.json"))
    return tuple(View.model_validate_json(file.read_text(encoding="utf-8")) for file in files if is_view(file))


def is_view(file: Path) -> bool:
    """Return whether a dashboard file is one of MLflow's views, not Grafana's (`grafana*.json`)."""
    return not file.name.startswith("grafana")


def dashboards() -> Path:
    """Return the folder of dashboards: inside the installed package, or in the repository it runs from."""
    installed = Path(str(resources.files("showhow"))) / "dashboards"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[4] / "dashboards"


def _line_chart(chart: Chart) -> Json:
    """Return MLflow's RunsChartsLineCardConfig."""
    return {
        "uuid": fingerprint(chart.metric),
        "type": "LINE",
        "metricSectionId": "showhow",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "displayName": chart.title,
        "metricKey": chart.metric,
        "selectedMetricKeys": [chart.metric],
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "lineSmoothness": 0,
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
