"""Identifies a dataset by what is computed: task, level, split, size, seed. Pure."""

import hashlib
from collections import Counter
from functools import cache

from pydantic import BaseModel

from showhow.fingerprint import fingerprint, placeless
from showhow.metrics import TEST, VALIDATION
from showhow.sections.scalars import STRICT, Positive
from showhow.tasks import AnyTask
from showhow.tasks.base import Task
from showhow.tasks.explain import Level

GENERATOR_VERSION = 2  # raise it when the same spec would give other rows
TRAIN = "train"

# A question's hash puts it in one of 100 buckets, and each split owns some: no question is ever in two splits, whatever
# the seed, the level or the number of examples.
_BUCKETS = {TRAIN: range(80), VALIDATION: range(80, 90), TEST: range(90, 100)}


def question_hash(question: str) -> int:
    """Return a 63-bit hash of a question's text: equal questions are duplicates, and the hash decides the split."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") >> 1


@cache
def _by_bucket(task: Task) -> Counter[int]:
    """Count the questions of a listed task by hash bucket."""
    return Counter(question_hash(problem.question) % 100 for problem in task.listed or ())


class DatasetSpec(BaseModel):
    """An immutable set of examples. split: `train`, `validation`, `test` or the study's name of another evaluation
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
    def available(self) -> int | None:
        """How many different questions the split has: counted in a listed task, else on average; None if they are more
        than any dataset could contain."""
        if self.task.listed is not None:
            return sum(_by_bucket(self.task)[bucket] for bucket in self.buckets)
        possible = self.task.distinct_questions
        return None if possible is None else possible * len(self.buckets) // 100

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits; equal for specs that give the same rows, wherever a task's file is."""
        content = self.model_dump(mode="json")
        if not self.level.is_control:
            del content["control_length"]
        return fingerprint(placeless({**content, "generator_version": GENERATOR_VERSION}))
