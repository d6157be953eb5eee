"""Notes on a study that are not errors: assumptions about its layouts, what this machine has too little of or lacks,
rows of imported data that contradict others. `check`, `plan` and `run` print them. Pure, except that it inspects this
machine."""

from collections.abc import Iterator, Sequence

from showhow.machines import machine
from showhow.machines.fitting import device_bytes, is_open, layout_of
from showhow.machines.room import Demand, shortage, this_machine
from showhow.models.folders import local_folder
from showhow.models.sizes import sizes_of
from showhow.models.weights import read_weights
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial
from showhow.study.plan import planned_trials
from showhow.study.study import Study
from showhow.tasks.imported.task import Imported


def notes_on(study: Study, is_for_this_machine: bool = True) -> list[str]:
    """Return notes to read before a study runs, a sentence or two each. is_for_this_machine: no cluster is named."""
    trials = planned_trials(study)
    found = [*_of_contradictions(trials)]
    if is_open(study.resources, study.sharding):
        found += _of_assumptions(study, trials)
    if is_for_this_machine:
        layouts = tuple(layout_of(trial, study.resources, study.sharding) for trial in trials)
        demand = Demand(len(trials) * len(study.seeds), layouts, study.resources)
        problem = shortage(this_machine(), demand, "this machine")
        found += [f"it cannot run on this machine alone. {problem}"] if problem else []
        if not study.resources.gpus_per_device and machine.compiler() is None:
            found.append(
                "there is no C++ compiler here, with which llama and t5 models train up to twice as fast on CPUs. "
                "Install one (Debian: apt install g++; macOS: xcode-select --install)"
            )
    return found


def _of_assumptions(study: Study, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield where "auto" picks a layout that may not fit."""
    setting, least = "sharding.zero_stage", "the lowest stage"
    if study.resources.devices_per_trial == "auto":
        setting, least = "resources.devices_per_trial", "a single device"
    takes = f'{setting} = "auto" takes {least}, even if a trial does not fit'
    if device_bytes(study.resources) is None:
        yield f"{takes}, as the memory of a GPU is unknown. Set resources.device_gb, or {setting} to a number"
    names = [trial.model.name for trial in trials if isinstance(trial.model, PretrainedModel) and not sizes_of(trial)]
    missing = [name for name in dict.fromkeys(names) if not _is_here(name)]
    if missing:
        yield (
            f"{takes}, as the weights of {', '.join(missing)} are not on this disk. Download them first "
            f'("hf download {missing[0]}"), or set {setting} to a number'
        )
    if odd := [name for name in dict.fromkeys(names) if name not in missing]:
        yield f"{takes}, as config.json of {', '.join(odd)} has no sizes. Set {setting} to a number"


def _is_here(name: str) -> bool:
    folder = local_folder(name)
    return folder is not None and not isinstance(read_weights(folder), str)


def _of_contradictions(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield notes on rows of imported files that contradict an earlier row's answer."""
    tasks = dict.fromkeys(trial.dataset(split).task for trial in trials for split in trial.splits)
    for task in tasks:
        if isinstance(task, Imported) and (note := task.rows.contradictions_in(task.path)):
            yield note
