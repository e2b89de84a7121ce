"""What `asok.get` and its like ask of a store, or of the records of a distributed backend."""

from __future__ import annotations

from typing import Protocol

from .base import ProcessSummary, QueueSummary, Record, Tick
from .pages import EVERY, Ended, EndedCounts, Mark, Page, Wanted


class Shared(Protocol):
    """What processes see of the tasks of others: the part of a Store that `asok.get` and its like ask."""

    def now(self) -> float:
        """Return the time."""

    def read(self, id: str) -> Record | None:
        """Return the record as it is stored, or None."""

    def message_of(self, id: str) -> str | None:
        """Return the signed message that a record keeps, or None."""

    def get(self, id: str) -> Record | None:
        """Return the record as of now, or None."""

    def listed(
        self, limit: int, *, state: str | None = None, name: str | None = None, queue: str | None = None
    ) -> list[Record]:
        """Return the newest `limit` records that match, the oldest of them first."""

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        """Return a page of the records that match, the newest first; see `Store.page`."""

    def ended(self, since: float, limit: int) -> list[Ended]:
        """Return the latest `limit` tasks that were settled after `since`, the latest first."""

    def count_ended(self, since: float, seconds: float) -> EndedCounts:
        """Return how many tasks were settled after `since`, by state and by periods of `seconds`."""

    def settle_lost(self) -> None:
        """Settle what was lost with its process, where nothing else sees to that."""

    def cancel(self, id: str) -> bool:
        """Cancel a task that does not run; False for any other."""

    def stop(self, id: str) -> bool:
        """Ask a running task to stop; False if it does not run."""

    def queues(self) -> list[QueueSummary]:
        """Return how many tasks are in each queue that has any."""

    def processes(self) -> list[ProcessSummary]:
        """Return the processes that live, and serve or work."""


class Ticks(Protocol):
    """Which tick of a periodic task was taken last: the part of a Store that its clock asks."""

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        """Take a tick for a task; False if that tick, or a later one, is taken."""

    def tick(self, name: str) -> Tick | None:
        """Return the latest tick that was taken, or None."""

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        """Put `new` in the place of `old`, which may be None; False if that is not the latest one any more."""
