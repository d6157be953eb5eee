"""The design of a comparison: which arms there are, in which order, and within which settings they are compared. Pure.

An arm is what is compared; a setting is a combination of values within which it is compared. Claims are made within
each setting, never across several.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import Setting
from showhow.methods.bench import Unit
from showhow.sections.arm import Arm
from showhow.study.study import Study
from showhow.study.variants import EXPLANATION
from showhow.tasks.explain import Level

LEVELS = tuple(Arm(name=level.value, values={EXPLANATION: level.value}, is_control=level.is_control) for level in Level)


@dataclass(frozen=True)
class Design:
    """What is compared. by: the axes whose values the arms are; arms, settings: in order; others that runs have
    come last. unit: of the budget, equal for all arms; shows_spending: whether the table shows what was spent;
    is_timed: whether runs record when they solved the task."""

    by: tuple[str, ...] = (EXPLANATION,)
    arms: tuple[Arm, ...] = LEVELS
    settings: tuple[Setting, ...] = ({},)
    unit: Unit = "examples"
    shows_spending: bool = False
    is_timed: bool = True

    @classmethod
    def of(cls, study: Study) -> "Design":
        """Return the design of a study."""
        return cls(
            by=study.by,
            arms=study.arms,
            settings=tuple(dict[str, JsonValue](setting) for setting in study.settings),
            unit=study.budget.unit if study.budget else "examples",
            shows_spending=study.budget is not None or study.by != (EXPLANATION,),
        )

    def arms_of(self, outcomes: Iterable[RunOutcome]) -> list[Arm]:
        """Return the arms that have runs, in order, then those not in the design, by name."""
        controls: dict[str, bool] = {}
        for outcome in outcomes:
            controls[outcome.arm] = controls.get(outcome.arm, False) or outcome.is_control
        known = [arm for arm in self.arms if arm.name in controls]
        names = {arm.name for arm in known}
        others = sorted(name for name in controls if name not in names)
        return known + [Arm(name=name, values=self._values(name), is_control=controls[name]) for name in others]

    def _values(self, name: str) -> dict[str, str | int | float | bool]:
        return {self.by[0]: name} if len(self.by) == 1 else {}

    def settings_with(self, outcomes: Sequence[RunOutcome]) -> tuple[Setting, ...]:
        """Return the design's settings in order, then other settings of runs. Where runs have settings and the design
        names none, only theirs."""
        settings = list(self.settings)
        for outcome in sorted(outcomes, key=lambda outcome: (outcome.trial, outcome.seed)):
            if outcome.setting not in settings:
                settings.append(outcome.setting)
        is_used = len(settings) == 1 or any(outcome.setting == {} for outcome in outcomes)
        return tuple(setting for setting in settings if setting or is_used)
