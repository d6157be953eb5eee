"""A run on several devices, or with DeepSpeed on one: Ray Train inside a Ray Tune trial.

The trial's own process only starts the workers (workers.py) and forwards the messages of the first.
"""

from functools import partial
from typing import Any

from ray.tune import PlacementGroupFactory

from showhow.machines.assignment import Assignment
from showhow.machines.layout import Layout
from showhow.processes.equipment import equipped
from showhow.processes.loading import load
from showhow.processes.trial import (
    Say,
    assignment,
    carry_out,
    fine_tune,
    resources,
    run_trial,
    say_here,
    say_note,
    tell,
)
from showhow.sections.resources import Resources


def places(layout: Layout, each: Resources) -> PlacementGroupFactory:
    """Return what Ray Tune reserves for a run: a bundle per device, all or none, on as few machines as possible."""
    bundle = {"CPU": each.cpus_per_device, "GPU": each.gpus_per_device}
    if not layout.needs_deepspeed:
        return PlacementGroupFactory([bundle])
    return PlacementGroupFactory([{}, *[bundle] * layout.devices])  # the trial's own process uses no device


def run_as_laid_out(config: dict[str, Any]) -> None:
    """Run one trial with one seed, in this process or in several, depending on its layout."""
    run = assignment(config)
    if not run.layout.needs_deepspeed:
        run_trial(config)
        return
    from showhow.processes.workers import work_together  # loads Ray Train, which would delay a study

    def attempt(run: Assignment) -> None:
        devices = run.layout.devices
        say_note(say_here, "starting", 0, f"starting {_processes(devices)}")  # takes seconds
        work_together(equipped(partial(_fine_tune, run)), devices, resources(config), tell)

    carry_out(run, attempt)


def _fine_tune(run: Assignment, say: Say) -> None:
    load("showhow.bench.fine_tune", "showhow.training.deepspeed_engine")
    say_note(say, "started", 0, f"{_processes(run.layout.devices)} started")
    fine_tune(run, say)


def _processes(count: int) -> str:
    return "a process" if count == 1 else f"{count} processes"
