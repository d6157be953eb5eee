"""Writes a study's events into MLflow runs. It imports mlflow (1.5 s), so `mlflow.py` imports it late.

Every write bears being repeated: runs are found again by their tags before any is created, params are compared first,
metric points carry the event's time (the server drops a point it has), files and tables are written whole.
It uses MlflowClient alone: no active run, no global tracking address.
"""

import getpass
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from showhow.fingerprint import Json, fingerprint
from showhow.tracking import content
from showhow.tracking.address import artifact_location, redact
from showhow.tracking.delivery import RefusedError, UnreachableError
from showhow.tracking.tracker import Event, RepliesSampled, Reported, RunEnded, RunStarted, StudyEnded, StudyStarted
from showhow.tracking.views import load_views

log = logging.getLogger("showhow")

_PARENT = ""  # the key of the study's own run among its runs
_PASSING = (401, 403, 408, 409, 429)  # a renewed token, a busy server: worth another try, like every 5xx


@dataclass
class _Run:
    run_id: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: set[tuple[str, str]] = field(default_factory=set)
    told_until_milliseconds: int = 0  # what happened up to here had arrived when the run was found again

    def knows(self, event: RunStarted | Reported | RepliesSampled | RunEnded) -> bool:
        """Return whether the event arrived in an earlier session: a run's end is written after all before it."""
        return int(event.seconds_since_epoch * 1000) <= self.told_until_milliseconds


class StudyRuns:
    """The MLflow runs of one study: a parent, and one child per run key.

    `study_id` tells this execution of a study from another of the same name; None derives it from the definition, so
    that the same study continues the same runs.
    """

    def __init__(self, uri: str, experiment: str, study_id: str | None) -> None:
        self._uri, self._experiment, self._study_id = uri, experiment, study_id
        self._connected: MlflowClient | None = None
        self._experiment_id = ""
        self._study: StudyStarted | None = None
        self._runs: dict[str, _Run] | None = None

    def write(self, events: list[Event]) -> None:
        """Write one event, or several reports of one run. Raises UnreachableError or RefusedError (see delivery.py)."""
        try:
            self._write(events)
        except MlflowException as error:
            self._runs = None  # what arrived is unknown: read it again before the next write
            status = error.get_http_status_code()
            passing = status >= 500 or status in _PASSING or error.error_code == "RESOURCE_ALREADY_EXISTS"
            raise (UnreachableError if passing else RefusedError)(redact(str(error))) from error
        except (OSError, SQLAlchemyError) as error:  # a connection cut, a disk full
            self._runs = None
            raise UnreachableError(redact(str(error))) from error

    def _write(self, events: list[Event]) -> None:
        match events[0]:
            case StudyStarted() as event:
                self._start_study(event)
            case StudyEnded() as event:
                self._end_study(event)
            case RunStarted() as event:
                self._start_run(event)
            case event:
                run = self._run(event.run)
                if not run.knows(event):
                    self._continue_run(run, events)

    def publish_views(self, study_id: str) -> str | None:
        """Write the study's views and return the experiment's id; None when the store has no run of the study."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return None
        self._experiment_id = str(found.experiment_id)
        if not self._find_runs(study_id):
            return None
        self._set_views(study_id)
        return self._experiment_id

    def _set_views(self, study_id: str) -> None:
        for view in load_views():
            self._client.set_experiment_tag(self._experiment_id, view.tag(study_id), view.state(study_id))

    def _start_study(self, event: StudyStarted) -> None:
        self._study = event
        definition: dict[str, Json] = {"study": event.study, "definition": event.definition}
        study_id = self._study_id or fingerprint(definition)
        self._experiment_id = self._find_experiment()
        self._runs = self._find_runs(study_id)
        run = self._begin(_PARENT, event.study, event.seconds_since_epoch, content.study_tags(event, study_id))
        self._log_params(run, content.flatten({"study": event.definition, "system": event.facts}))
        for name, value in (("study.json", event.definition), ("system.json", event.facts)):
            self._client.log_text(run.run_id, redact(json.dumps(value, indent=2, ensure_ascii=False)), name)
        self._set_views(study_id)

    def _start_run(self, event: RunStarted) -> None:
        parent = self._run(_PARENT)
        known = self._runs.get(event.run) if self._runs else None
        if known and known.knows(event) and event.attempt <= int(known.tags.get("showhow.attempt", "0")):
            return
        tags = content.run_tags(event, self._started().study, parent.tags[content.STUDY_ID])
        tags["mlflow.parentRunId"] = parent.run_id
        run = self._begin(event.run, content.run_name(event), event.seconds_since_epoch, tags)
        self._log_params(run, content.flatten(event.params))
        self._log_datasets(run, event.datasets)

    def _continue_run(self, run: _Run, events: list[Event]) -> None:
        match events[0]:
            case RepliesSampled() as event:
                self._log_table(run, f"replies/{event.split}.json", event.rows)
            case RunEnded() as event:
                self._end_run(run, event)
            case _:
                reports = [event for event in events if isinstance(event, Reported)]
                self._log_metrics(run, [metric for report in reports for metric in _metrics(report, report.examples)])

    def _end_run(self, run: _Run, event: RunEnded) -> None:
        self._log_tags(run, content.end_tags(event))
        if event.outcome:
            self._client.log_text(run.run_id, redact(json.dumps(event.outcome, ensure_ascii=False)), "outcome.json")
        self._terminate(run, content.MLFLOW_STATUS[event.status], event.seconds_since_epoch)

    def _end_study(self, event: StudyEnded) -> None:
        run = self._run(_PARENT)
        self._log_metrics(run, _metrics(event, 0))
        self._log_tags(run, content.study_end_tags(event, self._started().question))
        for file in event.files:
            if Path(file).is_file():
                self._client.log_artifact(run.run_id, file)
            else:
                log.warning("tracking: %s is not there, so it is not shown in MLflow", file)
        self._terminate(run, content.MLFLOW_STATUS[event.status], event.seconds_since_epoch)

    @property
    def _client(self) -> MlflowClient:
        if self._connected is None:
            self._connected = MlflowClient(self._uri)
        return self._connected

    def _started(self) -> StudyStarted:
        if self._study is None:
            raise RefusedError("it came before the study's start")
        return self._study

    def _run(self, key: str) -> _Run:
        if self._runs is None:
            self._start_study(self._started())
        if self._runs is None or key not in self._runs:
            raise RefusedError(f'run "{key}" was not started')
        return self._runs[key]

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            tags = {
                "mlflow.experimentKind": "finetuning",
                "mlflow.experiment.primaryMetric.name": "validation/accuracy",
            }
            return str(self._client.create_experiment(self._experiment, artifact_location(self._uri), tags))
        if found.lifecycle_stage == "deleted":
            log.warning('tracking: restoring the deleted MLflow experiment "%s"', self._experiment)
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self, study_id: str) -> dict[str, _Run]:
        """Return the study's runs by key. The oldest wins where, against all care, there are two."""
        runs: dict[str, _Run] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{content.STUDY_ID}` = '{study_id}'",
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            for found in page:
                datasets = {(one.dataset.name, one.dataset.digest) for one in found.inputs.dataset_inputs}
                told_until = found.info.end_time or 0
                run = _Run(found.info.run_id, dict(found.data.params), dict(found.data.tags), datasets, told_until)
                runs[run.tags.get(content.RUN, _PARENT)] = run
            token = page.token
            if not token:
                return runs

    def _begin(self, key: str, name: str, seconds_since_epoch: float, tags: dict[str, str]) -> _Run:
        """Continue the run `key`, or create it."""
        if self._runs is None:
            raise RefusedError(f'run "{key}" was not started')
        if (run := self._runs.get(key)) is not None:
            self._log_tags(run, tags)
            self._client.update_run(run.run_id, status="RUNNING")
            run.told_until_milliseconds = 0
            return run
        tags = {**tags, "mlflow.user": _user(), "mlflow.source.name": "showhow", "mlflow.source.type": "LOCAL"}
        created = self._client.create_run(self._experiment_id, int(seconds_since_epoch * 1000), tags, name)
        run = self._runs[key] = _Run(created.info.run_id, tags=tags)
        return run

    def _log_metrics(self, run: _Run, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), content.METRICS_PER_BATCH):
            batch = metrics[start : start + content.METRICS_PER_BATCH]
            self._client.log_batch(run.run_id, metrics=batch, synchronous=True)

    def _log_params(self, run: _Run, params: dict[str, str]) -> None:
        """Add the params that are new; MLflow forbids changing one, so a different value is warned of and left."""
        different = [key for key, value in params.items() if run.params.get(key, value) != value]
        different = [key for key in different if not key.startswith("system.")]  # another machine: see system.json
        if different:
            log.warning("tracking: MLflow keeps the first value of a param, so these are not updated: %s", different)
        for batch in content.in_batches({key: value for key, value in params.items() if key not in run.params}):
            entities = [Param(key, value) for key, value in batch.items()]
            self._client.log_batch(run.run_id, params=entities, synchronous=True)
            run.params.update(batch)

    def _log_tags(self, run: _Run, tags: Mapping[str, str | None]) -> None:
        """Set the tags that differ; None removes one."""
        changed = {key: value for key, value in tags.items() if value is not None and run.tags.get(key) != value}
        if changed:
            entities = [RunTag(key, value) for key, value in changed.items()]
            self._client.log_batch(run.run_id, tags=entities, synchronous=True)
            run.tags.update(changed)
        for key in [key for key, value in tags.items() if value is None and key in run.tags]:
            self._client.delete_tag(run.run_id, key)
            del run.tags[key]

    def _log_datasets(self, run: _Run, manifests: dict[str, dict[str, Json]]) -> None:
        inputs = []
        for role, manifest in manifests.items():
            told = content.dataset_fields(role, manifest)
            key = (told["name"], told["digest"])
            if key not in run.datasets:
                run.datasets.add(key)
                dataset = Dataset(*key, source_type="local", source=told["source"], profile=told["profile"])
                inputs.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", role)]))
        if inputs:
            self._client.log_inputs(run.run_id, inputs)

    def _log_table(self, run: _Run, path: str, rows: list[dict[str, Json]]) -> None:
        """Write the table whole: MLflow's own `log_table` appends, so that sending twice would double the rows."""
        self._client.log_text(run.run_id, redact(content.table_json(rows)), path)
        tables = json.loads(run.tags.get("mlflow.loggedArtifacts", "[]"))
        if (table := {"path": path, "type": "table"}) not in tables:
            self._log_tags(run, {"mlflow.loggedArtifacts": json.dumps([*tables, table])})

    def _terminate(self, run: _Run, status: str, seconds_since_epoch: float) -> None:
        self._client.set_terminated(run.run_id, status, int(seconds_since_epoch * 1000))


def _metrics(event: Reported | StudyEnded, step: int) -> list[Metric]:
    milliseconds = int(event.seconds_since_epoch * 1000)
    return [Metric(name, value, milliseconds, step) for name, value in event.metrics.items()]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user {os.getuid()}"
