"""The error design: who can do something about it decides the class.

`UserError`: a person can fix it. It says what was got, what is allowed and what to do; the command line prints it
without a traceback and exits with code 2. It is raised before any cluster starts wherever that is possible.
`TrialError`: one run cannot go on (its loss is not a number, its data are corrupt). It is recorded on that run with its
reason while the sibling runs go on.
Everything else is a fault in this program and propagates with its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that a person can fix; the message carries what was got, what is allowed, and what to do."""


class TrialError(Exception):
    """One run cannot go on; the message says why and when (examples seen)."""


class OutOfMemoryError(TrialError):
    """A trial found no room on its devices as it is laid out. Laid out otherwise it may. `examples`: how many it had
    been trained on, where that is known; `asked_at_once`: to how many questions at a time it was writing replies, where
    it was not training."""

    def __init__(self, message: str, examples: int = 0, asked_at_once: int | None = None) -> None:
        super().__init__(message)
        self.examples, self.asked_at_once = examples, asked_at_once


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean "x"?` for the allowed name closest to `name`, or an empty string when none is close. Small
    and capital letters count as the same."""
    names = {known.lower(): known for known in allowed}
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f' Did you mean "{names[found[0]]}"?' if found else ""
