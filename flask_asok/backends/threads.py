"""Run tasks on a pool of threads in this process: the default."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from .. import process
from ..attempt import RunnableTask, running_task
from ..errors import QueueFull
from ..task_log import SHUTS_DOWN, log_of
from ..waiting import waiting_for
from . import shutdown
from .base import Backend
from .pool import WorkerPool
from .scheduler import Scheduler

MOST_NESTED = 20
"""How many tasks may run, each in the caller of the next, before one passes the bound of its queue instead."""


class ThreadsBackend(Backend):
    """
    Workers of this process. Nothing is made before the first task of a process, so a fork finds nothing to break.

    Each queue holds at most `ASOK_MAX_QUEUED` tasks, past which the caller runs the task itself or, where
    `ASOK_QUEUE_FULL` is "raise", gets QueueFull. At most `ASOK_MAX_WAITING` wait for a delay or a retry.
    """

    name = "threads"

    now: Callable[[], float] = staticmethod(time.monotonic)
    """The time that delays, retries and timeouts go by."""

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.shutdown_timeout: float = config["ASOK_SHUTDOWN_TIMEOUT"]
        self._max_queued: int = config["ASOK_MAX_QUEUED"]
        self._max_waiting: int = config["ASOK_MAX_WAITING"]
        self._raise_when_full = config["ASOK_QUEUE_FULL"] == "raise"
        self._pool_class = WorkerPool
        if config.get("ASOK_METRICS"):
            from .measured import MeasuredPool

            self._pool_class = MeasuredPool
        self._begin_anew()
        _backends.add(self)

    def runner(self, queue: str) -> WorkerPool:
        """Return the workers of `queue`, made at the first task of this process."""
        if process.FORKS_UNSEEN:
            process.renew()
        try:
            return self.pools[queue]
        except KeyError:
            if not self.pools:
                process.end_before_executors()
                weakref.finalize(self, _dismiss, self.pools, self.scheduler, self.timeouts).atexit = False
            pool = self._pool_class(queue, self.queues[queue], self.scheduler, self.timeouts)
            pool = self.pools.setdefault(queue, pool)
            if self.is_closed:
                pool.closed = True
            return pool

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """
        Queue `task`, or let it wait for its delay; with a full queue, or a closed backend, the caller runs it.

        A delay that a closed backend cannot wait for abandons the task: to run it too early may be worse.
        """
        pool = task.runner
        assert isinstance(pool, WorkerPool)
        options = task.options
        if options.delay:
            self._wait_for_delay(task, pool, bounded)
        elif self.is_closed:
            self._run_at_end(task)
        elif bounded and len(pool.queue) >= self._max_queued:
            self._overflow(task, pool)
        else:
            pool.put(task)

    def stop(self) -> None:
        """Accept no task any more, and let the threads exit once nothing is queued."""
        self.is_closed = True
        self.scheduler.close()
        self.timeouts.close()
        for pool in list(self.pools.values()):
            pool.close()

    def close(self, timeout: float | None = None) -> None:
        """Finish within `timeout` seconds (None: `ASOK_SHUTDOWN_TIMEOUT`) queued and running tasks; log the rest."""
        process.renew()
        shutdown.close([self], timeout)

    def alive(self) -> list[RunnableTask[Any]]:
        """Return the tasks that are queued, running or waiting for a delay or a retry."""
        process.renew()
        pools = list(self.pools.values())
        return [
            task for pool in pools for task in (*pool.queue.copy(), *pool.running.copy())
        ] + self.scheduler.waiting()

    def forget(self) -> None:
        """Leave the parent's tasks to the parent, in a forked child: here they are abandoned."""
        for pool in self.pools.values():
            for task in (*pool.drain(), *pool.running):
                task.mark_abandoned()
        # One that a thread of the parent has between two steps is in none of the other lists.
        for task in (*self.scheduler.drain(), *self.unsettled()):
            task.mark_abandoned()
        self._begin_anew()

    def _begin_anew(self) -> None:
        # No thread and no lock yet: gevent may patch them after this.
        self.is_closed: bool = False
        self.pools: dict[str, WorkerPool] = {}
        self.scheduler: Scheduler = Scheduler(now=self.now)
        # One of their own: most tasks are done long before, and must not count among those that wait.
        self.timeouts: Scheduler = Scheduler(now=self.now)

    def _wait_for_delay(self, task: RunnableTask[Any], pool: WorkerPool, bounded: bool) -> None:
        # The caller of a deferred task is gone: nobody could catch QueueFull.
        if bounded and not task.options.is_deferred and self.scheduler.count(self._max_waiting) >= self._max_waiting:
            self._refuse(
                task,
                f"{self._max_waiting} tasks wait for a delay or a retry already (ASOK_MAX_WAITING)",
            )
        if task.postpone():
            pool.wait(task, task.options.delay)

    def _overflow(self, task: RunnableTask[Any], pool: WorkerPool) -> None:
        full = f"Queue {pool.name!r} holds {self._max_queued} tasks (ASOK_MAX_QUEUED)"
        if self._raise_when_full and not task.options.is_deferred:
            self._refuse(task, full)
        if nesting() >= MOST_NESTED:
            # A chain, in which each task starts the next one: to go on would hold a thread for each.
            pool.put(task)
            return
        pool.count_caller_run()
        now = time.monotonic()
        if now - pool.warned_at >= 1:
            pool.warned_at = now
            log_of(task, logging.WARNING, "%s: background task %s runs in its caller.", full, task.name)
        self._run_here(task)

    def _refuse(self, task: RunnableTask[Any], why: str) -> None:
        task.withdraw(None)
        raise QueueFull(f"{why}; task {task.name} was not accepted.")

    def _run_at_end(self, task: RunnableTask[Any]) -> None:
        if nesting() >= MOST_NESTED:
            # As above, but no worker is left: a chain that never ends would take all threads of the system.
            self.abandon(task, SHUTS_DOWN)
        else:
            self._run_here(task)

    def _run_here(self, task: RunnableTask[Any]) -> None:
        task.nesting = nesting() + 1
        # As if the caller joined it: a task that joins its caller gets an error, not a wait without end.
        with waiting_for(task):
            error = task.perform_aside()
        if error is not None and not isinstance(error, Exception):
            # Ctrl-C, gunicorn's SystemExit and gevent's timeouts are meant for this thread.
            raise error


def nesting() -> int:
    """Return how many tasks, of which each runs in the caller of the next, lead to this code."""
    caller = running_task()
    return 0 if caller is None else caller.nesting


_backends: weakref.WeakSet[ThreadsBackend] = weakref.WeakSet()


def _dismiss(pools: dict[str, WorkerPool], *schedulers: Scheduler) -> None:
    """Let the idle threads of an application that is gone exit at once. Waits for none: it is a garbage collection."""
    for pool in pools.values():
        pool.close()
    for scheduler in schedulers:
        scheduler.stop()


def _close_at_exit() -> None:
    try:
        _close_open()
    except BaseException:
        # Ctrl-C, perhaps before the first step was made. Otherwise all are closed by now, and this is over at once.
        _close_open()
        raise


def _close_open() -> None:
    shutdown.close([backend for backend in _backends if not backend.is_closed], at_exit=True)


def _forget_in_child() -> None:
    for backend in _backends:
        backend.forget()


process.at_exit(_close_at_exit)
process.after_fork(_forget_in_child)
