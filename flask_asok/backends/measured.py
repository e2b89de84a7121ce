"""Tasks and worker pools that write metrics: what backends use where `ASOK_METRICS` is set. Others pay nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, TypeVar

from ..attempt import RunnableTask
from ..calls import Parts
from ..options import Options
from ..summaries import State, TaskSummary
from ..telemetry.prometheus import EMPTY, IS_MULTIPROCESS, meters_of, queue_meters, write_soon, writing
from ..waiting import Runner
from .pool import WorkerPool
from .scheduler import Scheduler

if TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

R = TypeVar("R", covariant=True)


class MeasuredPool(WorkerPool):
    """A worker pool whose tasks are counted when Prometheus asks or, for another process to read, at each step."""

    def __init__(self, name: str, size: int, scheduler: Scheduler, timeouts: Scheduler) -> None:
        super().__init__(name, size, scheduler, timeouts)
        self.waiting: dict[RunnableTask[Any], None] = {}
        self._meters = queue_meters(name)
        self._meters.add(self)
        held = {"queued": self.queue, "running": self.running, "waiting": self.waiting, "threads": self.threads}
        self._held: tuple[tuple[str, Sized], ...] = tuple(held.items())
        # What was written last.
        self._oldest = -1.0
        self._counts = dict.fromkeys(held, -1)
        self.measure()

    def put(self, task: RunnableTask[Any]) -> None:
        """As on every pool."""
        if self.waiting:
            self.waiting.pop(task, None)
        super().put(task)
        # Else a thread takes it at once, and writes then.
        if IS_MULTIPROCESS and not self.idle and not self.free:
            self.measure()

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """As on every pool."""
        self.waiting[task] = None
        if task.call is None:
            # Cancelled meanwhile, by a receiver of `task_retried` for one.
            self.waiting.pop(task, None)
        super().wait(task, seconds)
        self.measure()

    def spawn(self) -> None:
        """As on every pool."""
        super().spawn()
        self.measure()

    def exit(self, number: int) -> None:
        """As on every pool."""
        super().exit(number)
        self.measure()

    def count_caller_run(self) -> None:
        """Count a task that its caller runs."""
        with writing:
            self._meters.caller_runs.inc()

    def forget(self, task: RunnableTask[Any]) -> None:
        """Leave a task out that was settled before it ran: it is in the queue until a worker finds it there."""
        self.waiting.pop(task, None)
        # It may be on its way out already.
        with contextlib.suppress(ValueError, IndexError):
            self.queue.remove(task)

    def oldest(self) -> float:
        """Return when the oldest queued task was due, or `EMPTY`."""
        try:
            # To a tenth of a second, for most tasks are as old as the one before.
            return int(self.queue[0].summary.due * 10) / 10
        except IndexError:
            return EMPTY

    def count(self, what: str) -> int:
        """Return how many are "queued", "running" or "waiting", or how many "threads" there are."""
        return len(dict(self._held)[what])

    def measure(self) -> None:
        """Write what has changed, if another process is to read it."""
        if IS_MULTIPROCESS:
            write_soon(self)

    def write(self) -> None:
        """Write what has changed; called by one thread at a time, so that the later one writes the later state."""
        meters, counts, queue = self._meters, self._counts, self.queue
        oldest = self.oldest() if queue else EMPTY
        if oldest != self._oldest:
            self._oldest = oldest
            meters.oldest.set(meters.read_oldest() if meters.has_several else oldest)
        for what, held in self._held:
            count = len(held)
            if count != counts[what]:
                counts[what] = count
                meters.counts[what].set(meters.read_count(what) if meters.has_several else count)


class MeasuredTask(RunnableTask[R]):
    """A task that is counted, and whose attempts are timed. Mixed into the class of a backend's tasks."""

    _started = 0.0
    """When the attempt began that is under way; 0.0 if none is."""

    def __init__(self, call: Parts, options: Options, summary: TaskSummary, runner: Runner, app: Flask) -> None:
        super().__init__(call, options, summary, runner, app)
        self._meters = meters_of(summary.queue, call[0])
        self._pool = runner if isinstance(runner, MeasuredPool) else None

    def settle(self, state: State, signal: NamedSignal, **kwargs: Any) -> None:
        """As on every task."""
        meters, pool, given_up = self._meters, self._pool, state in ("cancelled", "abandoned")
        if given_up and pool is not None:
            pool.forget(self)
        if self._summary.scheduled and state == "succeeded":
            meters.tick_succeeded()
        meters.ended(state, self._started)
        self._started = 0.0
        if IS_MULTIPROCESS:
            # A thread goes on with the next task, and writes how many there are then, unless there is none.
            if pool is None or (pool.queue and not given_up):
                write_soon(meters)
            else:
                write_soon(meters, pool)
        super().settle(state, signal, **kwargs)

    def _attempt(self, call: Parts) -> BaseException | None:
        summary = self._summary
        self._started = summary.started
        self._meters.started(summary.latency)
        if IS_MULTIPROCESS:
            if self._pool is None:
                write_soon(self._meters)
            else:
                write_soon(self._meters, self._pool)
        try:
            return super()._attempt(call)
        finally:
            # As in RunnableTask.
            del self, call

    def _put_back(self, call: Parts, seconds: float, error: BaseException | None) -> None:
        if error is not None:
            self._meters.ended("retried", self._started)
            if IS_MULTIPROCESS:
                write_soon(self._meters)
        self._started = 0.0
        super()._put_back(call, seconds, error)


def measured(task_class: type[RunnableTask[Any]]) -> type[RunnableTask[Any]]:
    """Return the class of a backend's tasks, measured."""
    return type(f"Measured{task_class.__name__}", (MeasuredTask, task_class), {})
