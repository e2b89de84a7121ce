"""The store of a distributed backend: a record keeps its message until the task is settled, the engine moves copies."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Sequence

from ...errors import BackendUnavailable
from ...store.base import Record, Store

SENDING_SECONDS = 10.0
"""How long a message has to be claimed, at the least, before it may count as dropped."""

OTHERS_SECONDS = 600.0
"""How long a task that one worker cannot run is left to others."""

BATCH = 200
"""How many tasks are sent again at a time."""


def new_claim() -> int:
    """Return the number of a claim, which no other one of its task has. Redis, which calculates in floats, keeps it."""
    return secrets.randbits(50) + 1


class ForeignRecord(BackendUnavailable):
    """Raised where the key of a record holds something else."""


class EngineStore(Store):
    """
    The records of the tasks that an engine delivers. The store has the time.

    What reads a record leaves out its message, which may be large: "" stands for it, and `message_of` reads it.
    """

    @abstractmethod
    def read_all(self, ids: Sequence[str]) -> list[Record]:
        """Return the records that there are of these."""

    @abstractmethod
    def release_in(self, id: str, delay: float, key: str, message: str) -> str:
        """Release a deferred record, as `release`, to be due in `delay` seconds."""

    @abstractmethod
    def sent_at(self, queue: str, id: str) -> str:
        """Return when a queued task was last sent, or ""."""

    @abstractmethod
    def begin(self, id: str, owner: str, sent: str, *, claim: int = 0, once: bool = False) -> tuple[int, int]:
        """
        Begin the attempt that a message asks for which was sent at `sent`, and return its claim and its number.

        Asked again with the same `claim`, of `new_claim`, it answers the same: the first answer may be lost on its way.
        With `once` the claim survives even a crash of the store: nobody makes the attempt again. The claim is 0 where
        the task is not to be run now, and -1 where it has no record.
        """

    @abstractmethod
    def leave(self, id: str, error: str) -> int:
        """
        Leave a task that this process cannot run to others, and write down why.

        1 where it is the first one to do so; 2 where all have done so for long enough: then the task has failed.
        """

    @abstractmethod
    def put_off(self, id: str, claim: int, seconds: float, *, attempts: int, error: str, traceback: str) -> bool:
        """Make a running record wait for its next attempt, as `postpone`, but for so many seconds from now."""

    @abstractmethod
    def hand_over(self, id: str, claim: int) -> bool:
        """Let another worker run what this process runs; the attempt is not counted, nor is a death."""

    @abstractmethod
    def orphans(self) -> list[Record]:
        """Return the running records whose process has ended."""

    @abstractmethod
    def take_back(self, record: Record) -> int:
        """
        Make an orphan queued again, to be sent at once, and return its new claim; 0 if it has changed meanwhile.

        A death is counted, and the attempt that was lost is not.
        """

    @abstractmethod
    def take_over(self, record: Record) -> int:
        """As `take_back`, but this process has the record now, which stays running until the process settles it."""

    @abstractmethod
    def probe(self, value: str, *, replaces: str = "") -> str:
        """Keep `value` as the probe of the signing key, unless there is one besides `replaces`; return what is kept."""

    @abstractmethod
    def read_probe(self) -> str | None:
        """Return the probe of the signing key, or None."""
