"""The attempts of a task that another one has followed, as a record keeps them: one line each, the first one first."""

from __future__ import annotations

import json
from dataclasses import dataclass

LATEST = 1e11
"""The first Unix time that is not taken for a date."""

LONGEST = 4_000
"""Characters that a record keeps: of the latest attempts."""


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt that did not succeed. Times are seconds since the epoch."""

    started: float
    finished: float
    error: str


def line_of(started: float, finished: float, error: str) -> str:
    """Return an attempt as its line. A store may write the line itself: two numbers, and a string as JSON has it."""
    return f"{started:.6f} {finished:.6f} {json.dumps(error)}\n"


def attempts_in(history: str) -> list[PastAttempt]:
    """Return the attempts of these lines; one that was cut is left out."""
    found = []
    for line in history.split("\n"):
        started, _, rest = line.partition(" ")
        finished, _, error = rest.partition(" ")
        try:
            one = PastAttempt(float(started), float(finished), str(json.loads(error)))
        except (ValueError, RecursionError):
            continue
        if 0 <= one.started < LATEST and 0 <= one.finished < LATEST:
            found.append(one)
    return found
