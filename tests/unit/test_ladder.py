"""Laws of the ladder that a run climbs when its memory runs out: which layouts follow one another, and that it ends."""

import pickle
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from showhow.errors import OutOfMemoryError
from showhow.machines.layout import Layout, next_rung
from showhow.processes.ladder import in_words
from showhow.sections.recipe import Recipe


def ladder(layout: Layout, batch_size: int) -> list[Layout]:
    recipe = Recipe(batch_size=batch_size, max_examples=batch_size, learning_rate=1e-3)
    rungs = [layout]
    while (rung := next_rung(rungs[-1], recipe)) is not None:
        rungs.append(rung)
    return rungs


@given(devices=st.integers(1, 8), share=st.integers(1, 512), stage=st.integers(0, 3), recompute=st.booleans())
def test_each_rung_needs_less_and_keeps_the_batch(devices: int, share: int, stage: int, recompute: bool) -> None:
    start = Layout(devices=devices, micro_batch_size=share, zero_stage=stage, recompute_activations=recompute)
    rungs = ladder(start, share * devices)
    assert len(rungs) < 20
    for one, other in pairwise(rungs):
        sizes = (one.micro_batch_size, other.micro_batch_size)
        assert sizes[1] <= max(1, sizes[0] // 2)
        assert share % sizes[1] == 0
        changed = {name for name, value in one if value != getattr(other, name)}
        assert len(changed) == 1
        assert changed <= {"micro_batch_size", "recompute_activations", "zero_stage"}
    last = rungs[-1]
    assert last.micro_batch_size == 1
    assert last.recompute_activations
    assert last.zero_stage == (3 if devices > 1 else stage)


def test_the_order_is_smaller_micro_batches_then_recomputing_then_sharing_more() -> None:
    told = [
        (rung.micro_batch_size, rung.recompute_activations, rung.zero_stage)
        for rung in ladder(Layout(devices=2, micro_batch_size=4, zero_stage=1), 8)
    ]
    assert told == [(4, False, 1), (2, False, 1), (1, False, 1), (1, True, 1), (1, True, 2), (1, True, 3)]


def test_what_the_users_own_settings_fix_stays() -> None:
    own = {"zero_optimization": {"stage": 1}, "train_micro_batch_size_per_gpu": 4}
    rungs = ladder(Layout(devices=2, micro_batch_size=4, zero_stage=1, deepspeed=own), 8)
    assert [(rung.micro_batch_size, rung.zero_stage) for rung in rungs] == [(4, 1), (4, 1)]


def test_where_replies_find_no_room_fewer_are_written_at_a_time_and_training_stays_as_it_is() -> None:
    layout = Layout(devices=2, micro_batch_size=4, zero_stage=2)
    recipe = Recipe(batch_size=8, max_examples=8, learning_rate=1e-3)
    fewer = next_rung(layout, recipe, 9)
    assert fewer == layout.model_copy(update={"asked_at_once": 4})
    assert in_words(fewer).endswith("ZeRO stage 2 over 2 devices, replies to 4 questions at a time")
    shared = next_rung(layout, recipe, 1)
    assert shared == layout.model_copy(update={"zero_stage": 3})
    assert next_rung(shared, recipe, 1) is None


def test_an_error_of_another_process_tells_what_it_told_there() -> None:
    error = pickle.loads(pickle.dumps(OutOfMemoryError("no room", 80, 4)))  # noqa: S301 - as Ray sends it
    assert (str(error), error.examples, error.asked_at_once) == ("no room", 80, 4)
