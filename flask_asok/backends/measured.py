"""Tasks and worker pools that write metrics: what backends use where `ASOK_METRICS` is set. Others pay nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from ..attempt import RunnableTask
from ..calls import Parts
from ..options import Options
from ..summaries import State, TaskSummary
from ..telemetry.prometheus import EMPTY, QueueMeters, lock, meters_of
from ..waiting import Runner
from .pool import WorkerPool
from .scheduler import Scheduler

if TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

R = TypeVar("R", covariant=True)


class MeasuredPool(WorkerPool):
    """A worker pool that writes down, at each step of a task, how many tasks it has and how old the oldest one is."""

    def __init__(self, name: str, size: int, scheduler: Scheduler, timeouts: Scheduler) -> None:
        super().__init__(name, size, scheduler, timeouts)
        self.waiting: dict[RunnableTask[Any], None] = {}
        with lock:
            self._meters = QueueMeters(name)
        # What was written last.
        self._oldest = -1.0
        self._queued = self._running = self._waiting = self._threads = -1
        self.measure()

    def put(self, task: RunnableTask[Any]) -> None:
        """As on every pool."""
        if self.waiting:
            self.waiting.pop(task, None)
        super().put(task)
        # Else a thread takes it at once, and writes then.
        if not self.idle and not self.free:
            self.measure()

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """As on every pool."""
        self.waiting[task] = None
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
        with lock:
            self._meters.caller_runs.inc()

    def forget(self, task: RunnableTask[Any]) -> None:
        """Leave a task out that was settled before it ran: it is in the queue until a worker finds it there."""
        self.waiting.pop(task, None)
        # It may be on its way out already.
        with contextlib.suppress(ValueError, IndexError):
            self.queue.remove(task)

    def measure(self) -> None:
        """Write what has changed."""
        with lock:
            self.write()

    def write(self) -> None:
        """Do so with the `lock`."""
        meters, queue = self._meters, self.queue
        # To a tenth of a second, for most tasks are as old as the one before.
        try:
            oldest = int(queue[0].summary.due * 10) / 10
        except IndexError:
            oldest = EMPTY
        if oldest != self._oldest:
            self._oldest = oldest
            meters.oldest.set(oldest)
        if (queued := len(queue)) != self._queued:
            self._queued = queued
            meters.queued.set(queued)
        if (running := len(self.running)) != self._running:
            self._running = running
            meters.running.set(running)
        if (waiting := len(self.waiting)) != self._waiting:
            self._waiting = waiting
            meters.waiting.set(waiting)
        if (threads := len(self.threads)) != self._threads:
            self._threads = threads
            meters.threads.set(threads)


class MeasuredTask(RunnableTask[R]):
    """A task that is counted, and whose attempts are timed. Mixed into the class of a backend's tasks."""

    _began = False

    def __init__(self, call: Parts, options: Options, summary: TaskSummary, runner: Runner, app: Flask) -> None:
        super().__init__(call, options, summary, runner, app)
        self._meters = meters_of(summary.queue, call[0])

    def settle(self, state: State, signal: NamedSignal, **kwargs: Any) -> None:
        """As on every task."""
        pool = self.runner if isinstance(self.runner, MeasuredPool) else None
        if pool is not None and state in ("cancelled", "abandoned"):
            pool.forget(self)
        with lock:
            self._end()
            self._meters.settled(state)
            if self.summary.scheduled and state == "succeeded":
                self._meters.tick_succeeded()
            # A thread goes on with the next task, and writes then, unless there is none.
            if pool is not None and (not pool.queue or state in ("cancelled", "abandoned")):
                pool.write()
        super().settle(state, signal, **kwargs)

    def _attempt(self, call: Parts) -> BaseException | None:
        self._began = True
        with lock:
            self._meters.started(self.summary.latency)
            if isinstance(self.runner, MeasuredPool):
                self.runner.write()
        try:
            return super()._attempt(call)
        finally:
            # As in RunnableTask.
            del self, call

    def _wait_for_turn(self, call: Parts, seconds: float, error: BaseException | None) -> None:
        with lock:
            if error is not None:
                self._end()
                self._meters.retried()
            self._began = False
        super()._wait_for_turn(call, seconds, error)

    def _end(self) -> None:
        if self._began:
            self._began = False
            self._meters.ended(self.summary.started)


def measured(task_class: type[RunnableTask[Any]]) -> type[RunnableTask[Any]]:
    """Return the class of a backend's tasks, measured."""
    return type(f"Measured{task_class.__name__}", (MeasuredTask, task_class), {})
