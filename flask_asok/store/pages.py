"""What a list of tasks asks of a store: one page of those that match, and what ended lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .record import Record


class Mark(NamedTuple):
    """A place in the list of all tasks, which is ordered by the time of the call, and by id within that."""

    enqueued: float
    id: str

    @classmethod
    def of(cls, record: Record) -> Mark:
        """Return where a record stands."""
        return cls(record.enqueued, record.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks a list shows. None is any."""

    state: str | None = None
    name: str | None = None
    queue: str | None = None
    error: str | None = None
    """Part of the text of the error; letters of ASCII may be small or large."""

    def matches(self, state: str, name: str, queue: str, error: str | None) -> bool:
        """Return True for a task like that."""
        return (
            self.state in (None, state)
            and self.name in (None, name)
            and self.queue in (None, queue)
            and (self.error is None or self.error.lower() in (error or "").lower())
        )

    def keep(self, records: Iterable[Record]) -> list[Record]:
        """Return those that match."""
        return [one for one in records if self.matches(one.state, one.name, one.queue, one.error)]


EVERY = Wanted()


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, the newest first, and where its rest begins: `before` of the next page, or None at the end."""

    records: list[Record]
    rest: Mark | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What is counted of a task that is settled."""

    name: str
    queue: str
    state: str
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class EndedCount:
    """How many tasks of a state have ended in one period, the first of which is 0."""

    state: str
    period: int
    count: int


@dataclass(frozen=True, slots=True)
class EndedCounts:
    """How many tasks have ended `since` a moment, which is later than the one asked for where there were too many."""

    counts: list[EndedCount]
    since: float


MOST_COUNTED = 50_000
"""Tasks that are counted one by one: the latest ones."""


def count_ended(ended: list[Ended], since: float, seconds: float) -> EndedCounts:
    """Count up to `MOST_COUNTED` tasks, the latest first, by state and by periods of `seconds`."""
    found = Counter((one.state, int((one.finished - since) // seconds)) for one in ended)
    counts = [EndedCount(state, period, count) for (state, period), count in found.items()]
    return EndedCounts(counts, since if len(ended) < MOST_COUNTED else ended[-1].finished)


def newest_of(page: Callable[[int, Wanted, Mark | None], Page], limit: int, wanted: Wanted) -> list[Record]:
    """Return the newest `limit` records of the pages that `page` returns, the oldest of them first."""
    found: list[Record] = []
    rest: Mark | None = None
    while len(found) < limit:
        part = page(limit - len(found), wanted, rest)
        found += part.records
        rest = part.rest
        if rest is None:
            break
    return found[::-1]
