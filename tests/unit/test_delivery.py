"""Laws of the background delivery and of what it packs: everything arrives, in order, however often sending fails."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showhow.tracking.address import redact
from showhow.tracking.delivery import Delivery, RefusedError, UnreachableError
from showhow.tracking.mlflow.content import METRICS_PER_BATCH, dataset_fields, flatten, in_batches, pack
from showhow.tracking.tracker import Event, Reported, RunEnded, RunStarted, StudyEnded


class Receiver:
    """Takes parcels; fails the first `failures` times and refuses the items named."""

    def __init__(self, failures: int = 0, refuses: frozenset[int] = frozenset(), seconds: float = 0.0) -> None:
        self.failures, self.refuses, self.seconds = failures, refuses, seconds
        self.got: list[int] = []

    def send(self, parcel: list[int]) -> None:
        time.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise UnreachableError("down")
        if self.refuses & set(parcel):
            raise RefusedError("no")
        self.got += parcel


def pairs(items: list[int]) -> list[list[int]]:
    return [items[start : start + 2] for start in range(0, len(items), 2)]


def deliver(receiver: Receiver, items: range, timeout_seconds: float) -> int:
    delivery: Delivery[int] = Delivery(receiver.send, pairs, linger_seconds=0.01)
    for item in items:
        delivery.put(item)
    return delivery.close(timeout_seconds)


def test_everything_arrives_in_order() -> None:
    receiver = Receiver()
    assert deliver(receiver, range(101), 5.0) == 0
    assert receiver.got == list(range(101))


def test_a_receiver_that_fails_at_first_gets_everything_once() -> None:
    receiver = Receiver(failures=1)
    assert deliver(receiver, range(7), 10.0) == 0
    assert receiver.got == list(range(7))


def test_what_is_refused_is_counted_and_costs_nothing_else_of_its_parcel() -> None:
    receiver = Receiver(refuses=frozenset({2}))
    assert deliver(receiver, range(6), 5.0) == 1
    assert receiver.got == [0, 1, 3, 4, 5]


def test_closing_gives_up_in_time_and_says_how_much_is_left() -> None:
    start = time.monotonic()
    assert deliver(Receiver(failures=10**9), range(9), 0.3) == 9
    assert time.monotonic() - start < 3.0


def test_closing_waits_for_a_slow_receiver_as_long_as_things_arrive() -> None:
    receiver = Receiver(seconds=0.1)
    assert deliver(receiver, range(20), 0.5) == 0
    assert receiver.got == list(range(20))


def test_putting_does_not_wait_for_a_slow_receiver() -> None:
    delivery: Delivery[int] = Delivery(Receiver(seconds=2.0).send, pairs, linger_seconds=0.0)
    start = time.monotonic()
    for item in range(1000):
        delivery.put(item)
    assert time.monotonic() - start < 0.1
    assert delivery.close(0.3) == 1000


def start(run: str) -> RunStarted:
    return RunStarted(run, "trial-0", 0, "long", {}, {}, 1, 0.0)


def end(run: str) -> RunEnded:
    return RunEnded(run, "finished", None, None, {}, 0.0)


runs = st.sampled_from(["a", "b", "c"])
reports = st.builds(Reported, runs, st.integers(0, 9), st.just(dict.fromkeys(map(str, range(300)), 0.0)), st.just(0.0))
starts, ends = st.builds(start, runs), st.builds(end, runs)
study_ends = st.builds(StudyEnded, st.just("finished"), st.just(""), st.just([]), st.just({}), st.just(0.0))


@given(st.lists(st.one_of(reports, reports, starts, ends, study_ends), max_size=30))
def test_packing_keeps_every_event_and_the_order_within_a_run(recorded: list[Event]) -> None:
    parcels = pack(recorded)
    packed = [event for parcel in parcels for event in parcel]
    assert sorted(map(id, packed)) == sorted(map(id, recorded))
    for run in "abc":
        of_run = [event for event in packed if isinstance(event, StudyEnded) or event.run == run]  # type: ignore[union-attr]
        assert of_run == [event for event in recorded if isinstance(event, StudyEnded) or event.run == run]  # type: ignore[union-attr]
    for parcel in parcels:
        assert not any(isinstance(event, RunStarted) for event in parcel[1:])
        assert not any(isinstance(event, RunEnded) for event in parcel[:-1])
        if len(parcel) > 1:
            assert len({event.run for event in parcel}) == 1  # type: ignore[union-attr]
            assert sum(len(event.metrics) for event in parcel if isinstance(event, Reported)) <= METRICS_PER_BATCH


def test_a_run_that_starts_reports_and_ends_is_one_parcel() -> None:
    told: list[Event] = [start("a"), Reported("a", 64, {"train_loss": 1.0}, 0.0), end("a"), start("a"), end("a")]
    other: list[Event] = [start("b"), end("b")]
    assert pack([told[0], other[0], *told[1:], other[1]]) == [told[:3], other, told[3:]]


def test_long_params_are_cut_alike_every_time_and_batches_fit_a_request() -> None:
    params = flatten({"a": {"b": 1, "c": [1, "x"], "d": {}}, "long": "é" * 9000, "empty": "", "odd key!": True})
    assert params["a.b"] == "1"
    assert params["a.c"] == '[1, "x"]'
    assert params["a.d"] == "{}"
    assert params["empty"] == '""'
    assert params["odd key_"] == "true"
    assert len(params["long"]) == 6000
    assert params["long"].endswith("(9,000 characters)")
    many = {f"p{number}": "é" * 6000 for number in range(250)}
    batches = list(in_batches(many))
    assert {key: value for batch in batches for key, value in batch.items()} == many
    assert all(len(batch) <= 100 and sum(6 * len(value) for value in batch.values()) < 1_000_000 for batch in batches)


def test_a_dataset_is_named_by_its_manifest_and_addressed_by_its_fingerprint() -> None:
    manifest = {"task": "modular_sum", "level": "long", "fingerprint": "0123456789abcdef", "path": "/data/x", "rows": 7}
    fields = dataset_fields("train", manifest)  # type: ignore[arg-type]
    assert fields["name"] == "modular_sum · long · train"
    assert fields["digest"] == "0123456789abcdef"
    assert "/data/x" in fields["source"]
    assert '"rows": 7' in fields["profile"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://u:hunter2@db/x and more", "postgresql+psycopg2://***@db/x and more"),
        ("https://token@host", "https://***@host"),
        ("https://host/x?token=hunter2&a=1", "https://host/x?token=***&a=1"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("write to a@b.c: no address", "write to a@b.c: no address"),
    ],
)
def test_secrets_in_addresses_are_hidden_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == expected
