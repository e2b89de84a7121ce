"""The metrics of Prometheus: one set for each process, whatever number of applications it has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from .. import process
from .labels import label_of

MOST_NAMES = 200
"""How many functions have series of their own; all further ones are `other`."""

LATENCY = Histogram(
    "asok_queue_latency_seconds", "From when an attempt was due to its start.", ["queue"],
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800),
)  # fmt: skip
OLDEST = Gauge(
    "asok_queue_oldest_timestamp_seconds", "When the oldest queued task was due, in Unix time; +Inf for none.",
    ["queue"], multiprocess_mode="livemin",
)  # fmt: skip
TASKS = Gauge(
    "asok_queue_tasks", "Tasks that are queued, run or wait for a delay or a retry.", ["queue", "state"],
    multiprocess_mode="livesum",
)  # fmt: skip
THREADS = Gauge("asok_queue_threads", "Threads of the queue's worker pool.", ["queue"], multiprocess_mode="livesum")
DURATION = Histogram(
    "asok_task_duration_seconds", "From the start of an attempt to its end.", ["queue", "task"],
    buckets=(0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800),
)  # fmt: skip
OUTCOMES = Counter("asok_tasks_total", "Tasks that were settled.", ["queue", "task", "outcome"])
RETRIES = Counter(
    "asok_task_retries_total", "Attempts that raised and were followed by another one.", ["queue", "task"]
)
CALLER_RUNS = Counter("asok_caller_runs_total", "Tasks that their caller ran, for the queue was full.", ["queue"])


lock: threading.Lock = threading.Lock()
"""
Guards every write to a metric, so that none of Prometheus' own locks is held when the process forks. It also lets a
gauge be read off and written in one step: of two threads the later one writes the later state.
"""


class _Forking:
    def before_fork(self) -> None:
        """Wait until no metric is being written."""
        lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        lock.release()

    def after_fork_in_child(self) -> None:
        """Go on as well: whatever thread has the lock, it is not here."""
        if lock.locked():
            lock.release()


_forking = _Forking()
process.around_fork(_forking)


PERIODIC_SUCCESS = Gauge(
    "asok_periodic_last_success_timestamp_seconds", "When a run for a tick has succeeded last, in Unix time.",
    ["task"], multiprocess_mode="max",
)  # fmt: skip
PERIODIC_SKIPPED = Counter("asok_periodic_skipped_total", "Ticks for which nothing ran.", ["task", "why"])


class QueueMeters:
    """The series of one queue."""

    def __init__(self, queue: str) -> None:
        self.oldest: Any = OLDEST.labels(queue)
        self.queued: Any = TASKS.labels(queue, "queued")
        self.running: Any = TASKS.labels(queue, "running")
        self.waiting: Any = TASKS.labels(queue, "waiting")
        self.threads: Any = THREADS.labels(queue)
        self.caller_runs: Any = CALLER_RUNS.labels(queue)


class TaskMeters:
    """The series of one function in one queue. Its methods are called with the `lock`."""

    def __init__(self, queue: str, name: str) -> None:
        self._queue, self._name = queue, name
        self._latency = LATENCY.labels(queue)
        self._duration = DURATION.labels(queue, name)
        self._retries = RETRIES.labels(queue, name)
        self._outcomes: dict[str, Any] = {}

    def started(self, latency: float) -> None:
        """Note that an attempt begins, so many seconds after it was due."""
        self._latency.observe(latency)

    def ended(self, started: float) -> None:
        """Note that the attempt that began at `started` has ended."""
        self._duration.observe(max(0.0, time.time() - started))

    def retried(self) -> None:
        """Note that another attempt follows."""
        self._retries.inc()

    def tick_succeeded(self) -> None:
        """Note that a run of a periodic task has succeeded."""
        PERIODIC_SUCCESS.labels(self._name).set(time.time())

    def settled(self, outcome: str) -> None:
        """Note the end of a task."""
        found = self._outcomes.get(outcome)
        if found is None:
            found = self._outcomes[outcome] = OUTCOMES.labels(self._queue, self._name, outcome)
        found.inc()


_names: set[str] = set()
_meters: dict[tuple[str, str], TaskMeters] = {}

EMPTY = math.inf
"""The timestamp of the oldest task of a queue that has none."""


def meters_of(queue: str, fn: Callable[..., Any]) -> TaskMeters:
    """Return the series of a function, of which there are few whatever the `name` option says."""
    name = label_of(fn)
    try:
        return _meters[queue, name]
    except KeyError:
        pass
    with lock:
        if name not in _names and len(_names) >= MOST_NAMES:
            name = "other"
        else:
            _names.add(name)
        if (queue, name) not in _meters:
            _meters[queue, name] = TaskMeters(queue, name)
        return _meters[queue, name]


def count_skip(fn: Callable[..., Any], why: str) -> None:
    """Count a tick of a periodic task for which nothing runs."""
    with lock:
        PERIODIC_SKIPPED.labels(label_of(fn), why).inc()
