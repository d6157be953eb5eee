"""What `showhow export` registers in MLflow loads back and answers, once for each content, under the run it is of."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from studied import LLAMA, SMALL, T5, studied

from showhow.cli.main import DONE, USER_ERROR, main
from showhow.home.folder import StudyFolder
from showhow.tracking.address import tracking_uri
from showhow.tracking.jsonl import read_events
from showhow.tracking.mlflow.server import serve_ui
from showhow.tracking.tracker import RepliesSampled

RUN = "trial-000/seed-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Two studies that were run with MLflow beside them: `small`, and `other`, a T5, in the same store."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it itself where a test before named a store
        uri = tracking_uri(home)
    studied(home, SMALL.replace('"small"', '"other"') + T5, uri=uri)
    return studied(home, SMALL + LLAMA, uri=uri)


@pytest.fixture
def store(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHOWHOW_HOME", str(folder.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = tracking_uri(folder.home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # for what the tests load by MLflow
    return uri


def replies(folder: StudyFolder, name: str) -> tuple[list[str], list[str]]:
    events = [event for event in read_events(folder.home / name / "journal.jsonl") if isinstance(event, RepliesSampled)]
    rows = next(event.rows for event in events if event.run == RUN and event.split == "test")
    return [str(row["question"]) for row in rows], [str(row["reply"]) for row in rows]


@pytest.mark.parametrize("name", ["small", "other"])
def test_a_registered_model_loads_back_and_answers(
    folder: StudyFolder, store: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", name, "--run", RUN]) == DONE
    assert f"MLflow: models:/{name}/1\n" in capsys.readouterr().out
    questions, written = replies(folder, name)
    assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict(questions) == written
    parts = mlflow.transformers.load_model(f"models:/{name}/1", return_type="components")
    tokens = parts["tokenizer"](questions[0], return_tensors="pt")
    skipped = 0 if name == "other" else tokens["input_ids"].shape[1]
    reply = parts["model"].generate(**tokens)[0, skipped:]
    assert parts["tokenizer"].decode(reply, skip_special_tokens=True) == written[0]
    if name == "small":
        (told,) = mlflow.transformers.load_model(f"models:/{name}/1")(questions[0], return_full_text=False)
        assert told["generated_text"] == written[0]


def test_a_version_says_what_it_is_and_belongs_to_its_run(folder: StudyFolder, store: str) -> None:
    assert main(["export", "small", "--run", RUN]) == DONE
    client = MlflowClient(store, store)
    version = client.get_model_version("small", "1")
    run = client.get_run(version.run_id)
    assert run.data.tags["showhow.run"] == version.tags["showhow.run"] == RUN
    assert (version.tags["showhow.arm"], version.tags["showhow.level"]) == ("long", "long")
    assert 0 <= float(version.tags["showhow.test_accuracy"]) <= 1
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [version.source]
    assert mlflow.models.get_model_info("models:/small/1").signature is not None


def test_the_same_content_is_registered_once_and_another_run_is_another_version(
    folder: StudyFolder, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "small", "--run", RUN]) == DONE
    assert main(["export", "small", "--run", RUN, "--to", str(tmp_path / "again")]) == DONE
    assert capsys.readouterr().out.count("models:/small/1") == 2
    assert main(["export", "small", "--run", "trial-000/seed-0"]) == DONE
    assert "MLflow: models:/small/2\n" in capsys.readouterr().out
    assert main(["export", "small", "--run", "trial-000/seed-0", "--to", str(tmp_path / "b"), "--no-register"]) == DONE
    assert "MLflow" not in capsys.readouterr().out
    assert len(MlflowClient(store, store).search_model_versions("name = 'small'")) == 2


def test_nothing_that_is_registered_is_pickled_or_names_the_exporting_machine(folder: StudyFolder, store: str) -> None:
    assert main(["export", "small", "--run", RUN]) == DONE
    local = Path(mlflow.artifacts.download_artifacts("models:/small/1"))
    names = [path.name for path in local.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin", ".pickle"))]
    assert (local / "model" / "model.safetensors").exists()
    texts = [path.read_bytes() for path in local.rglob("*") if path.is_file()]
    assert not [text for text in texts if str(folder.path / "exported").encode() in text]


def test_a_server_takes_a_model_too(folder: StudyFolder, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve_ui(store)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        assert main(["export", "other", "--run", "trial-000/seed-0"]) == DONE
        versions = MlflowClient(server.address).search_model_versions("name = 'other'")
        latest = max(int(version.version) for version in versions)
        (reply,) = mlflow.pyfunc.load_model(f"models:/other/{latest}").predict(["1+2+3="])
        assert isinstance(reply, str)
    finally:
        server.stop()


def test_a_store_without_the_run_is_a_users_error_and_the_export_stays(
    folder: StudyFolder,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(folder.home / "mlflow.db", tmp_path / "mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], "tags.`showhow.study` = 'small'"):
            client.delete_run(run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert main(["export", "small", "--run", RUN, "--to", str(tmp_path / "out")]) == USER_ERROR
    assert f"contains no run {RUN} of this study" in capsys.readouterr().err
    assert (tmp_path / "out" / "showhow.json").exists()
