"""What a parcel of events changes in one MLflow run, collected so that it takes few requests. Sends nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from showhow.fingerprint import Json
from showhow.tracking.mlflow import content
from showhow.tracking.runs import OfRun
from showhow.tracking.tracker import RepliesSampled, Reported, RunEnded, RunNoted, RunStarted, StageEnded, StudyEnded

_TABLES = "mlflow.loggedArtifacts"  # the tag that lists the tables for the UI


@dataclass
class Run:
    """A run in MLflow, and what it already contains."""

    run_id: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: set[tuple[str, str]] = field(default_factory=set)
    complete_until_milliseconds: int = 0  # events until then had arrived when the run was found again

    def knows(self, event: OfRun) -> bool:
        """Return whether the event arrived in an earlier session: a run's end is written after all its other events."""
        return int(event.seconds_since_epoch * 1000) <= self.complete_until_milliseconds


@dataclass
class News:
    """The changes that a parcel makes to one run, collected so that they take few requests: each costs a server about
    10 ms of a processor. A tag that is None is removed."""

    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    datasets: list[DatasetInput] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    end: tuple[str, int] | None = None  # MLflow's status, milliseconds since the epoch

    def add_settings(self, run: Run, event: RunStarted) -> None:
        """Add the params and the datasets of a run that starts."""
        self.params |= content.flatten(event.params)
        for role, manifest in event.datasets.items():
            fields = content.dataset_fields(role, manifest)
            key = (fields["name"], fields["digest"])
            if key not in run.datasets:
                run.datasets.add(key)
                dataset = Dataset(*key, source_type="local", source=fields["source"], profile=fields["profile"])
                self.datasets.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", role)]))

    def add(self, run: Run, event: OfRun) -> None:
        """Add what happened to a run after its start."""
        match event:
            case Reported():
                self.metrics += metrics_of(event, event.examples)
            case RunNoted():
                notes = content.with_note(self._notes(run), event)
                self.tags |= {content.NOTES: notes, content.DESCRIPTION: content.described(notes)}
            case RepliesSampled():
                self._add_table(run, f"replies/{event.split}.json", event.rows)
            case RunEnded():
                self.tags |= content.end_tags(event, self._notes(run))
                if event.outcome:
                    self.files["outcome.json"] = json.dumps(event.outcome, ensure_ascii=False)
                self.end = end_of(event)

    def add_stages(self, run: Run, stages: Sequence[StageEnded]) -> None:
        """Add the table of all stages that a run has used so far."""
        self._add_table(run, "stages.json", content.stage_rows(stages))

    def _add_table(self, run: Run, path: str, rows: list[dict[str, Json]]) -> None:
        """Add a table, complete: MLflow's own `log_table` appends, so that sending twice would double the rows."""
        self.files[path] = content.table_json(rows)
        tables = json.loads(self.tags.get(_TABLES) or run.tags.get(_TABLES, "[]"))
        if (table := {"path": path, "type": "table"}) not in tables:
            self.tags[_TABLES] = json.dumps([*tables, table])

    def _notes(self, run: Run) -> str:
        return self.tags.get(content.NOTES) or run.tags.get(content.NOTES, "")


def metrics_of(event: Reported | StudyEnded, step: int) -> list[Metric]:
    """Return an event's metrics as points at `step`."""
    milliseconds = int(event.seconds_since_epoch * 1000)
    return [Metric(content.mlflow_key(name), value, milliseconds, step) for name, value in event.metrics.items()]


def end_of(event: RunEnded | StudyEnded) -> tuple[str, int]:
    """Return MLflow's status, and the time in milliseconds since the epoch."""
    return content.MLFLOW_STATUS[event.status], int(event.seconds_since_epoch * 1000)
