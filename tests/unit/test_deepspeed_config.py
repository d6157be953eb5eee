"""What DeepSpeed is told follows from the recipe and the layout, and what a person adds must not contradict them."""

import re
from typing import Any

import pytest

from showhow.machines.deepspeed_config import deepspeed_config, deepspeed_faults, least_zero_stage
from showhow.machines.layout import Layout
from showhow.sections.recipe import Recipe


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"batch_size": 32, "max_examples": 320, "learning_rate": 1e-3} | changes)


def layout(**changes: Any) -> Layout:
    return Layout.model_validate({"devices": 4, "micro_batch_size": 2} | changes)


def faults(settings: dict[str, Any], of: Recipe | None = None, **changes: Any) -> dict[str, str]:
    return dict(deepspeed_faults(of or recipe(), layout(deepspeed=settings, **changes)))


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("micro", [1, 2, 8])
def test_the_batch_of_all_devices_and_passes_is_the_recipes(devices: int, micro: int) -> None:
    told = deepspeed_config(recipe(), layout(devices=devices, micro_batch_size=micro), "float32", 1000)
    assert told["train_micro_batch_size_per_gpu"] * told["gradient_accumulation_steps"] * devices == 32
    assert told["gradient_clipping"] == 1.0


def test_weights_stay_in_float32_but_for_float16_which_needs_a_copy_of_them() -> None:
    float32, bfloat16, float16 = (
        deepspeed_config(recipe(), layout(), precision, 1000) for precision in ("float32", "bfloat16", "float16")
    )
    assert not {"bf16", "fp16", "torch_autocast"} & set(float32)
    assert bfloat16["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert "bf16" not in bfloat16
    assert float16["fp16"]["enabled"]
    assert [told["zero_optimization"]["stage"] for told in (float32, bfloat16, float16)] == [0, 0, 1]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_buckets_are_as_large_as_the_model_at_most_and_even(stage: int) -> None:
    for parameters, bucket in ((1001, 1002), (10**10, 50_000_000), (0, 2)):
        zero = deepspeed_config(recipe(), layout(zero_stage=stage), "float32", parameters)["zero_optimization"]
        assert {zero["reduce_bucket_size"], zero["allgather_bucket_size"]} == {bucket}
        assert zero["stage"] == stage


def test_what_waits_elsewhere_is_told_where() -> None:
    waiting = layout(zero_stage=3, offload_optimizer="nvme", offload_parameters="cpu", nvme_path="/fast")
    zero = deepspeed_config(recipe(), waiting, "float32", 1000)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "nvme", "nvme_path": "/fast"}
    assert zero["offload_param"] == {"device": "cpu"}
    assert not deepspeed_faults(recipe(), waiting)


def test_a_persons_settings_stand_above_ours_and_beside_them() -> None:
    own = {"zero_optimization": {"overlap_comm": False, "offload_optimizer": {"pin_memory": False}}, "dump_state": True}
    told = deepspeed_config(recipe(), layout(zero_stage=2, offload_optimizer="cpu", deepspeed=own), "float32", 1000)
    assert told["zero_optimization"]["overlap_comm"] is False
    assert told["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert told["dump_state"]
    assert not faults(own, zero_stage=2, offload_optimizer="cpu")


def test_settings_as_transformers_users_write_them_say_nothing_else_than_the_study() -> None:
    own = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto", "loss_scale": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": [0.9, 0.999], "weight_decay": 0.0}},
        "scheduler": {"type": "auto"},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "contiguous_gradients": True},
    }
    assert faults(own, zero_stage=2) == {}
    without = deepspeed_config(recipe(), layout(zero_stage=2), "bfloat16", 1000)
    without["zero_optimization"]["contiguous_gradients"] = True
    assert deepspeed_config(recipe(), layout(zero_stage=2, deepspeed=own), "bfloat16", 1000) == without


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train_batch_size": 64}, "got 64, but recipe.batch_size = 32; leave it out"),
        ({"train_micro_batch_size_per_gpu": 8}, "got 8, but recipe.batch_size = 32 on 4 devices, at most 2 at a time"),
        ({"gradient_accumulation_steps": 2}, "got 2, but recipe.batch_size = 32 on 4 devices"),
        ({"gradient_clipping": 0.5}, "got 0.5, but recipe.gradient_clip = 1;"),
        ({"fp16": {"enabled": True}}, 'got true, but recipe.precision = "bfloat16"'),
        ({"bf16": {"enabled": False}}, 'got false, but recipe.precision = "bfloat16"'),
        ({"optimizer": {"type": "Lamb"}}, 'got "Lamb", but the optimizer is AdamW'),
        ({"optimizer": {"params": {"lr": 1.0}}}, "got 1.0, but recipe.learning_rate = 0.001"),
        ({"scheduler": {"type": "WarmupLR"}}, "cannot be set here (recipe.schedule and warmup_examples)"),
        ({"zero_optimization": {"stage": 3}}, "got 3, but sharding.zero_stage is 1"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            'got "cpu", but sharding.offload_optimizer = "none"',
        ),
        ({"zero_optimization": True}, "got true, must be a section"),
        ({"activation_checkpointing": {"profile": True}}, "(sharding.recompute_activations)"),
        ({"tensor_parallel": {"autotp_size": 2}}, "(only the batch is divided over devices)"),
        ({"zero_optimisation": {"stage": 1}}, 'no setting zero_optimisation. Did you mean "zero_optimization"?'),
    ],
)
def test_what_contradicts_the_study_is_named_with_what_the_study_says(settings: dict[str, Any], said: str) -> None:
    ((key, message),) = faults(settings, recipe(precision="bfloat16"), zero_stage=1).items()
    assert key.startswith("sharding.deepspeed.")
    assert said in message


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"devices": 5}, "recipe.batch_size", "got 32, which cannot be divided evenly over 5 devices"),
        ({"offload_parameters": "cpu", "zero_stage": 2}, "sharding.zero_stage", "got 2, but .* needs 3"),
        ({"offload_optimizer": "cpu"}, "sharding.zero_stage", "got 0, but .* needs 1"),
        ({"offload_optimizer": "nvme", "zero_stage": 3}, "sharding.nvme_path", "is missing"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(changes: dict[str, Any], key: str, said: str) -> None:
    ((found, message),) = deepspeed_faults(recipe(), layout(**changes))
    assert found == key
    assert re.search(said, message)


def test_the_least_stage_is_the_first_that_can_offload_so() -> None:
    assert [least_zero_stage(*pair) for pair in (("none", "none"), ("cpu", "none"), ("nvme", "none"))] == [0, 1, 3]
    assert least_zero_stage("none", "cpu") == 3
