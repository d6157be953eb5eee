"""However a model is laid over processes, it learns the same: the law of DeepSpeed beside plain torch. Processes are
real, and are started once for all tests."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from data_parallel import LLAMA, SHARE_ALL, STEPS, T5, Case, Result, plain, pretrained, process, seen
from safetensors.torch import load_file, save_file

from showhow.datasets.tokenizer import symbol_tokenizer
from showhow.errors import UserError
from showhow.sections.adapter import Lora
from showhow.tasks.base import Task

MODELS = {"llama": LLAMA, "t5": T5}
STAGES = (0, 1, 2, 3)
LORA = Lora(kind="lora", rank=4)

each = pytest.mark.parametrize(("name", "stage"), [(name, stage) for name in MODELS for stage in STAGES])
each_stage = pytest.mark.parametrize("stage", STAGES)


def together(folder: Path) -> dict[str, Case]:
    cases = {}
    for stage in STAGES:
        layout = {"devices": 2, "zero_stage": stage}
        small = layout | {"micro_batch_size": 2}
        for name, model in MODELS.items():
            cases[f"{name}-{stage}"] = Case(model, layout, is_evaluated=True)
            cases[f"{name}-{stage}-parts"] = Case(model, small)
            if stage in (1, 3):
                cases[f"{name}-{stage}-again"] = Case(model, small | {"recompute_activations": True})
            cases[f"{name}-{stage}-from-plain"] = Case(model, layout, after=f"{name}-plain")
            cases[f"{name}-{stage}-from-2"] = Case(model, layout, after=f"{name}-2-parts")
        cases[f"llama-{stage}-bfloat16"] = Case(LLAMA, layout, {"precision": "bfloat16"})
        room_for = 1 if stage < 3 else None
        cases[f"llama-{stage}-lora"] = Case(LLAMA, layout, adapter=LORA, is_evaluated=True, room_for=room_for)
        cases[f"pretrained-{stage}"] = Case(pretrained(folder), layout)
        if stage > 0:
            offload = {"offload_optimizer": "cpu", "offload_parameters": "cpu" if stage == 3 else "none"}
            cases[f"llama-{stage}-offloaded"] = Case(LLAMA, layout | offload)
    # A state is read by those that come after it.
    return dict(sorted(cases.items(), key=lambda item: item[1].after is not None))


ALONE = {
    f"{name}-{stage}-alone": Case(model, {"zero_stage": stage, "deepspeed": SHARE_ALL})
    for name, model in MODELS.items()
    for stage in STAGES
}


@pytest.fixture(scope="module")
def folder(tokens: Any, varied: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes read and write."""
    made = tmp_path_factory.mktemp("processes")
    (made / "tokens").hardlink_to(tokens(varied).path)
    symbol_tokenizer([varied]).tokenizer.save(str(made / "tokenizer.json"))
    for name, model in MODELS.items():
        state = plain(Case(model), made)["state"]
        save_file({key: tensor.clone() for key, tensor in state.items()}, made / f"{name}-plain.safetensors")
    torch.multiprocessing.start_processes(process, (made, together(made), ALONE), nprocs=3, start_method="spawn")
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[..., Result]:
    """What one process of plain torch sees."""
    return cache(lambda case: plain(case, folder))


def assert_equal_steps(results: list[Result], expected: Result) -> None:
    assert results
    for result in results:
        assert len(result["steps"]) == STEPS
        for (loss, norm), (loss_2, norm_2) in zip(result["steps"], expected["steps"], strict=True):
            assert loss == pytest.approx(loss_2, abs=1e-4)
            assert norm == pytest.approx(norm_2, rel=1e-3)


@each
def test_losses_norms_replies_and_grades_do_not_depend_on_the_processes_nor_the_zero_stage(
    folder: Path, alone: Any, name: str, stage: int
) -> None:
    expected = alone(Case(MODELS[name], is_evaluated=True))
    both = seen(folder, f"{name}-{stage}")
    assert len(both) == 2
    assert_equal_steps(both, expected)
    for result in both:
        assert result["evaluations"] == [list(map(_plain, one)) for one in expected["evaluations"]]
        assert result["after evaluation"] == pytest.approx(expected["after evaluation"], abs=1e-3)
        assert result["flops"] == expected["flops"]
    assert_equal_steps(seen(folder, f"{name}-{stage}-alone"), expected)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


@each
def test_accumulated_gradients_and_recomputed_activations_change_nothing(
    folder: Path, alone: Any, name: str, stage: int
) -> None:
    for how in ("parts", "again") if stage in (1, 3) else ("parts",):
        assert_equal_steps(seen(folder, f"{name}-{stage}-{how}"), alone(Case(MODELS[name])))


@each
def test_what_one_engine_left_another_goes_on_with(folder: Path, alone: Any, name: str, stage: int) -> None:
    on = alone(Case(MODELS[name], after=f"{name}-plain"))
    assert_equal_steps(seen(folder, f"{name}-{stage}-from-plain"), on)
    assert_equal_steps(seen(folder, f"{name}-{stage}-from-2"), on)
    for left in (f"{name}-{stage}-parts", f"{name}-{stage}-alone"):
        assert_equal_steps([alone(Case(MODELS[name], after=left))], on)


@each
def test_the_state_is_whole_and_in_float32_whatever_engine_left_it(folder: Path, name: str, stage: int) -> None:
    expected = load_file(folder / f"{name}-plain.safetensors")
    for left in (f"{name}-{stage}-parts", f"{name}-{stage}-alone"):
        state = load_file(folder / f"{left}.safetensors")
        assert {key: tensor.shape for key, tensor in state.items()} == {
            key: tensor.shape for key, tensor in expected.items()
        }
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        for key in state:
            assert float((state[key] - expected[key]).abs().quantile(0.99)) < 1e-4, key


@each_stage
def test_weights_are_shared_out_while_a_pretrained_model_is_read_and_only_at_stage_3(
    folder: Path, alone: Any, stage: int
) -> None:
    expected = alone(Case(pretrained(folder)))
    both = seen(folder, f"pretrained-{stage}")
    assert_equal_steps(both, expected)
    assert [result["held"] for result in both] == [0 if stage == 3 else expected["held"]] * 2
    assert [result["flops"] for result in both] == [expected["flops"]] * 2


@each_stage
def test_adapters_are_trained_alike(folder: Path, alone: Any, stage: int) -> None:
    expected = alone(Case(LLAMA, adapter=LORA))
    both = seen(folder, f"llama-{stage}-lora")
    assert_equal_steps(both, expected)
    assert [result["flops"] for result in both] == [expected["flops"]] * 2


@pytest.mark.parametrize("stage", STAGES[:3])
def test_a_process_without_room_for_its_replies_writes_fewer_at_a_time_and_all_hear_of_it(
    folder: Path, alone: Any, stage: int
) -> None:
    expected = alone(Case(LLAMA, adapter=LORA, is_evaluated=True))
    many, few = ([_plain(value) for value in one] for one in expected["evaluations"])
    for result in seen(folder, f"llama-{stage}-lora"):
        (*found, at_once, shortage), others = result["evaluations"]
        assert (found, others) == (many[:3], few)
        assert at_once == 1
        assert shortage == (
            "out of memory writing replies to 2 questions at a time (CUDA out of memory. Tried to allocate 2.00 GiB)"
        )


@each_stage
def test_in_bfloat16_only_roundings_differ(folder: Path, alone: Any, stage: int) -> None:
    expected = alone(Case(LLAMA, recipe={"precision": "bfloat16"}))
    for result in seen(folder, f"llama-{stage}-bfloat16"):
        losses, others = ([loss for loss, _ in one["steps"]] for one in (result, expected))
        assert losses == pytest.approx(others, abs=0.02)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_what_waits_in_main_memory_is_trained_alike(folder: Path, alone: Any, stage: int) -> None:
    assert_equal_steps(seen(folder, f"llama-{stage}-offloaded"), alone(Case(LLAMA)))


def test_deepspeed_checks_the_names_and_values_of_a_persons_own_settings() -> None:
    from showhow.training.deepspeed_engine import check_settings  # loads DeepSpeed

    check_settings({"zero_optimization": {"overlap_comm": False, "reduce_bucket_size": "auto"}, "fp16": "of the study"})
    with pytest.raises(UserError, match=r"sharding.deepspeed: DeepSpeed refuses overlap_com = true of .*Zero"):
        check_settings({"zero_optimization": {"overlap_com": True}})
    with pytest.raises(UserError, match=r'refuses reduce_bucket_size = "much" of '):
        check_settings({"zero_optimization": {"reduce_bucket_size": "much"}})
