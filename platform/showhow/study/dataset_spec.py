"""What a dataset is, so that it can be addressed by what is computed: task, level, split, size, seed. Pure."""

from pydantic import BaseModel

from showhow.fingerprint import fingerprint
from showhow.metrics import TEST, VALIDATION
from showhow.study.recipe import STRICT, Positive
from showhow.tasks import AnyTask
from showhow.tasks.explain import Level

GENERATOR_VERSION = 2  # raise it when the same spec would give other rows
TRAIN = "train"

# A question's hash puts it in one of 100 buckets, and each split owns some: no question is ever in two splits, whatever
# the seed, the level or the number of examples.
_BUCKETS = {TRAIN: range(80), VALIDATION: range(80, 90), TEST: range(90, 100)}


class DatasetSpec(BaseModel):
    """An immutable set of examples. split: `train`, `validation`, `test` or the study's name of a further evaluation
    split, which draws from the test buckets. control_length: the level whose length the controls have."""

    model_config = STRICT

    task: AnyTask
    level: Level
    split: str
    examples: Positive
    seed: int
    control_length: Level

    @property
    def buckets(self) -> range:
        """The hash buckets (of 100) whose questions belong to this split."""
        return _BUCKETS.get(self.split, _BUCKETS[TEST])

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits; equal for specs that give the same rows."""
        content = self.model_dump(mode="json")
        if not self.level.is_control:
            del content["control_length"]
        return fingerprint({**content, "generator_version": GENERATOR_VERSION})
