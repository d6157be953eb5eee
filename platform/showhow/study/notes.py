"""What a person should know of a study that is no mistake of theirs: what its layouts are assumed from, what this
machine cannot hold or lacks, which rows of imported data contradict others. `check`, `plan` and `run` say it. Pure, but
for asking what this machine has."""

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
    """Return what is to be known before a study runs, a sentence or two each. is_for_this_machine: no cluster is
    named."""
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
    """Say where "auto" takes what is not known to fit."""
    asked, least = "sharding.zero_stage", "the lowest stage"
    if study.resources.devices_per_trial == "auto":
        asked, least = "resources.devices_per_trial", "a single device"
    takes = f'{asked} = "auto" takes {least}, whether that holds a trial or not'
    if device_bytes(study.resources) is None:
        yield f"{takes}, as nobody has said what a GPU holds. Set resources.device_gb, or {asked} to a number"
    names = [trial.model.name for trial in trials if isinstance(trial.model, PretrainedModel) and not sizes_of(trial)]
    missing = [name for name in dict.fromkeys(names) if not _is_here(name)]
    if missing:
        yield (
            f"{takes}, as the weights of {', '.join(missing)} are not on this disk. Download them first "
            f'("hf download {missing[0]}"), or set {asked} to a number'
        )
    if odd := [name for name in dict.fromkeys(names) if name not in missing]:
        yield f"{takes}, as config.json of {', '.join(odd)} does not tell the sizes. Set {asked} to a number"


def _is_here(name: str) -> bool:
    folder = local_folder(name)
    return folder is not None and not isinstance(read_weights(folder), str)


def _of_contradictions(trials: Sequence[Trial]) -> Iterator[str]:
    """Name rows of imported files that answer a question otherwise than a row before."""
    tasks = dict.fromkeys(trial.dataset(split).task for trial in trials for split in trial.splits)
    for task in tasks:
        if isinstance(task, Imported) and (told := task.rows.contradictions_in(task.path)):
            yield told
