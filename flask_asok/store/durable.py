"""What a store owes of durable tasks, which outlive the process that accepted them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from .base import Record, Store


class DurableStore(Store):
    """
    A store whose processes go on with each other's durable tasks.

    A process owns the tasks that it runs or will run. What no living process owns is an orphan: the process that finds
    it takes it over.
    """

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that this thread writes meanwhile in one step, and nothing of it where an error is raised."""
        yield

    @abstractmethod
    def orphans(self, queue: str, limit: int) -> list[Record]:
        """Return up to `limit` orphans of a queue: not settled, with a message, and due. Of each owner the first."""

    @abstractmethod
    def take_over(self, record: Record, owner: str) -> int:
        """
        Make the process `owner` the owner of an orphan, which is queued then, and return its new claim.

        0 if it has changed since `record` was read: another process has it. If it was running, a death is counted, and
        the attempt that was lost is not.
        """

    @abstractmethod
    def hand_over(self, id: str, claim: int) -> bool:
        """
        Make a running record queued again, for the process that comes after this one; False if `claim` is too old.

        The attempt is not counted, nor is a death. What it still writes is refused. That it was asked to stop stays.
        """

    def give_up(self, id: str, claim: int) -> bool:
        """Make a record that is queued or waits an orphan, though its process lives; False if `claim` is too old."""
        return False

    @abstractmethod
    def probe(self, value: str, *, replaces: str = "") -> str:
        """Keep `value` as the probe of the signing key, unless there is one besides `replaces`; return what is kept."""
