"""Laws of the plan: it counts what the study will run, and its estimates follow from stated formulas."""

from pathlib import Path

import pytest
from studies import changed, load, store_llama

from showhow.models.lengths import mean_symbols, vocabulary_size
from showhow.seeds import rng_for
from showhow.study.plan import make_plan, planned_trials
from showhow.tasks import TASKS, task_named
from showhow.tasks.explain import Level, explain, symbols

LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"


def test_runs_are_trials_times_seeds_and_datasets_are_counted_once(tmp_path: Path) -> None:
    plan = make_plan(load(tmp_path), cpus=8)
    assert (plan.trials, plan.seeds, plan.runs) == (4, 2, 8)
    assert plan.datasets == 2 * 4  # two levels; train, validation, test, longer
    assert plan.dataset_rows == 2 * (2_000 + 3 * 100)
    assert plan.train_examples == 8 * 1_600
    assert [arm.arm for arm in plan.arms] == [Level.NONE, Level.LONG]
    assert sum(arm.trials for arm in plan.arms) == plan.trials


def test_a_search_that_chooses_as_it_goes_has_as_many_trials_as_samples_and_levels(tmp_path: Path) -> None:
    study = load(tmp_path, changed(("samples = 2", 'samples = 5\nalgorithm = "optuna"')))
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
    by_hand = sum(round(mean_symbols(trial.dataset("train")).tokens * 1_600) for trial in study.trials) * 2
    assert plan.train_tokens == by_hand
    assert plan.parameters is not None
    assert plan.flops == pytest.approx(6.0 * plan.parameters * by_hand)


def test_each_level_costs_at_least_as_much_as_the_one_before(tmp_path: Path) -> None:
    text = changed(('["none", "long"]', '["none", "short", "medium", "long"]'))
    lengths = [arm.target_symbols for arm in make_plan(load(tmp_path, text), 2).arms]
    assert lengths == sorted(lengths)


def test_controls_are_as_long_as_what_they_stand_in_for(tmp_path: Path) -> None:
    text = changed(('["none", "long"]', '["long", "shuffled", "filler"]'))
    lengths = [arm.target_symbols for arm in make_plan(load(tmp_path, text), 2).arms]
    assert lengths == pytest.approx([lengths[0]] * 3, rel=0.02)


@pytest.mark.parametrize("kind", TASKS)
def test_the_vocabulary_holds_every_symbol_that_problems_show(kind: str) -> None:
    task, rng = task_named(kind, {}), rng_for("test")
    problems = [task.draw(rng) for _ in range(50)]
    texts = [explain(problem, level, task.text_format) for problem in problems for level in Level if level.has_steps]
    seen = {symbol for text in texts for symbol in symbols(text)}
    assert len({symbol for symbol in seen if not symbol.isdecimal()}) < vocabulary_size(task)
    assert task.largest_number + 1 < vocabulary_size(task) < task.largest_number + 100


def pretrained(name: str, more: str = "") -> tuple[str, str]:
    scratch = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
    return scratch, f'kind = "pretrained"\nname = "{name}"\n{more}'


def test_a_model_that_is_not_on_this_disk_costs_nobody_knows_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = make_plan(load(tmp_path, changed(pretrained("somebody/something"))), 2)
    assert (plan.parameters, plan.flops, plan.memory_bytes_per_run, plan.hours) == (None, None, None, None)
    assert [model.layout.devices for model in plan.models] == [1]


def test_a_pretrained_model_is_measured_where_it_lies_also_in_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--somebody--something"
    for name, folder in ((str(tmp_path / "here"), tmp_path / "here"), ("somebody/something", cached / "snapshots/abc")):
        store_llama(folder)
        (cached / "refs").mkdir(parents=True, exist_ok=True)
        (cached / "refs" / "main").write_text("abc")
        plans.append(make_plan(load(tmp_path, changed(pretrained(name))), 2))
    assert plans[0].parameters == plans[1].parameters == 100 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 256)
    assert plans[0].memory_bytes_per_run == plans[1].memory_bytes_per_run != None  # noqa: E711
    assert "here" in plans[0].models[0].name


def test_models_of_different_sizes_have_a_row_each(tmp_path: Path) -> None:
    axis = "model.hidden_size = { grid = [64, 1024] }"
    plan = make_plan(load(tmp_path, changed(("hidden_size = 64\n", ""), (LR, f"{LR}\n{axis}"))), 2)
    small, large = plan.models
    assert small.trials + large.trials == plan.trials
    assert (small.parameters or 0) < (large.parameters or 0) == plan.parameters
    assert small.hours is not None
    assert large.hours is not None
    assert small.hours < large.hours


def test_hours_on_gpus_are_known_when_their_speed_is(tmp_path: Path) -> None:
    def hours(*resources: str) -> float | None:
        text = changed(("cpus_per_device = 1", "\n".join(("gpus_per_device = 1", *resources))))
        return make_plan(load(tmp_path, text), 8).hours

    assert hours() is None
    assert hours("device_tflops = 100") == pytest.approx(10 * (hours("device_tflops = 1000") or 0))


def test_larger_batches_and_models_need_more_memory(tmp_path: Path) -> None:
    def memory(*changes: tuple[str, str]) -> int:
        return make_plan(load(tmp_path, changed(*changes)), 2).memory_bytes_per_run or 0

    small = memory()
    assert 500e6 < small < memory(("batch_size = 16", "batch_size = 160")) < 5e9
    assert small < memory(("hidden_size = 64", "hidden_size = 1024"))
    accumulated = ("batch_size = 16", "batch_size = 160\nmicro_batch_size = 16")
    assert memory(accumulated) == small


def test_on_cpus_small_models_are_priced_by_their_passes_and_not_by_arithmetic_alone(tmp_path: Path) -> None:
    def hours(changes: str) -> float:
        found = make_plan(load(tmp_path, changed(("batch_size = 16", f"batch_size = 16\n{changes}"))), 1).hours
        return found or 0.0

    assert 2 < hours("micro_batch_size = 4") / hours("micro_batch_size = 16") < 4
