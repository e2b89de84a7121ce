"""What a store owes: START HERE to write one."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..progress import Progress
from ..summaries import State
from .pages import EVERY, MOST_COUNTED, Ended, EndedCounts, Mark, Page, Wanted, count_ended, newest_of
from .record import Record as Record

KEEP_SECONDS = 86_400.0
"""How long a settled record is kept. One that is not settled never expires."""

TIDY_EVERY = 100
TIDY_AT_MOST = 200
"""After how many new records old ones are forgotten, and how many of them: twice as many go as come."""

COMMAND = "command"
"""The kind of a process that neither serves nor works, a command or a test: its tasks live as long as it does."""

LOST = "its process ended before it finished"
"""The error of a task that is settled for its lost process."""

MOST_LISTED = 2**53
"""Records of one list. It is more than there are, and a number that every store takes."""

LONGEST_TRACEBACK = 8_000
"""Characters of a traceback that a record keeps: its last ones, which name the error."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ProcessSummary:
    """A process that lives and shares the store."""

    token: str
    host: str
    pid: int
    kind: str
    """ "web" or "worker"."""
    since: float
    queues: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class QueueSummary:
    """How many tasks a queue has in each state, and since when its oldest one is due."""

    name: str
    queued: int = 0
    running: int = 0
    waiting: int = 0
    oldest_due_at: float | None = None


@dataclass(slots=True, frozen=True)
class Tick:
    """What a store remembers of a periodic task: its latest tick, and the task that ran it."""

    at: float
    task_id: str = ""


class Store(ABC):
    """
    The memory that all processes of one application share. Thread-safe; one for each process and application.

    Every change is one atomic step, and fenced: `claim` gives an attempt a token, and only its holder can change the
    record until the next claim. Raises BackendUnavailable where the store cannot be reached.
    """

    is_shared: ClassVar[bool] = True
    """Can other processes see it?"""

    me: str = ""
    """The token of this process, once it has entered."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._tidied = itertools.count()

    # Records

    @abstractmethod
    def add(self, record: Record) -> str:
        """
        Keep a new record and return its id.

        With `record.key` set it is kept only if no task that lives holds that key; otherwise nothing is kept, and the
        id of the task that holds the key is returned. A task lives if it is not settled, and is durable or its owner is
        alive.
        """

    @abstractmethod
    def read(self, id: str) -> Record | None:
        """Return the record as it is stored, or None."""

    def message_of(self, id: str) -> str | None:
        """Return the signed message that a record keeps, or None."""
        record = self.read(id)
        return None if record is None else record.message

    def get(self, id: str) -> Record | None:
        """Return the record, or None. One that was lost with its process is settled as abandoned first."""
        record = self.read(id)
        return None if record is None else self._seen(record)

    @abstractmethod
    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        """
        Return up to `limit` records that match and stand after `before`, as they are stored, the newest first.

        A page may have less than `limit` records, or none, and a rest: as much was looked at as is for one page.
        """

    def newest(
        self, limit: int, *, state: str | None = None, name: str | None = None, queue: str | None = None
    ) -> list[Record]:
        """Return the newest `limit` records that match as they are stored, the oldest of them first."""
        return newest_of(self.page, min(limit, MOST_LISTED), Wanted(state=state, name=name, queue=queue))

    def listed(
        self, limit: int, *, state: str | None = None, name: str | None = None, queue: str | None = None
    ) -> list[Record]:
        """Return what `newest` does. Those that were lost with their process are settled as abandoned first."""
        self.settle_lost()
        return self.newest(limit, state=state, name=name, queue=queue)

    @abstractmethod
    def ended(self, since: float, limit: int) -> list[Ended]:
        """Return the latest `limit` tasks that were settled after `since`, the latest first."""

    def count_ended(self, since: float, seconds: float) -> EndedCounts:
        """Return how many tasks were settled after `since`, by state and by periods of `seconds` from then on."""
        return count_ended(self.ended(since, MOST_COUNTED), since, seconds)

    @abstractmethod
    def settle_lost(self) -> None:
        """Settle as abandoned what was lost with its process, however much; quick where no process has ended."""

    def _seen(self, record: Record) -> Record | None:
        if record.is_settled or record.is_durable or self.is_alive(record.owner):
            return record
        self.settle(record.id, record.claim, "abandoned", error=LOST)
        return self.read(record.id)

    @abstractmethod
    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        """
        Begin an attempt for the process `owner`: the record becomes `running`, with one more attempt and a new claim.

        Returns that claim; 0 if the record is unknown, running, or settled, or `after` is given and not its latest.
        """

    @abstractmethod
    def report(self, id: str, claim: int, progress: Progress) -> bool:
        """Keep the progress of a running attempt, and return True if it was asked to stop."""

    @abstractmethod
    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        """
        Make a deferred record queued, or waiting where `due` is to come; give it its key and message, if it has any.

        Returns its own id, or the id of the task that holds the key by now; "" if the record is settled or unknown.
        """

    @abstractmethod
    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        """
        Make a running record wait until `due` for its next attempt; False if `claim` is not the latest.

        The attempt goes into its history, with its error.

        `attempts` are those that count: an attempt that could not be made does not.
        """

    @abstractmethod
    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        """
        Give a record its last state and free its key; False if `claim` is not the latest, or it is settled.

        A succeeded or cancelled task loses its message; a failed or abandoned one keeps it, to be retried.
        """

    @abstractmethod
    def cancel(self, id: str) -> bool:
        """Settle as cancelled a record that is queued or waiting; False if it runs, is settled or unknown."""

    @abstractmethod
    def stop(self, id: str) -> bool:
        """Ask the running attempt to stop; False if none runs."""

    @abstractmethod
    def retry(self, id: str) -> Record | None:
        """
        Make a failed or abandoned record that has a message queued again, from attempt 1; None for any other.

        It takes its unique key again; None if another task that lives holds that.
        """

    @abstractmethod
    def discard(self, id: str) -> bool:
        """Forget a settled record; False if it is not settled, or unknown."""

    @abstractmethod
    def free(self, id: str) -> None:
        """Free the key that a record holds, before it is settled."""

    @abstractmethod
    def expire(self, limit: int = 500) -> int:
        """Forget up to `limit` records that were settled a day ago, and return how many there were."""

    def tidy(self) -> None:
        """Forget a few old records at the first call, and at every hundredth: to be called for each new record."""
        if next(self._tidied) % TIDY_EVERY == 0:
            self.expire(TIDY_AT_MOST)

    @abstractmethod
    def queues(self) -> list[QueueSummary]:
        """Return the queues that have records which are not settled, without what was lost with its process."""

    # Processes

    @abstractmethod
    def enter(self, kind: str, queues: Iterable[str]) -> str:
        """
        Note that this process lives, and return its token. It lives until it ends, or `close` is called.

        `kind` is "web", "worker" or COMMAND; entered again, the process keeps its token and changes its kind.
        """

    @abstractmethod
    def is_alive(self, token: str) -> bool:
        """Return True if the process with this token lives."""

    @abstractmethod
    def processes(self) -> list[ProcessSummary]:
        """Return the processes that live, without those of the kind COMMAND."""

    # Ticks

    @abstractmethod
    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        """Take the tick `at` of a periodic task for `task_id`; False if that tick, or a later one, is taken."""

    @abstractmethod
    def tick(self, name: str) -> Tick | None:
        """Return the latest tick that was taken, or None."""

    @abstractmethod
    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        """Put `new` in the place of `old`, which may be None; False if that is not the latest one any more."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections and files. This process does not live any more."""
