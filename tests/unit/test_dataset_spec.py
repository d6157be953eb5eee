"""Laws of a dataset's address: equal rows have equal fingerprints, and splits share no question."""

from typing import Any

import pytest

from showhow.metrics import TEST, VALIDATION
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level

BASE: dict[str, Any] = {
    "task": task_named("modular_sum", {}),
    "level": Level.SHORT,
    "split": TRAIN,
    "examples": 100,
    "seed": 0,
    "control_length": Level.LONG,
}


def spec(**changes: Any) -> DatasetSpec:
    return DatasetSpec(**{**BASE, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"task": task_named("modular_sum", {"terms": 9})},
        {"task": task_named("listops", {})},
        {"level": Level.LONG},
        {"split": TEST},
        {"examples": 101},
        {"seed": 1},
    ],
)
def test_other_rows_have_another_fingerprint(change: dict[str, Any]) -> None:
    assert spec(**change).fingerprint != spec().fingerprint == spec().fingerprint


@pytest.mark.parametrize("level", Level)
def test_the_length_of_controls_matters_to_controls_alone(level: Level) -> None:
    long, short = (spec(level=level, control_length=length).fingerprint for length in (Level.LONG, Level.SHORT))
    assert (long != short) == level.is_control


def test_a_preset_and_its_parameters_are_the_same_dataset() -> None:
    preset = task_named("listops-30", {})
    spelt = task_named("listops", preset.model_dump(exclude={"kind"}))
    assert spec(task=preset).fingerprint == spec(task=spelt).fingerprint


def test_the_fingerprint_survives_storage() -> None:
    again = DatasetSpec.model_validate_json(spec().model_dump_json(), strict=True)
    assert again == spec()
    assert again.fingerprint == spec().fingerprint


def test_train_validation_and_test_share_no_bucket_and_further_splits_are_tests() -> None:
    train, validation, test = (set(spec(split=split).buckets) for split in (TRAIN, VALIDATION, TEST))
    assert train | validation | test == set(range(100))
    assert len(train) + len(validation) + len(test) == 100
    assert set(spec(split="longer").buckets) == test
