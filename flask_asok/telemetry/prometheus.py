"""The metrics of Prometheus: one set for each process, whatever number of applications it has."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from weakref import WeakSet

import prometheus_client
from prometheus_client import Gauge
from prometheus_client.metrics_core import Metric

from .. import process
from ..summaries import SETTLED
from .labels import label_of

MOST_NAMES = 200
"""How many functions have series of their own; all further ones are `other`."""

WHY_SKIPPED = ("late", "overlap")
"""Why nothing runs for a tick of a periodic task."""

MOST_NOTED = 1000
"""How much of one function may wait to be written until Prometheus asks."""


class _Pending:
    """What asks for the metrics is told what was noted until then as well. Mixed into those that are noted first."""

    def collect(self) -> Iterable[Metric]:
        with writing:
            for meters in list(_meters.values()):
                meters.write()
        return super().collect()  # type: ignore[misc,no-any-return]


class Counter(_Pending, prometheus_client.Counter):
    """A counter of tasks."""


class Histogram(_Pending, prometheus_client.Histogram):
    """How long tasks take, or wait."""


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
PERIODIC_SUCCESS = Gauge(
    "asok_periodic_last_success_timestamp_seconds", "When a run for a tick has succeeded last, in Unix time.",
    ["task"], multiprocess_mode="max",
)  # fmt: skip
PERIODIC_SKIPPED = Counter("asok_periodic_skipped_total", "Ticks for which nothing ran.", ["task", "why"])


IS_MULTIPROCESS = any(name in os.environ for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"))
"""Does each process write files, which another one reads? The library decides when it is imported, in these words."""

EMPTY = math.inf
"""The timestamp of the oldest task of a queue that has none."""


class Written(Protocol):
    """What notes first, and is told to write then."""

    def write(self) -> None:
        """Write to the metrics what was noted, or has changed; called by one thread at a time."""


_lock = threading.Lock()
_pending: dict[Written, None] = {}


def write_soon(*those: Written) -> None:
    """
    Let `those` write: here and now, or in the thread that is just writing.

    No thread waits for another one: with many threads, each would hold up the next at every step of a task.
    """
    for one in those:
        _pending[one] = None
    # Again: a thread may have left it to this one just before this one let go of the lock.
    while _pending and _lock.acquire(blocking=False):
        try:
            while _pending:
                _pending.popitem()[0].write()
        finally:
            _lock.release()


class _Writing:
    """
    Hold off all other writes for a block, or for a fork, so that none of Prometheus' own locks is held then.

    What is noted meanwhile is written after it.
    """

    def __enter__(self) -> None:
        _lock.acquire()

    def __exit__(self, *_: object) -> None:
        _lock.release()
        write_soon()

    def before_fork(self) -> None:
        """Wait until no metric is being written."""
        self.__enter__()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.__exit__()

    def after_fork_in_child(self) -> None:
        """Go on, whatever thread has the lock: it is not here. What was noted is the parent's."""
        _pending.clear()
        for meters in _meters.values():
            meters.forget()
        if _lock.locked():
            _lock.release()


writing: _Writing = _Writing()
process.around_fork(writing)


class Depth(Protocol):
    """What is read off a worker pool: how many tasks it has, and since when the oldest one is due."""

    def oldest(self) -> float:
        """Return when the oldest queued task was due, or `EMPTY`."""

    def count(self, what: str) -> int:
        """Return how many are "queued", "running" or "waiting", or how many "threads" there are."""


class QueueMeters:
    """
    The series of one queue: of all worker pools of that name, should the process have several applications.

    Where this process is scraped itself, what a pool holds is read then, and costs a task nothing.
    """

    def __init__(self, queue: str) -> None:
        self._pools: WeakSet[Depth] = WeakSet()
        self.has_several: bool = False
        """Are there pools of several applications, so that it takes all of them to say how many tasks there are?"""
        self.oldest: Any = OLDEST.labels(queue)
        self.counts: dict[str, Any] = {state: TASKS.labels(queue, state) for state in ("queued", "running", "waiting")}
        self.counts["threads"] = THREADS.labels(queue)
        self.caller_runs: Any = CALLER_RUNS.labels(queue)
        if not IS_MULTIPROCESS:
            self.oldest.set_function(self.read_oldest)
            for what, meter in self.counts.items():
                meter.set_function(lambda what=what: self.read_count(what))

    def add(self, pool: Depth) -> None:
        """Measure this pool too, for as long as it lives."""
        self._pools.add(pool)
        self.has_several = self.has_several or len(self._pools) > 1

    def read_oldest(self) -> float:
        """Return when the oldest task of all pools was due."""
        return min((pool.oldest() for pool in self._pools), default=EMPTY)

    def read_count(self, what: str) -> int:
        """Return how many tasks or threads all pools have."""
        return sum(pool.count(what) for pool in self._pools)


class TaskMeters:
    """
    The series of one function in one queue.

    They are noted without a lock, to be written when Prometheus asks, or soon where it reads them in another process.
    """

    def __init__(self, queue: str, name: str) -> None:
        self._name = name
        # All from the start: Prometheus sees no increase in a series that begins with the first failure.
        self._counters: dict[str, Any] = {outcome: OUTCOMES.labels(queue, name, outcome) for outcome in sorted(SETTLED)}
        self._counters["retried"] = RETRIES.labels(queue, name)
        self._latencies: deque[float] = deque()
        self._durations: deque[float] = deque()
        self._ends: deque[str] = deque()
        self._noted: tuple[tuple[deque[Any], Callable[[Any], None]], ...] = (
            (self._latencies, LATENCY.labels(queue).observe),
            (self._durations, DURATION.labels(queue, name).observe),
            (self._ends, self._count),
        )

    def started(self, latency: float) -> None:
        """Note that an attempt begins, so many seconds after it was due."""
        self._latencies.append(latency)
        if len(self._latencies) > MOST_NOTED:
            write_soon(self)

    def ended(self, end: str, started: float) -> None:
        """Note the outcome of a task, or "retried"; `started` is when the attempt began that has ended, 0.0 if none."""
        if started:
            self._durations.append(max(0.0, time.time() - started))
        self._ends.append(end)
        if len(self._ends) > MOST_NOTED:
            write_soon(self)

    def tick_succeeded(self) -> None:
        """Write that a run of a periodic task succeeds: that is rare."""
        with writing:
            PERIODIC_SUCCESS.labels(self._name).set(time.time())
            for why in WHY_SKIPPED:
                PERIODIC_SKIPPED.labels(self._name, why)

    def write(self) -> None:
        """Write what was noted."""
        for values, write in self._noted:
            while values:
                write(values.popleft())

    def forget(self) -> None:
        """Forget what was noted."""
        for values, _ in self._noted:
            values.clear()

    def _count(self, end: str) -> None:
        self._counters[end].inc()


_names: set[str] = set()
_meters: dict[tuple[str, str], TaskMeters] = {}
_queues: dict[str, QueueMeters] = {}


def queue_meters(queue: str) -> QueueMeters:
    """Return the series of a queue."""
    with writing:
        if queue not in _queues:
            _queues[queue] = QueueMeters(queue)
        return _queues[queue]


def meters_of(queue: str, fn: Callable[..., Any]) -> TaskMeters:
    """Return the series of a function, of which there are few whatever the `name` option says."""
    name = label_of(fn)
    try:
        return _meters[queue, name]
    except KeyError:
        pass
    with writing:
        name = _one_of_few(name)
        if (queue, name) not in _meters:
            _meters[queue, name] = TaskMeters(queue, name)
        return _meters[queue, name]


def count_skip(fn: Callable[..., Any], why: str) -> None:
    """Count a tick of a periodic task for which nothing runs."""
    with writing:
        PERIODIC_SKIPPED.labels(_one_of_few(label_of(fn)), why).inc()


def _one_of_few(name: str) -> str:
    if name not in _names and len(_names) >= MOST_NAMES:
        return "other"
    _names.add(name)
    return name
