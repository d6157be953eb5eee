"""Stop rules: when a poor trial is ended early. Pure: the decision itself is made in sweep/arbiter.py.

Trials are compared only with trials of the same arm in the same setting. A model without explanation leads early,
because it reaches chance at once, so a rule across arms stops exactly the trials that win later. And an arm's answer
needs all seeds of its best trial, but only of that one: so every trial gets its first seed, a trial gets another
only while its finished seeds are among the best of its arm, and at least two trials always do. A run that
reached its goal is better than one that did not, and the sooner the better; the rest is decided by the rule's metric.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from showhow.sections.scalars import STRICT

_Common = Annotated[int, Field(ge=1)]


class NoStopping(BaseModel):
    """Every run uses its full budget, unless it reaches goal_accuracy on the validation split first (if one is
    set)."""

    model_config = STRICT

    kind: Literal["none"] = "none"
    goal_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


class Asha(BaseModel):
    """Asynchronous successive halving (Li et al., arXiv 1810.05934) within arm and setting, by budget, then by seeds.

    Progress is counted in the unit of the run's budget. grace: share of a run's budget before the first decision;
    reduction_factor: one of that many trials continues at each rung within a seed, and to its next seed. metric: what
    trials are compared by; the training loss falls in steps before accuracy rises, so it shows a run that is about to
    succeed. (Where the wording itself is searched, losses of different wordings cannot be compared: use accuracy.)
    min_trials: others that must have come as far; with one other it would be chance. min_seeds: seeds that must have
    come as far; a trial is judged by their mean, and with 2 every trial spends two seeds. `benchmarks/stopping.py`
    measures what these values save and what they miss.
    """

    model_config = STRICT

    kind: Literal["asha"]
    metric: Literal["train_loss", "accuracy"] = "train_loss"
    grace: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.33
    reduction_factor: Annotated[float, Field(gt=1.0)] = 2.0
    min_trials: _Common = 2
    min_seeds: _Common = 1
    goal_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


class Median(BaseModel):
    """The median rule of Vizier (Golovin et al., KDD 2017) within arm and setting: a trial is stopped when its best
    value so far is worse than the median of the others' running means, and the better half gets its next seed.
    `min_trials`: others needed before anything is decided. The other settings are those of `asha`."""

    model_config = STRICT

    kind: Literal["median"]
    metric: Literal["train_loss", "accuracy"] = "train_loss"
    grace: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.33
    min_trials: _Common = 3
    min_seeds: _Common = 1
    goal_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


StopRule = Annotated[NoStopping | Asha | Median, Field(discriminator="kind")]
