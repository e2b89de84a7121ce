"""The threads of one queue, in this process."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import Context
from typing import Any

from ..attempt import RunnableTask
from ..baton import Baton
from ..task_log import SHUTS_DOWN, log_of, log_timeout
from ..waiting import threads_that_wait
from .scheduler import IDLE_SECONDS, Scheduler


class WorkerPool:
    """One queue and its own daemon threads, the workers, which come with the tasks and exit when there are none."""

    # No lock: a caller must never wait for one that a worker holds, across a fork least of all. Each step that two
    # threads could take at once is one atomic operation of a list, a dict or a deque. No SimpleQueue either: each get()
    # of one wakes a second waiter for nothing, which with ten idle threads costs more than the whole task.

    def __init__(self, name: str, size: int, scheduler: Scheduler, timeouts: Scheduler) -> None:
        self.name = name
        self.scheduler = scheduler
        self.timeouts = timeouts
        self.queue: deque[RunnableTask[Any]] = deque()
        self.running: dict[RunnableTask[Any], Any] = {}
        self.threads: dict[int, threading.Thread] = {}
        self.free: list[int] = list(range(size, 0, -1))
        """The numbers of the workers that could still be started: popping one is the right to start it."""
        self.idle: list[threading.Lock] = []
        """A locked lock for each idle worker, the latest last: popping one is the right to wake it, by releasing it."""
        self.baton: Baton = Baton()
        """Its holder may wake or start one worker, which puts it back; so workers are added one at a time."""
        self.closed: bool = False
        self.warned_at: float = float("-inf")
        """When it was last logged that the queue is full, by the monotonic clock."""

    def put(self, task: RunnableTask[Any]) -> None:
        """Queue `task`, and make sure a worker picks it up."""
        self.queue.append(task)
        if self.baton and (self.idle or self.free):
            self.wake()

    def wake(self) -> None:
        """Wake the worker that was busy last, or start one, unless another is on its way."""
        if not self.baton.take():
            return
        try:
            self.idle.pop().release()
        except IndexError:
            self.spawn()

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Log where the attempt is when its timeout is over."""
        # Unwatched if the scheduler gets no thread: not to run the task would be worse.
        with contextlib.suppress(RuntimeError):
            self.timeouts.at(timeout, warn_of_timeout, task, weak=True)

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Queue `task` after `seconds`; abandon it if the application shuts down before."""
        task.summary.due = time.time() + seconds
        if not self.scheduler.is_closed:
            try:
                self.scheduler.at(seconds, _queue_again, task)
            except RuntimeError as error:
                task.abandon(str(error))
                if task.goes_on:
                    log_of(
                        task, logging.WARNING, "Background task %s (%s) is left to any process of the application: %s",
                        task.name, task.id, error,
                    )  # fmt: skip
        # Again: it may have been closed, and drained, meanwhile.
        if self.scheduler.is_closed:
            task.abandon(SHUTS_DOWN)

    def count_caller_run(self) -> None:
        """Count a task that its caller runs, for the queue is full; see `measured.py`."""

    def spawn(self) -> None:
        """Start one more worker, if there may be one more. The worker, or else this, puts the baton back."""
        try:
            number = self.free.pop()
        except IndexError:
            self.baton.put_back()
            return
        thread = threading.Thread(target=_work, args=(self, number), name=f"asok-{self.name}-{number}", daemon=True)
        self.threads[number] = thread
        try:
            # In an empty context: a thread that inherits its starter's (free-threaded Python) would keep that alive.
            Context().run(thread.start)
        except RuntimeError:
            # The system, or an interpreter that shuts down, refuses to start a thread.
            self.baton.put_back()
            self.exit(number)
            if not self.threads:
                self.run_queued()

    def exit(self, number: int) -> None:
        """Give a worker's number back."""
        self.threads.pop(number, None)
        self.free.append(number)

    def wait_idle(self, lock: threading.Lock) -> bool:
        """Wait in an idle worker, which holds `lock`, until there may be a task; False if none came for a while."""
        self.idle.append(lock)
        # First wait, then look: a caller that has put a task meanwhile may not have seen this worker.
        if self.queue or self.closed or not lock.acquire(timeout=IDLE_SECONDS):
            try:
                self.idle.remove(lock)
            except ValueError:
                # Another thread is just waking it.
                lock.acquire()
            else:
                return bool(self.queue)
        self.baton.put_back()
        return True

    def drain(self) -> Iterator[RunnableTask[Any]]:
        """Remove and return the queued tasks."""
        while self.queue:
            with contextlib.suppress(IndexError):
                yield self.queue.popleft()

    def unfinished(self) -> list[RunnableTask[Any]]:
        """Return the tasks that run, then those that are queued."""
        return [*self.running.copy(), *self.queue.copy()]

    def run_queued(self) -> None:
        """Run the queued tasks while the calling thread waits."""
        for task in self.drain():
            task.perform_aside()

    def close(self) -> None:
        """Let every worker exit once the queue is empty."""
        self.closed = True
        while self.idle:
            with contextlib.suppress(IndexError):
                self.idle.pop().release()

    def finish(self, deadline: float, but: Iterable[int | None] = ()) -> None:
        """Wait, until `deadline` by the monotonic clock, for the workers of a closed pool to exit, `but` for some."""
        spared = {threading.get_ident(), *threads_that_wait(), *but}
        while (left := min(deadline - time.monotonic(), threading.TIMEOUT_MAX)) > 0:
            # Looked up each time: a worker that found more to do may have started one more.
            others = (thread for thread in list(self.threads.values()) if thread.ident not in spared)
            thread = next(others, None)
            if thread is not None:
                if thread.is_alive():
                    thread.join(left)
                else:
                    # It is just being started, and cannot be joined before it is.
                    time.sleep(min(left, 0.001))
                continue
            # In no worker, but beside its caller, or beside a task of another queue that has joined it.
            guest = next((task for task in self.running.copy() if task.ident not in spared), None)
            if guest is None:
                # A caller that saw the backend open may have queued a task after the last worker had exited.
                self.run_queued()
                return
            with contextlib.suppress(RuntimeError):  # a circle of joins after all
                guest.join(left)
            if guest in self.running:
                spared.add(guest.ident)


def _work(pool: WorkerPool, number: int) -> None:
    """Perform tasks until there are none for a while. Holds no task, hence no app, while it waits."""
    thread = threading.current_thread()
    lock = threading.Lock()
    lock.acquire()
    take, queue = pool.queue.popleft, pool.queue
    pool.baton.put_back()
    try:
        while True:
            # Before a task is taken: starting a thread takes long, and a shutdown names queued and running tasks.
            if len(queue) > 1 and pool.baton and (pool.idle or pool.free):
                pool.wake()
            try:
                task = take()
            except IndexError:
                if not pool.wait_idle(lock):
                    return
            else:
                task.perform(thread)
                del task
    finally:
        pool.exit(number)
        if queue:
            # First exit, then look: a caller that has put a task meanwhile may have counted on this worker.
            pool.wake()


def _queue_again(task: RunnableTask[Any], attempt: int) -> None:
    """Put a task that has waited into its queue, past its bound: the task was accepted long ago."""
    pool = task.runner
    assert isinstance(pool, WorkerPool)
    if task.requeue():
        pool.put(task)
        task.wake()


def warn_of_timeout(task: RunnableTask[Any], attempt: int) -> None:
    """Log where a task is that runs for longer than its timeout: a thread cannot be killed."""
    around = task.runner.running.get(task)
    if task.attempts != attempt or around is None or task.ident is None:
        return
    frame = sys._current_frames().get(task.ident)
    stack = "".join(traceback.format_stack(frame)).rstrip() if frame else "unknown"
    # The attempt's own context is entered in its own thread.
    around.copy().run(log_timeout, task, task.options.timeout, stack)
