"""Shows a study's events in the MLflow UI, from a background thread; the journal (jsonl.py), not MLflow, is the truth.

Events that MLflow missed (a server that died) are added by recording the journal's events again, which changes nothing
that is already there.
"""

import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from showhow.errors import UserError
from showhow.tracking.address import check_address, redact, sqlite_file
from showhow.tracking.delivery import Delivery
from showhow.tracking.mlflow import content
from showhow.tracking.mlflow.views import load_views
from showhow.tracking.tracker import Event

if TYPE_CHECKING:
    from showhow.tracking.mlflow.runs import StudyRuns

log = logging.getLogger("showhow")

EXPERIMENT = "showhow"
_IDENTITY = "mlflow.json"
_GATHER_SECONDS = 5.0  # events are collected, as requests are costly; MLflow's page is refreshed every 30 s
_PROBE_SECONDS = 4
CLIENT_SETTINGS = {  # defaults for mlflow's client; settings of the environment are not changed
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery tries again itself; MLflow's default blocks for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # text for people is printed by the command line only
}


class MlflowTracker:
    """Sends events to the MLflow store at `uri` (see `address.tracking_uri`).

    The runs belong to the study in `study_dir`: a file there, `mlflow.json`, stores their identity, so that resuming in
    that folder continues the same runs and a new folder starts new ones. Without a folder the study's definition is
    its identity. `record` never waits and never raises; mlflow is imported and reached in the background.
    """

    def __init__(self, uri: str, study_dir: Path | None = None, experiment: str = EXPERIMENT) -> None:
        self._uri, self._experiment = uri, experiment
        self._study_id = study_identity(study_dir) if study_dir else None
        self._runs: StudyRuns | None = None
        self._closed = False
        self._delivery: Delivery[Event] = Delivery(self._send, content.pack, _GATHER_SECONDS)

    def record(self, event: Event) -> None:
        """Take one event; returns at once."""
        self._delivery.put(event)

    def close(self, timeout_seconds: float = 60.0) -> None:
        """Return when all events have arrived, or none has for about `timeout_seconds`; missing ones are logged."""
        if self._closed:
            return
        self._closed = True
        if lost := self._delivery.close(timeout_seconds):
            log.warning(
                "%d events did not reach MLflow at %s. Nothing is lost: they are in the study's journal, and resuming "
                "the study sends them again.",
                lost,
                redact(self._uri),
            )

    def _send(self, events: list[Event]) -> None:
        if self._runs is None:
            for name, value in CLIENT_SETTINGS.items():
                os.environ.setdefault(name, value)
            from showhow.tracking.mlflow.runs import StudyRuns

            quieten()
            self._runs = StudyRuns(self._uri, self._experiment, self._study_id)
        self._runs.write(events)


def study_identity(study_dir: Path) -> str:
    """Return what identifies the study run in this folder, 16 hexadecimal digits; the first call writes `mlflow.json`.

    Raises UserError when that file cannot be read.
    """
    file = study_dir / _IDENTITY
    if not file.exists():
        study_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"study_id": uuid.uuid4().hex[:16]}) + "\n")
    try:
        return str(json.loads(file.read_text())["study_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{file} is not what ShowHow wrote. Allowed: {{"study_id": "..."}}. '
            "Do: delete it; the study then gets new runs in MLflow."
        ) from error


def check_reachable(uri: str) -> None:
    """Raise UserError, within about 6 s, for an address where no runs can be stored. Call it before a study starts.

    A server gets one request by MLflow's own client, with its tokens, passwords and certificates. For a database server
    only the driver and the connection are tried, since creating its tables takes seconds.
    """
    check_address(uri)
    if sqlite_file(uri) is not None or uri.startswith("databricks"):
        return
    with environment({**CLIENT_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_PROBE_SECONDS)}):
        from showhow.tracking.mlflow.probe import find_problem

        problem = find_problem(uri, _PROBE_SECONDS)
    if problem is not None:
        raise UserError(
            f"tracking server {redact(uri)}: {problem}. Allowed: an MLflow server or a database that answers within "
            f"{_PROBE_SECONDS} s and lets you in (MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD). Do: start it or correct MLFLOW_TRACKING_URI, or unset MLFLOW_TRACKING_URI "
            "to use the embedded store."
        )


def publish_views(uri: str, study_dir: Path, base: str, experiment: str = EXPERIMENT) -> dict[str, str]:
    """Write our views of the study into the store at `uri`; return their addresses by name ("arms", "study").

    `base` is the address of the UI, such as http://127.0.0.1:5000. Raises UserError when the store has no such study.
    """
    with environment(CLIENT_SETTINGS):
        from showhow.tracking.mlflow.runs import StudyRuns

        quieten()
        study_id = study_identity(study_dir)
        experiment_id = StudyRuns(uri, experiment, study_id).publish_views(study_id)
    if experiment_id is None:
        raise UserError(
            f"{redact(uri)} contains no runs of the study in {study_dir}. Allowed: a study that was run with this "
            "tracking address. Do: run it, or set MLFLOW_TRACKING_URI to the address it was run with."
        )
    return {view.name: view.address(base, experiment_id, study_id) for view in load_views()}


def quieten() -> None:
    """Silence MLflow's messages about itself (schema migrations); its warnings are still shown."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the context: MLflow reads its settings there."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
