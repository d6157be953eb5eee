"""Writes a study's events into MLflow runs. It imports mlflow (1.5 s), so `tracker.py` imports it late.

Every write is idempotent: runs are searched by their tags before any is created, params are compared first, metric
points have the event's time (the server drops a point it has), files and tables are written completely. It uses
MlflowClient, and the artifact store below it, which takes no request per file: no active run, no global tracking
address.
"""

import getpass
import json
import logging
import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri
from sqlalchemy.exc import SQLAlchemyError

from showhow.fingerprint import Json, fingerprint
from showhow.tracking.address import artifact_location, creating, redact
from showhow.tracking.delivery import RefusedError, UnreachableError
from showhow.tracking.mlflow import content
from showhow.tracking.mlflow.news import News, Run, end_of, metrics_of
from showhow.tracking.mlflow.views import load_views
from showhow.tracking.runs import OfRun, StudyRecord
from showhow.tracking.tracker import Event, Reported, RunStarted, StageEnded, StudyEnded, StudyStarted

log = logging.getLogger("showhow")

_PARENT = ""  # the key of the study's own run among its runs
_TEMPORARY = (401, 403, 408, 409, 429)  # an expired token, a busy server: sent again, like every 5xx


class StudyRuns:
    """The MLflow runs of one study: a parent, and one child per run key.

    `study_id` distinguishes this execution of a study from others of the same name; None derives it from the
    definition, so that the same study continues the same runs.
    """

    def __init__(self, uri: str, experiment: str, study_id: str | None) -> None:
        self._uri, self._experiment, self._study_id = uri, experiment, study_id
        self._connected: MlflowClient | None = None
        self._experiment_id = ""
        self._study: StudyStarted | None = None
        self._runs: dict[str, Run] | None = None
        self._record = StudyRecord()  # of all events sent, for files that are written complete
        self._reported: dict[tuple[str, int], float] = {}  # when a run first reported, by key and examples

    def write(self, events: list[Event]) -> None:
        """Write a parcel (see content.pack). Raises UnreachableError or RefusedError (see delivery.py)."""
        try:
            self._write(events)
        except MlflowException as error:
            self._runs = None  # what arrived is unknown: read it again before the next write
            status = error.get_http_status_code()
            is_temporary = status >= 500 or status in _TEMPORARY or error.error_code == "RESOURCE_ALREADY_EXISTS"
            raise (UnreachableError if is_temporary else RefusedError)(redact(str(error))) from error
        except (OSError, SQLAlchemyError) as error:  # a connection cut, a disk full
            self._runs = None
            raise UnreachableError(redact(str(error))) from error

    def _write(self, events: list[Event]) -> None:
        first = events[0]
        for event in events:  # first of all, and again when the parcel is sent again, which changes nothing
            self._record.hear(event)
        if isinstance(first, StudyStarted):
            self._start_study(first)
        elif isinstance(first, StudyEnded):
            self._end_study(first)
        else:
            news = News()
            run = self._start_run(first, news) if isinstance(first, RunStarted) else self._run(first.run)
            for event in events:
                is_new = not self._is_repeated(event)
                if is_new and isinstance(event, OfRun) and not run.knows(event):
                    news.add(run, event)
            if any(isinstance(event, StageEnded) and not run.knows(event) for event in events):
                news.add_stages(run, self._record.runs[first.run].stages)
            self._send(run, news)

    def _is_repeated(self, event: Event) -> bool:
        """Return whether a new attempt repeats a report of an earlier one, which MLflow would show as two points."""
        if not isinstance(event, Reported):
            return False
        first = self._reported.setdefault((event.run, event.examples), event.seconds_since_epoch)
        return event.seconds_since_epoch != first

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
        news = News()
        run = self._begin(_PARENT, event.study, event.seconds_since_epoch, content.study_tags(event, study_id), news)
        news.params = content.flatten({"study": event.definition, "system": event.facts})
        for name, value in (("study.json", event.definition), ("system.json", event.facts)):
            news.files[name] = json.dumps(value, indent=2, ensure_ascii=False)
        self._send(run, news)
        self._set_views(study_id)

    def _start_run(self, event: RunStarted, news: News) -> Run:
        parent = self._run(_PARENT)
        known = self._runs.get(event.run) if self._runs else None
        if known and known.knows(event) and event.attempt <= int(known.tags.get("showhow.attempt", "0")):
            return known
        tags = content.run_tags(event, self._started().study, parent.tags[content.STUDY_ID])
        tags["mlflow.parentRunId"] = parent.run_id
        run = self._begin(event.run, content.run_name(event), event.seconds_since_epoch, tags, news)
        news.add_settings(run, event)
        return run

    def _end_study(self, event: StudyEnded) -> None:
        run = self._run(_PARENT)
        for file in event.files:
            if Path(file).is_file():
                self._client.log_artifact(run.run_id, file)
            else:
                log.warning("tracking: %s is not there, so it is not shown in MLflow", file)
        news = News(metrics=metrics_of(event, 0), end=end_of(event))
        news.tags |= content.study_end_tags(event, self._started().question)
        self._send(run, news)

    @property
    def _client(self) -> MlflowClient:
        if self._connected is None:
            with creating(self._uri):
                self._connected = MlflowClient(self._uri)
        return self._connected

    def _started(self) -> StudyStarted:
        if self._study is None:
            raise RefusedError("it came before the study's start")
        return self._study

    def _run(self, key: str) -> Run:
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

    def _find_runs(self, study_id: str) -> dict[str, Run]:
        """Return the study's runs by key. Should a key have two runs, the oldest is returned."""
        runs: dict[str, Run] = {}
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
                complete_until = found.info.end_time or 0
                params, tags = dict(found.data.params), dict(found.data.tags)
                run = Run(found.info.run_id, found.info.artifact_uri, params, tags, datasets, complete_until)
                runs[run.tags.get(content.RUN, _PARENT)] = run
            token = page.token
            if not token:
                return runs

    def _begin(self, key: str, name: str, seconds_since_epoch: float, tags: dict[str, str], news: News) -> Run:
        """Continue the run `key` and add its tags to the news, or create it with them."""
        if self._runs is None:
            raise RefusedError(f'run "{key}" was not started')
        if (run := self._runs.get(key)) is not None:
            news.tags |= tags
            self._client.update_run(run.run_id, status="RUNNING")
            run.complete_until_milliseconds = 0
            return run
        tags = {**tags, "mlflow.user": _user(), "mlflow.source.name": "showhow", "mlflow.source.type": "LOCAL"}
        info = self._client.create_run(self._experiment_id, int(seconds_since_epoch * 1000), tags, name).info
        run = self._runs[key] = Run(info.run_id, info.artifact_uri, tags=tags)
        return run

    def _send(self, run: Run, news: News) -> None:
        """Write the news of a run, its end last: a run that has ended in MLflow is complete."""
        self._write_files(run, news.files)
        if news.datasets:
            self._client.log_inputs(run.run_id, news.datasets)
        tags = {key: value for key, value in news.tags.items() if value is not None and run.tags.get(key) != value}
        *before, params = list(content.in_batches(self._new_params(run, news.params))) or [{}]
        for batch in before:
            self._client.log_batch(run.run_id, params=[Param(*param) for param in batch.items()])
        self._client.log_batch(  # sends nothing where there is nothing
            run.run_id,
            metrics=news.metrics,
            params=[Param(*param) for param in params.items()],
            tags=[RunTag(*tag) for tag in tags.items()],
        )
        run.tags.update(tags)
        for key in [key for key, value in news.tags.items() if value is None and key in run.tags]:
            self._client.delete_tag(run.run_id, key)
            del run.tags[key]
        if news.end is not None:
            self._client.set_terminated(run.run_id, *news.end)

    def _new_params(self, run: Run, params: dict[str, str]) -> dict[str, str]:
        """Return the params that are new. MLflow forbids changing a param, so a different value is only logged."""
        different = [key for key, value in params.items() if run.params.get(key, value) != value]
        different = [key for key in different if not key.startswith("system.")]  # another machine: see system.json
        if different:
            log.warning("tracking: MLflow keeps the first value of a param, so these are not updated: %s", different)
        new = {key: value for key, value in params.items() if key not in run.params}
        run.params.update(new)
        return new

    def _write_files(self, run: Run, files: dict[str, str]) -> None:
        """Write a run's files completely. MlflowClient would read the run again to find where they are."""
        if not files:
            return
        uri = add_databricks_profile_info_to_artifact_uri(run.artifact_uri, self._uri)
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(redact(text), encoding="utf-8")
            get_artifact_repository(uri, tracking_uri=self._uri).log_artifacts(folder)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user {os.getuid()}"
