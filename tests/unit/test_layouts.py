"""Laws of the layouts of a sitting: what was decided at its beginning holds, no trial waits for what is not there."""

from pathlib import Path

import pytest
from studies import changed, load, store_llama

from showhow.machines.fitting import layout_of
from showhow.study.study import Study
from showhow.sweep.layouts import Layouts

SCRATCH = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
ON_THE_HUB = (SCRATCH, 'kind = "pretrained"\nname = "somebody/something"')
SMALL_GPUS = ("cpus_per_device = 1", 'devices_per_trial = "auto"\ngpus_per_device = 1\ndevice_gb = 3')
CHOSEN_AS_IT_GOES = ("samples = 2", 'samples = 2\nalgorithm = "optuna"')


def download(cache: Path) -> None:
    """Put somebody/something, 200 million parameters, into the hub's cache."""
    entry = cache / "models--somebody--something"
    store_llama(entry / "snapshots" / "abc", hidden=1024, layers=12)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("abc")


def on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str]) -> tuple[Study, Layouts, Path]:
    """A study of a model that is not on the disk, its layouts as decided then, and where the model will be."""
    cache = folder / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    study = load(folder, changed(ON_THE_HUB, SMALL_GPUS, *changes))
    return study, Layouts(study), cache


def test_a_model_downloaded_meanwhile_changes_no_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, layouts, cache = on_the_hub(tmp_path, monkeypatch)
    trial = study.trials[0]
    before = layouts.of(trial, room=8)
    download(cache)
    assert layout_of(trial, study.resources, study.sharding).devices > before.devices == 1
    assert layouts.of(trial, room=8) == before
    assert {layout.devices for layout in layouts.planned} == {1}


def test_a_trial_chosen_as_the_study_goes_takes_no_more_devices_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, layouts, cache = on_the_hub(tmp_path, monkeypatch, CHOSEN_AS_IT_GOES)
    trial = study.trial("trial-000", {"explanation": "none", "learning_rate": 5e-4})
    download(cache)
    wanted = layout_of(trial, study.resources, study.sharding)
    assert wanted.devices > 3
    assert layouts.of(trial, room=wanted.devices) == wanted
    assert [layouts.of(trial, room).devices for room in (1, 2, 3)] == [1, 2, 2]
