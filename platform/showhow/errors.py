"""The error design: the class depends on who can fix the error.

`UserError`: a person can fix it. It states what was got, what is allowed and what to do; the command line prints it
without a traceback and exits with code 2. It is raised before any cluster starts wherever that is possible.
`TrialError`: one run cannot continue (its loss is not a number, its data are corrupt). It is recorded on that run with
its reason while the sibling runs continue.
Everything else is a fault in this program and propagates with its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that a person can fix; the message states what was got, what is allowed, and what to do."""


class TrialError(Exception):
    """One run cannot continue; the message says why and when (examples seen)."""


class OutOfMemoryError(TrialError):
    """A trial does not fit on its devices with its layout; with another it may. `examples`: the number of training
    examples so far, where it is known; `asked_at_once`: the batch size of generation, where it was generating replies
    and not training."""

    def __init__(self, message: str, examples: int = 0, asked_at_once: int | None = None) -> None:
        super().__init__(message)
        self.examples, self.asked_at_once = examples, asked_at_once


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean "x"?` for the allowed name closest to `name`, or an empty string when none is close.
    Case is ignored."""
    names = {known.lower(): known for known in allowed}
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f' Did you mean "{names[found[0]]}"?' if found else ""
