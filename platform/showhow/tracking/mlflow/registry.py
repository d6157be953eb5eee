"""Registers an exported model in the MLflow model registry, under the MLflow run that trained it. It imports mlflow.

The exported folder is registered unchanged, with MLflow's description of it: the flavour `transformers` (for a model
with an encoder load the components: transformers 5 has no pipeline for it), and the flavour `python_function`, by which
a file of ours, registered with the model, writes its replies. Nothing is pickled.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow.transformers
from huggingface_hub import ModelCard
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.types import ColSpec, Schema
from sqlalchemy.exc import SQLAlchemyError

from showhow.errors import UserError
from showhow.fingerprint import Json, file_sha256, fingerprint
from showhow.tracking.address import redact
from showhow.tracking.mlflow import content
from showhow.tracking.mlflow.tracker import CLIENT_SETTINGS, EXPERIMENT, environment, quieten, study_identity

_CONTENT = "showhow.content"
_NEEDS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors")
_SETTINGS = CLIENT_SETTINGS | {  # as the tracker's, but a model is not sent again later, and a large one takes long
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "300",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow's task of text models in transformers; for models with an encoder the pipeline would cut off the replies.
_TASK = "text-generation"


@dataclass(frozen=True)
class ModelToRegister:
    """An exported folder and its description. name: of the registered model; run: key of the run that trained it;
    tags: shown in the registry; questions: example inputs; asked_by: the Python file that writes its replies (see
    exports/served_replies.py)."""

    folder: Path
    name: str
    run: str
    description: str
    tags: Mapping[str, str]
    questions: Sequence[str]
    asked_by: Path


@dataclass(frozen=True)
class Registered:
    """A version in the registry. is_new: False where the same content was already registered."""

    name: str
    version: str
    is_new: bool

    @property
    def address(self) -> str:
        """The address by which MLflow loads it."""
        return f"models:/{self.name}/{self.version}"


def register(uri: str, study_dir: Path, model: ModelToRegister, experiment: str = EXPERIMENT) -> Registered:
    """Register a model in the store at `uri` and return its version: a new one, unless the same bytes are registered.

    Raises UserError when the store has no such run of the study in `study_dir`, or does not accept the model."""
    quieten()
    settings = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
    # The registry of a database looks a model up in MLflow's global store, whatever the client's store is.
    with environment({**settings, "MLFLOW_TRACKING_URI": uri}), _use_tracking_uri(uri):
        try:
            return _Registry(uri, study_identity(study_dir), model).register(experiment)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = (redact(str(error)) or type(error).__name__).splitlines()[0]
            raise UserError(
                f'the model registry at {redact(uri)} did not accept "{model.name}": {reason}. The exported folder is '
                "complete; export again to retry, or with --no-register to leave the registry out"
            ) from error


class _Registry:
    """Registers one model."""

    def __init__(self, uri: str, study_id: str, model: ModelToRegister) -> None:
        self._client, self._uri = MlflowClient(uri, uri), uri
        self._study_id, self._model = study_id, model

    def register(self, experiment: str) -> Registered:
        model, client = self._model, self._client
        run = self._run(experiment)
        digest = _digest(model.folder)
        self._make_name()
        known = self._known(digest)
        if known is not None:
            return Registered(model.name, known, is_new=False)
        tags = {**model.tags, content.STUDY_ID: self._study_id, content.RUN: model.run, _CONTENT: digest}
        logged = client.create_logged_model(run.info.experiment_id, model.name, run.info.run_id, tags)
        try:
            self._upload(logged)
        except BaseException:
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        version = client.create_model_version(
            model.name, f"models:/{logged.model_id}", run.info.run_id, tags, None, model.description,
            model_id=logged.model_id,
        )  # fmt: skip
        return Registered(model.name, str(version.version), is_new=True)

    def _run(self, experiment: str) -> Run:
        found = self._client.get_experiment_by_name(experiment)
        wanted = f"tags.`{content.STUDY_ID}` = '{self._study_id}' AND tags.`{content.RUN}` = '{self._model.run}'"
        runs = self._client.search_runs([found.experiment_id], wanted, max_results=1) if found else []
        if not runs:
            raise UserError(
                f"{redact(self._uri)} contains no run {self._model.run} of this study. Allowed: the tracking address "
                "that the study was run with. Do: set MLFLOW_TRACKING_URI to it, or export with --no-register"
            )
        return runs[0]

    def _make_name(self) -> None:
        try:
            self._client.create_registered_model(self._model.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _known(self, digest: str) -> str | None:
        """Return the version that has the same content, or None."""
        page = self._client.search_model_versions(f"name = '{self._model.name}'")
        return next((str(version.version) for version in page if version.tags.get(_CONTENT) == digest), None)

    def _upload(self, logged: LoggedModel) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self._describe(logged, folder)
            self._client.log_model_artifacts(logged.model_id, str(folder))

    def _describe(self, logged: LoggedModel, folder: Path) -> None:
        """Write the model in MLflow's format: a copy of the exported folder, and MLflow's description of it."""
        model = self._model
        described = Model(
            artifact_path=logged.artifact_location,
            run_id=logged.source_run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        text = Schema([ColSpec("string")])
        mlflow.transformers.save_model(
            str(model.folder),
            str(folder),
            task=_TASK,
            model_card=ModelCard((model.folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True),
            code_paths=[str(model.asked_by)],
            mlflow_model=described,
            signature=ModelSignature(inputs=text, outputs=text),
            input_example=list(model.questions),
            pip_requirements=[f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _NEEDS],
        )
        described.flavors["python_function"]["loader_module"] = model.asked_by.stem
        described.flavors["transformers"]["source_model_name"] = model.name  # not the folder's path on this machine
        described.save(str(folder / "MLmodel"))
        (folder / "LICENSE.txt").unlink(missing_ok=True)  # MLflow's guess, which takes that path for a hub name


def _digest(folder: Path) -> str:
    """Return the fingerprint of all files of a folder."""
    files: dict[str, Json] = {
        str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return fingerprint(files)
