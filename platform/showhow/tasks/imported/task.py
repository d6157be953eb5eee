"""A user's own dataset: the rows of a file, each a question, its worked solution and its answer.

| in the file | what it is |
|---|---|
| `question` | the question, as the model reads it |
| `answer` | the answer: text without line breaks, or a number; compared as text |
| `steps` or `explanation` | the worked solution: a list of texts or one text; each line that is not blank is a step |
| `short`, `medium`, `long` | optional: what that level shows, a list or a text, instead of a part of the steps |

`*_column` names other columns. With `answer_separator = "####"` the answer column contains solution and answer, as in
GSM8K (Cobbe et al., arXiv 2110.14168): the text before the last separator is the worked solution.

Level long shows all steps, medium the first two thirds, short the first third, rounded up to full steps; none shows
the answer alone. So an explanation is cut off early, as in Lanham et al. (arXiv 2307.13702).
"""

import random
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from showhow.errors import UserError, nearest
from showhow.tasks.base import Problem, Task, TextFormat
from showhow.tasks.imported.file import read_lines
from showhow.tasks.imported.table import Rows, rows_in

_MOST_ANSWERS_GUESSED = 100  # with more, guessing among the answers in the file is not a meaningful baseline

Name = Annotated[str, Field(min_length=1)]


class Imported(Task):
    """Questions, worked solutions and answers from a JSON Lines or Parquet file of your own.

    path: relative to the study file, or absolute. sha256: of the file's content, filled in when a study is read; it
    identifies the dataset, and the path does not. answer_prefix: the text before the answer where there is an
    explanation. max_bad_share: the share of rows that may be unusable; they are left out and counted.
    """

    kind: Literal["imported"] = "imported"
    path: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    question_column: Name = "question"
    answer_column: Name = "answer"
    answer_separator: Name | None = None
    explanation_column: Name | None = None
    short_column: Name | None = None
    medium_column: Name | None = None
    long_column: Name | None = None
    answer_prefix: Annotated[str, Field(pattern=r"^.*\S.*$")] = "Answer: "  # on one line
    max_bad_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    @property
    def text_format(self) -> TextFormat:
        """A line per step, and the answer on the last line after its prefix."""
        return TextFormat(step_separator="\n", answer_prefix=self.answer_prefix)

    @property
    def rows(self) -> Rows:
        """The rows of the file. Raises UserError when it cannot be read or too many of its rows cannot be used."""
        return _rows(self)

    @property
    def listed(self) -> tuple[Problem, ...]:
        """Each question once, in the order of the file."""
        return self.rows.listed

    def draw(self, rng: random.Random) -> Problem:
        """Draw one row of the file."""
        return rng.choice(self.listed)

    def solve(self, question: str) -> Problem:
        """Look a question up in the file."""
        problems = self.rows.problems
        if question not in problems:
            hint = nearest(question, problems)
            raise UserError(f'{self.path} has no question "{question}".{hint} Without --question one is drawn')
        return problems[question]

    @property
    def answers(self) -> tuple[str, ...]:
        """The different answers in the file."""
        return tuple(dict.fromkeys(problem.answer for problem in self.listed))

    @property
    def chance(self) -> float:
        """1 / number of different answers, and 0 where there are more than 100."""
        count = len(self.answers)
        return 1 / count if count <= _MOST_ANSWERS_GUESSED else 0.0

    @property
    def largest_number(self) -> int:
        """-1: only the numbers in the file are known to occur."""
        return -1

    @property
    def distinct_questions(self) -> int:
        """How many different questions the file has."""
        return len(self.listed)


@cache
def _rows(task: Imported) -> Rows:
    return rows_in(read_lines(task.path, task.sha256), task.model_dump())
