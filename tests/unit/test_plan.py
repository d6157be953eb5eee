"""Laws of the plan: it counts what the study will run, and its estimates follow from stated formulas."""

import json
from pathlib import Path

import pytest
from studies import changed, load

from showhow.seeds import rng_for
from showhow.study.plan import make_plan, mean_symbols, planned_trials, vocabulary_size
from showhow.tasks import TASKS, task_named
from showhow.tasks.explain import Level, explain, symbols

LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"


def test_runs_are_trials_times_seeds_and_datasets_are_counted_once(tmp_path: Path) -> None:
    plan = make_plan(load(tmp_path), cpus=8)
    assert (plan.trials, plan.seeds, plan.runs) == (4, 2, 8)
    assert plan.datasets == 2 * 4  # two levels; train, validation, test, longer
    assert plan.dataset_rows == 2 * (2_000 + 3 * 100)
    assert plan.train_examples == 8 * 1_600
    assert [level.level for level in plan.levels] == [Level.NONE, Level.LONG]
    assert sum(level.trials for level in plan.levels) == plan.trials


def test_a_search_that_chooses_as_it_goes_has_as_many_trials_as_samples_and_levels(tmp_path: Path) -> None:
    study = load(tmp_path, changed(("samples = 2", 'samples = 5\nmethod = "optuna"')))
    assert len(planned_trials(study)) == 10
    assert make_plan(study, 1).trials == 10


@pytest.mark.parametrize(
    ("cpus", "resources", "at_once"),
    [
        (1, "cpus_per_device = 1", 1),
        (4, "cpus_per_device = 2", 2),
        (4, "cpus_per_device = 1\nmax_concurrent = 3", 3),
        (64, "cpus_per_device = 1", 8),
        (4, "cpus_per_device = 5", 0),
    ],
)
def test_at_once_run_as_many_as_fit(tmp_path: Path, cpus: int, resources: str, at_once: int) -> None:
    assert make_plan(load(tmp_path, changed(("cpus_per_device = 1", resources))), cpus).at_once == at_once


def test_tokens_and_arithmetic_follow_from_lengths_and_parameters(tmp_path: Path) -> None:
    study = load(tmp_path)
    plan = make_plan(study, 2)
    by_hand = sum(round(sum(mean_symbols(trial.dataset("train"))) * 1_600) for trial in study.trials) * 2
    assert plan.train_tokens == by_hand
    assert plan.parameters is not None
    assert plan.flops == pytest.approx(6.0 * plan.parameters * by_hand)


def test_each_level_costs_at_least_as_much_as_the_one_before(tmp_path: Path) -> None:
    text = changed(('["none", "long"]', '["none", "short", "medium", "long"]'))
    lengths = [level.target_symbols for level in make_plan(load(tmp_path, text), 2).levels]
    assert lengths == sorted(lengths)


def test_controls_are_as_long_as_what_they_stand_in_for(tmp_path: Path) -> None:
    text = changed(('["none", "long"]', '["long", "shuffled", "filler"]'))
    lengths = [level.target_symbols for level in make_plan(load(tmp_path, text), 2).levels]
    assert lengths == pytest.approx([lengths[0]] * 3, rel=0.02)


@pytest.mark.parametrize("kind", TASKS)
def test_the_vocabulary_holds_every_symbol_that_problems_show(kind: str) -> None:
    task, rng = task_named(kind, {}), rng_for("test")
    problems = [task.draw(rng) for _ in range(50)]
    texts = [explain(problem, level, task.text_format) for problem in problems for level in Level if level.has_steps]
    seen = {symbol for text in texts for symbol in symbols(text)}
    assert len({symbol for symbol in seen if not symbol.isdecimal()}) < vocabulary_size(task)
    assert task.largest_number + 1 < vocabulary_size(task) < task.largest_number + 100


def test_a_pretrained_model_is_measured_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    scratch = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
    text = changed((scratch, f'kind = "pretrained"\nname = "{folder}"'))
    plan = make_plan(load(tmp_path, text), 2)
    assert (plan.parameters, plan.flops, plan.memory_bytes_per_run) == (None, None, None)
    folder.mkdir()
    header = json.dumps({"__metadata__": {}, "a": {"shape": [3, 5]}, "b": {"shape": []}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert make_plan(load(tmp_path, text), 2).parameters == 16


def test_larger_batches_and_models_need_more_memory(tmp_path: Path) -> None:
    def memory(*changes: tuple[str, str]) -> int:
        return make_plan(load(tmp_path, changed(*changes)), 2).memory_bytes_per_run or 0

    small = memory()
    assert 500e6 < small < memory(("batch_size = 16", "batch_size = 160")) < 5e9
    assert small < memory(("hidden_size = 64", "hidden_size = 1024"))
    accumulated = ("batch_size = 16", "batch_size = 160\nmicro_batch_size = 16")
    assert memory(accumulated) == small
