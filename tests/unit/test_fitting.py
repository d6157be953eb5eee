"""Laws of layouts: the fewest devices and the lowest ZeRO stage that hold a trial; and what cannot be is told."""

from pathlib import Path

import pytest
from studies import changed, complaint, load

from showhow.errors import UserError
from showhow.machines.estimate import Memory, memory_of
from showhow.machines.fitting import (
    device_bytes,
    fits,
    fitting_layout_of,
    highest_stage,
    layout_faults,
    layout_of,
    memory_on_device,
)
from showhow.machines.layout import Layout, next_rung
from showhow.models.lengths import training_lengths
from showhow.models.sizes import sizes_of
from showhow.sections.recipe import PretrainedModel, Recipe
from showhow.sections.resources import Resources, Sharding
from showhow.sections.trial import Trial

GPU = "gpus_per_device = 1"
LARGE = (("hidden_size = 64", "hidden_size = 512"), ("layers = 2", "layers = 12"))


def resources(text: str, *changes: tuple[str, str]) -> str:
    return changed(("cpus_per_device = 1", text), *changes)


@pytest.fixture
def large(tmp_path: Path) -> Trial:
    return load(tmp_path, changed(*LARGE)).trials[0]


def on_gpus(device_gb: float | None) -> Resources:
    return Resources(devices_per_trial="auto", gpus_per_device=1.0, device_gb=device_gb)


def test_the_smaller_the_devices_the_more_are_taken_and_the_more_is_shared(tmp_path: Path) -> None:
    large = load(tmp_path, changed(("hidden_size = 64", "hidden_size = 1024"), ("layers = 2", "layers = 24"))).trials[0]
    most = memory(large).total / 1e9
    sizes = (1.01 * most, 0.99 * most, 0.8 * most, 0.7 * most)
    chosen = [layout_of(large, on_gpus(size), Sharding()) for size in sizes]
    assert [layout.devices for layout in chosen] == sorted(layout.devices for layout in chosen)
    assert chosen[0] == layout_of(large, on_gpus(None), Sharding()) == Layout(micro_batch_size=16)
    assert chosen[-1].devices > 1
    for layout, size in zip(chosen, sizes, strict=True):
        assert fits(large, layout, on_gpus(size))
        assert large.recipe.batch_size % layout.devices == 0


def test_a_layout_that_is_asked_for_is_given(large: Trial) -> None:
    asked = Resources(devices_per_trial=4, gpus_per_device=1.0, device_gb=1.0)
    layout = layout_of(large, asked, Sharding(zero_stage=2, recompute_activations=True))
    assert (layout.devices, layout.zero_stage, layout.micro_batch_size) == (4, 2, 4)
    assert layout.recompute_activations


@pytest.mark.parametrize(
    ("sharding", "stage"),
    [
        (Sharding(), 0),
        (Sharding(zero_stage=2), 0),  # one device has nobody to share with
        (Sharding(offload_optimizer="cpu"), 1),
        (Sharding(offload_optimizer="nvme", nvme_path="/fast"), 3),
        (Sharding(offload_parameters="cpu"), 3),
        (Sharding(zero_stage=2, offload_optimizer="cpu"), 2),
        (Sharding(zero_stage=2, deepspeed={}), 2),
    ],
)
def test_a_single_device_has_the_stage_that_offloading_needs(large: Trial, sharding: Sharding, stage: int) -> None:
    assert layout_of(large, Resources(), sharding).zero_stage == stage


def test_what_no_layout_holds_is_refused_with_what_would_do(large: Trial) -> None:
    with pytest.raises(UserError, match=r"needs \d.* GB on each device.*has 0\.7 GB; try"):
        fitting_layout_of(large, on_gpus(0.7), Sharding())


def memory(trial: Trial, on_gpu: bool = True, **layout: object) -> Memory:
    sizes = sizes_of(trial)
    assert sizes is not None
    laid = Layout.model_validate({"micro_batch_size": 16} | layout)
    return memory_of(trial, sizes, training_lengths(trial), laid, on_gpu)


def test_weights_gradients_and_moments_take_16_bytes_a_parameter_and_are_shared_as_zero_shares_them(
    large: Trial,
) -> None:
    sizes = sizes_of(large)
    assert sizes is not None
    count = sizes.parameters
    copies = 2 * count  # in bfloat16, as autocast casts them
    alone = memory(large)
    assert (alone.weights - copies, alone.gradients, alone.optimizer) == (4 * count, 4 * count, 8 * count)
    shared = [memory(large, devices=4, zero_stage=stage, micro_batch_size=4) for stage in range(4)]
    states = [(one.weights - copies) + one.gradients + one.optimizer for one in shared]
    assert states == pytest.approx([16 * count, 8 * count + 3 * count, 4 * count + 4 * count, 4 * count], rel=1e-6)
    assert shared[3].buckets > shared[1].buckets > 0


def test_what_is_offloaded_moves_from_the_gpu_to_the_machine(large: Trial) -> None:
    there, away = memory(large, zero_stage=1), memory(large, zero_stage=1, offload_optimizer="cpu")
    assert (there.host, away.optimizer) == (0, 0)
    assert away.host == there.optimizer
    on_disk = memory(large, zero_stage=3, offload_optimizer="nvme", nvme_path="/fast")
    assert (on_disk.host, on_disk.optimizer) == (0, 0)


def test_recomputing_and_smaller_micro_batches_keep_fewer_activations(large: Trial) -> None:
    kept = [memory(large, micro_batch_size=size).activations for size in (1, 4, 16)]
    assert kept == sorted(kept)
    assert memory(large, recompute_activations=True).activations < kept[-1] / 3


def test_cpus_share_the_machine_among_all_that_run_at_once() -> None:
    whole = device_bytes(Resources(max_concurrent=1))
    assert whole is not None
    assert device_bytes(Resources(max_concurrent=1, device_gb=3.0)) == 3_000_000_000
    assert device_bytes(Resources(gpus_per_device=1.0)) is None
    assert device_bytes(Resources(gpus_per_device=0.5, device_gb=80.0)) == 40_000_000_000
    assert (device_bytes(Resources()) or 0) <= whole


def test_the_plan_says_what_the_layout_holds(large: Trial) -> None:
    layout = layout_of(large, on_gpus(None), Sharding())
    assert memory_on_device(large, layout, on_gpus(None)) == memory(large)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("devices_per_trial = 3", "recipe.batch_size", "got 16, which cannot be divided evenly over 3 devices"),
        ("device_gb = 0.1", "resources.device_gb", "needs 0.5"),
        ("device_gb = 0", "resources.device_gb", "must be above 0"),
        ("device_tflops = -1", "resources.device_tflops", "must be above 0"),
        ('[sharding]\nzero_stage = 0\noffload_optimizer = "cpu"', "sharding.zero_stage", 'write 1 or "auto"'),
        (
            'devices_per_trial = 2\n[sharding]\nzero_stage = 2\noffload_parameters = "cpu"',
            "sharding.zero_stage",
            "needs 3",
        ),
        ('[sharding]\noffload_optimizer = "nvme"', "sharding.nvme_path", "is missing"),
        ('[sharding]\ndeepspeed = "none.json"', "sharding.deepspeed", "none.json: cannot be read (No such file"),
        ("[sharding]\ndeepspeed = { zero_optimisation = { stage = 1 } }", "sharding", "zero_optimisation"),
    ],
)
def test_a_layout_that_cannot_be_is_a_mistake_of_the_study(tmp_path: Path, text: str, key: str, said: str) -> None:
    answer = complaint(tmp_path, resources(text))
    assert answer.startswith("study.toml:")
    assert key in answer
    assert said in answer


def test_a_study_holds_what_the_file_of_deepspeed_settings_says(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text('{"steps_per_print": 7}')
    study = load(tmp_path, resources('[sharding]\ndeepspeed = "own.json"'))
    assert study.sharding.deepspeed == {"steps_per_print": 7}
    assert study.definition()["sharding"]["deepspeed"] == {"steps_per_print": 7}  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "own.json: is not valid JSON: Expecting property name"),
        (b"[1]", "own.json: must contain an object"),
        (b"\xff", "own.json: is not valid JSON: 'utf-8' codec"),
        (b'{"a": NaN}', "own.json: is not valid JSON: NaN is not a number"),
        (b"[" * 100_000, "own.json: is not valid JSON"),
    ],
)
def test_a_broken_file_of_deepspeed_settings_is_named_with_what_json_says(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "own.json").write_bytes(content)
    text = resources('[sharding]\ndeepspeed = "own.json"')
    answer = complaint(tmp_path, text)
    assert "sharding.deepspeed: " in answer
    assert said in answer


def in_few_bits(tmp_path: Path) -> Trial:
    scratch = 'kind = "scratch"\narchitecture = "llama"\nhidden_size = 64\nlayers = 2'
    trial = load(tmp_path, changed((scratch, 'kind = "pretrained"\nname = "some/model"'))).trials[0]
    assert isinstance(trial.model, PretrainedModel)
    return trial.model_copy(update={"model": trial.model.model_copy(update={"quantise": "4bit"})})


@pytest.mark.parametrize(
    ("sharding", "key", "do"),
    [
        (Sharding(zero_stage=3), "sharding.zero_stage", "write 2 or less"),
        (Sharding(offload_parameters="cpu"), "sharding.offload_parameters", 'write "none"'),
        (Sharding(offload_optimizer="nvme", nvme_path="/fast"), "sharding.offload_optimizer", 'write "cpu"'),
    ],
)
def test_weights_in_few_bits_are_neither_shared_out_nor_moved(
    tmp_path: Path, sharding: Sharding, key: str, do: str
) -> None:
    two = Resources(devices_per_trial=2, gpus_per_device=1.0)
    trial = in_few_bits(tmp_path)
    (fault,) = layout_faults(trial, two, sharding)
    assert fault.key == key
    assert "weights in 4 bits (model.quantise)" in fault.message
    assert fault.message.endswith(do)
    assert layout_faults(trial, two, Sharding(zero_stage=2, offload_optimizer="cpu")) == []
    assert layout_faults(trial, Resources(gpus_per_device=1.0), Sharding(zero_stage=3)) == []  # with nobody
    assert highest_stage(trial) == 2


def test_the_ladder_ends_at_the_highest_stage_that_a_model_allows() -> None:
    layout = Layout(devices=2, micro_batch_size=1, recompute_activations=True, zero_stage=2)
    recipe = Recipe(batch_size=2, max_examples=2, learning_rate=1e-3)
    assert next_rung(layout, recipe) == layout.model_copy(update={"zero_stage": 3})
    assert next_rung(layout, recipe, highest_stage=2) is None
