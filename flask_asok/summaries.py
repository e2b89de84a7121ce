"""What is remembered of a task when the task itself is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from . import process
from .progress import Progress
from .validate import Check, one_of, or_none

State = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "abandoned"]
checked_state: Check = or_none(one_of(*get_args(State)))
SETTLED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "abandoned"})

LONGEST_ERROR_TEXT = 500
"""Characters of an error's text that a summary keeps."""

_digits: list[str] = []
"""Random digits for the ids to come: one by one they would take longer than the rest of a task."""

_making = threading.RLock()
"""Held while an id is made, so that all threads that ask for it are told the same."""


def _renew() -> None:
    """Do not go on with the digits of the parent, nor with its lock, which a thread that is not here may hold."""
    global _making
    _making = threading.RLock()
    _digits.clear()


process.after_fork(_renew)


def _random_digits() -> str:
    """Return 19 hexadecimal digits, 76 bits that nobody can guess."""
    while True:
        try:
            return _digits.pop()
        except IndexError:
            found = os.urandom(2_560).hex()
            _digits.extend(found[start : start + 19] for start in range(0, len(found), 20))


class TaskSummary:
    """
    What is remembered of one task: no argument, result or traceback.

    It follows the task while that runs. Times are aware datetimes in UTC.
    """

    __slots__ = (
        "_id", "attempts", "due", "enqueued", "error", "finished", "is_stored", "name", "progress", "queue",
        "scheduled", "started", "state", "task",
    )  # fmt: skip

    def __init__(self, name: str, queue: str, id: str | None = None) -> None:
        self._id = id
        # For backends, in seconds since the epoch, 0.0 before.
        self.enqueued: float = time.time()
        self.due: float = self.enqueued
        """When the latest attempt was to begin, or the next one is."""
        self.started: float = 0.0
        self.finished: float = 0.0
        self.scheduled: float = 0.0
        self.task: Callable[[], Any] | None = None
        """A weak reference to the Task, if this process made one."""
        self.is_stored: bool = False
        """Does the store have a record of the task? Then that record counts."""
        self.name: str = name
        self.queue: str = queue
        self.state: State = "queued"
        self.attempts: int = 0
        self.error: str | None = None
        self.progress: Progress | None = None

    @property
    def id(self) -> str:
        """
        32 hexadecimal digits, made when first asked for.

        The first 13 are the time of the call in microseconds, so that ids stand in the order of the calls; from the
        others, which cannot be guessed, nobody learns the id of another task.
        """
        if self._id is None:
            process.renew()
            with _making:
                if self._id is None:
                    self._id = f"{int(self.enqueued * 1e6):013x}{_random_digits()}"
        return self._id

    @property
    def enqueued_at(self) -> datetime:
        """When `background()` was called."""
        return datetime.fromtimestamp(self.enqueued, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When the latest attempt began."""
        return datetime.fromtimestamp(self.started, UTC) if self.started else None

    @property
    def finished_at(self) -> datetime | None:
        """When the task was settled."""
        return datetime.fromtimestamp(self.finished, UTC) if self.finished else None

    @property
    def scheduled_at(self) -> datetime | None:
        """The tick of a periodic task; None of any other."""
        return datetime.fromtimestamp(self.scheduled, UTC) if self.scheduled else None

    @property
    def duration(self) -> float | None:
        """Seconds from the start of the latest attempt to its end, or until now; None before the first."""
        return (self.finished or time.time()) - self.started if self.started else None

    @property
    def latency(self) -> float:
        """Seconds from when the latest attempt was due to its start, or until now."""
        # Of an attempt that waits still: until now.
        return max(0.0, (self.started if self.started >= self.due else time.time()) - self.due)

    def as_dict(self) -> dict[str, Any]:
        """
        Return what a page may show, as JSON has it: no error text.

        `id`, `name`, `queue`, `state`, `attempts`; `enqueued_at`, `started_at`, `finished_at` and `scheduled_at`, in
        ISO 8601 and UTC, or None; `progress`: None, or `done`, `total`, `text`, `at` and `fraction`.
        """
        # The state first: a task that has ended has its last progress.
        state, progress = self.state, self.progress
        return {
            "id": self.id,
            "name": self.name,
            "queue": self.queue,
            "state": state,
            "attempts": self.attempts,
            "enqueued_at": _iso(self.enqueued_at),
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "scheduled_at": _iso(self.scheduled_at),
            "progress": None if progress is None else progress.as_dict(),
        }

    def log_fields(self) -> dict[str, Any]:
        """Return the `extra` fields of a log record about the task."""
        return {
            "task_id": self.id,
            "task_name": self.name,
            "task_queue": self.queue,
            "task_attempt": self.attempts,
            "task_queued_ms": round(self.latency * 1000, 3),
            "task_duration_ms": round((self.duration or 0.0) * 1000, 3),
        }

    def __repr__(self) -> str:
        return f"<TaskSummary {self.name} {self.state} {self.id}>"


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
