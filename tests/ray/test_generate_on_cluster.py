"""Datasets made by Ray Data are byte for byte those made in one process, however many workers made them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.data import DataContext, ExecutionResources

import ray
from showhow.datasets import derived
from showhow.datasets.dataset import Dataset
from showhow.datasets.generate import Block, generate, run_blocks
from showhow.methods.row import Row
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def at_most_cpus() -> Iterator[ExecutionResources]:
    options = DataContext.get_current().execution_options
    before = options.resource_limits
    yield options
    options.resource_limits = before


def spec(examples: int, level: Level = Level.SHUFFLED) -> DatasetSpec:
    # A modulus so large that most answers are in one shard only; so few questions that a second round is needed.
    task = task_named("modular_sum", {"terms": 3, "below": 35, "modulus": 97})
    return DatasetSpec(task=task, level=level, split=TRAIN, examples=examples, seed=1, control_length=Level.LONG)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = contents(generate(spec(20_000), tmp_path_factory.mktemp("alone"), on_cluster=False))
    assert len(files) > 4  # several shards and a manifest
    return files


@pytest.mark.parametrize("cpus", [1, 2])
def test_the_bytes_do_not_depend_on_how_many_workers_made_them(
    tmp_path: Path, alone: dict[str, bytes], at_most_cpus: ExecutionResources, cpus: int
) -> None:
    at_most_cpus.resource_limits = ExecutionResources(cpu=cpus)
    folder = generate(spec(20_000), tmp_path, on_cluster=True)
    assert contents(folder) == alone
    assert list(tmp_path.iterdir()) == [folder]


def test_results_stand_in_the_order_of_their_blocks_whichever_is_done_first() -> None:
    def first_is_last(block: Block) -> Block:
        time.sleep(0.0 if block["block"] else 1.0)
        return block

    blocks = [{"block": index} for index in range(4)]
    assert run_blocks(first_is_last, blocks, on_cluster=True) == blocks


def test_what_a_method_maps_on_a_cluster_is_byte_for_byte_what_one_process_maps(tmp_path: Path) -> None:
    def twice(row: Row) -> list[Row]:
        return [row, row.with_(prompt="again " + row.prompt, weight=0.5, length=len(row.target))]

    data = Dataset.open(generate(spec(20_000), tmp_path / "problems", on_cluster=False))
    here, there = (
        derived.mapped(data, tmp_path / str(on_cluster), twice, 1, on_cluster) for on_cluster in (False, True)
    )
    assert here.address == there.address
    assert len(here) == 2 * len(data)
    assert contents(here.folder) == contents(there.folder)
