"""The layouts of a session's trials. They are decided at its start and do not change when more is known of the models,
because the cluster was checked against them. How a layout is chosen: machines/fitting.py."""

from showhow.machines.fitting import fitting_layout_of, layout_of
from showhow.machines.layout import Layout
from showhow.sections.trial import Trial
from showhow.study.plan import planned_trials
from showhow.study.study import Study


class Layouts:
    """The layouts of one session. The next session decides again, for its own cluster."""

    def __init__(self, study: Study) -> None:
        """Raises UserError when the study does not set the layouts and none fits."""
        self._study = study
        trials = planned_trials(study)
        self._decided = {trial.name: fitting_layout_of(trial, study.resources, study.sharding) for trial in trials}

    @property
    def planned(self) -> tuple[Layout, ...]:
        """The decided layouts, one for each trial, in order."""
        return tuple(self._decided.values())

    def of(self, trial: Trial, room: int) -> Layout:
        """Return the layout of a trial; where points are chosen during the study (optuna), one of at most `room`
        devices, the number in the cluster."""
        study = self._study
        if study.search.algorithm == "random":
            return self._decided[trial.name]
        layout = layout_of(trial, study.resources, study.sharding)
        if layout.devices <= room:
            return layout
        most = 1 << (room.bit_length() - 1)  # "auto" counts devices in powers of two that divide the batch
        return layout_of(trial, study.resources.model_copy(update={"devices_per_trial": most}), study.sharding)
