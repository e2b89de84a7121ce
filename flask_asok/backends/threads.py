"""Run tasks on a pool of threads in this process: the default."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextvars import Context
from typing import Any

from flask import Flask

from ..errors import QueueFull
from ..logs import log
from ..tasks import Task
from .base import Backend
from .clock import IDLE_SECONDS, Clock

# uWSGI, whose module is there only inside of it, forks without running the hooks of os.register_at_fork.
_FORKS_UNSEEN = "uwsgi" in sys.modules or not hasattr(os, "register_at_fork")


GRACE_SECONDS = 0.1
"""How long the end of a process waits without a word."""

MOST_NAMED = 5
"""Tasks that are named when the end of a process waits for them."""


class ThreadLane:
    """One queue and its own daemon threads, which come with the tasks and leave when there are none."""

    # No lock: a caller must never wait for one that a worker holds, across a fork least of all. Each step that two
    # threads could take at once is one atomic operation of a list, a dict or a deque. No SimpleQueue either: each get()
    # of one wakes a second waiter for nothing, which with ten idle threads costs more than the whole task.

    def __init__(self, name: str, size: int, clock: Clock, timeouts: Clock) -> None:
        self.name = name
        self.clock = clock
        self.timeouts = timeouts
        self.queue: deque[Task[Any]] = deque()
        self.running: dict[Task[Any], None] = {}
        self.threads: dict[int, threading.Thread] = {}
        self.free: list[int] = list(range(size, 0, -1))
        """Numbers of the threads that could be started yet: who pops one may start it."""
        self.parked: list[threading.Lock] = []
        """A held lock for each idle thread, the latest last: who pops one wakes it by releasing it."""
        self.token: list[bool] = [True]
        """Who pops it may wake or start a thread, which gives it back: one at a time, and each looks on."""
        self.closed: bool = False
        self.warned_at: float = float("-inf")

    def put(self, task: Task[Any]) -> None:
        """Queue `task`, then see to it that somebody will take it."""
        self.queue.append(task)
        if self.token and (self.parked or self.free):
            self.wake()

    def wake(self) -> None:
        """Wake the thread that was busy last, or start one, unless another is on its way."""
        try:
            self.token.pop()
        except IndexError:
            return
        try:
            self.parked.pop().release()
        except IndexError:
            self.hire()

    def watch(self, task: Task[Any], timeout: float) -> None:
        """Log where the attempt is when its timeout is over."""
        # Without a thread for the clock it goes unwatched: worse would be not to run it.
        with contextlib.suppress(RuntimeError):
            self.timeouts.at(timeout, _warn_of_timeout, task, weak=True)

    def wait(self, task: Task[Any], seconds: float) -> None:
        """Queue `task` after `seconds`; abandon it where there will be no such time."""
        if not self.clock.is_closed:
            try:
                self.clock.at(seconds, _queue_again, task)
            except RuntimeError as error:
                task.abandon(str(error))
        # Once more: it may have been closed, and drained, meanwhile.
        if self.clock.is_closed:
            task.abandon("the application shuts down")

    def hire(self) -> None:
        """Start one more thread, if there may be one more. It, or this, gives the token back."""
        try:
            number = self.free.pop()
        except IndexError:
            self.token.append(True)
            return
        thread = threading.Thread(target=_work, args=(self, number), name=f"asok-{self.name}-{number}", daemon=True)
        self.threads[number] = thread
        try:
            # In an empty context: a thread that inherits its starter's (free-threaded Python) would keep that alive.
            Context().run(thread.start)
        except RuntimeError:
            # No more threads to be had: the system's limit, or an interpreter that ends.
            self.token.append(True)
            self.leave(number)
            if not self.threads:
                self.run_queued()

    def leave(self, number: int) -> None:
        """Give a thread's number back."""
        self.threads.pop(number, None)
        self.free.append(number)

    def park(self, lock: threading.Lock) -> bool:
        """Wait in an idle thread, which holds `lock`, until there may be a task; False when none came for a while."""
        self.parked.append(lock)
        # First park, then look: who has put a task meanwhile may not have seen this thread.
        if self.queue or self.closed or not lock.acquire(timeout=IDLE_SECONDS):
            try:
                self.parked.remove(lock)
            except ValueError:
                # Somebody is just waking it.
                lock.acquire()
            else:
                return bool(self.queue)
        self.token.append(True)
        return True

    def drain(self) -> Iterator[Task[Any]]:
        """Take out what is queued."""
        while self.queue:
            with contextlib.suppress(IndexError):
                yield self.queue.popleft()

    def unfinished(self) -> list[str]:
        """Return the names of the tasks that run, then of those that are queued."""
        return [task.name for task in (*self.running.copy(), *self.queue.copy())]

    def run_queued(self) -> None:
        """Run in this very thread what is queued."""
        for task in self.drain():
            if task.summary.state == "queued":
                task.perform(threading.current_thread())

    def close(self) -> None:
        """Have each thread leave as soon as nothing is queued."""
        self.closed = True
        while self.parked:
            with contextlib.suppress(IndexError):
                self.parked.pop().release()


def _work(lane: ThreadLane, number: int) -> None:
    """Perform tasks until there are none for a while. Holds no task, hence no app, while it waits."""
    thread = threading.current_thread()
    lock = threading.Lock()
    lock.acquire()
    take, queue = lane.queue.popleft, lane.queue
    lane.token.append(True)
    try:
        while True:
            # Before one is taken: starting a thread takes long, and a shutdown names what it finds queued or running.
            if len(queue) > 1 and lane.token and (lane.parked or lane.free):
                lane.wake()
            try:
                task = take()
            except IndexError:
                if not lane.park(lock):
                    return
            else:
                # Not so where it was run in place of another task, and waits for its retry by now.
                if task.summary.state == "queued":
                    task.perform(thread)
                del task
    finally:
        lane.leave(number)
        if queue:
            # First leave, then look: who has put a task meanwhile may have counted on this thread.
            lane.wake()


def _queue_again(task: Task[Any], attempt: int) -> None:
    """Put a task that has waited into its queue, whose bound it passes: it was accepted long ago."""
    lane = task.lane
    assert isinstance(lane, ThreadLane)
    if task.requeue():
        lane.put(task)
        task.wake()


def _warn_of_timeout(task: Task[Any], attempt: int) -> None:
    """Log where a task is that runs for longer than its timeout: a thread cannot be killed."""
    if task.attempts != attempt or task not in task.lane.running or task.ident is None:
        return
    frame = sys._current_frames().get(task.ident)
    stack = "".join(traceback.format_stack(frame)).rstrip() if frame else "unknown"
    log(
        logging.WARNING, "Background task %s (%s) has run past its timeout of %g s, and still is at:\n%s",
        task.name, task.id, task.options.timeout, stack, app=task.app, extra=task.log_fields(),
    )  # fmt: skip


class ThreadsBackend(Backend):
    """
    Workers of this process. Nothing is made before the first task of a process, so a fork finds nothing to break.

    Each queue holds at most `ASOK_MAX_QUEUED` tasks, past which the caller runs the task itself or, where
    `ASOK_QUEUE_FULL` is "raise", gets QueueFull. At most `ASOK_MAX_WAITING` wait for a delay or a retry.
    """

    name = "threads"

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.shutdown_timeout: float = config["ASOK_SHUTDOWN_TIMEOUT"]
        self._max_queued: int = config["ASOK_MAX_QUEUED"]
        self._max_waiting: int = config["ASOK_MAX_WAITING"]
        self._raise_when_full = config["ASOK_QUEUE_FULL"] == "raise"
        self._closed = False
        self._pid = os.getpid()
        self._lanes: dict[str, ThreadLane] = {}
        self._clock = Clock()
        # One of their own: most tasks are done long before, and must not count among those that wait.
        self._timeouts = Clock()
        _backends.add(self)

    def lane(self, queue: str) -> ThreadLane:
        """Return the lane of `queue`, made at the first task of this process."""
        if _FORKS_UNSEEN and self._pid != os.getpid():
            self.forget()
        try:
            return self._lanes[queue]
        except KeyError:
            if not self._lanes:
                weakref.finalize(self, _dismiss, self._lanes, self._clock, self._timeouts).atexit = False
            lane = self._lanes.setdefault(queue, ThreadLane(queue, self.queues[queue], self._clock, self._timeouts))
            if self._closed:
                lane.closed = True
            return lane

    def start(self, task: Task[Any], *, bounded: bool = True) -> None:
        """
        Queue `task`, or have it wait for its delay; a full queue and a closed backend make the caller run it.

        A delay that a closed backend cannot wait for abandons the task: to run it too early may be worse.
        """
        lane = task.lane
        assert isinstance(lane, ThreadLane)
        options = task.options
        if options.delay:
            self._wait_for_delay(task, lane, bounded)
        elif self._closed:
            self._run_here(task)
        elif bounded and len(lane.queue) >= self._max_queued:
            self._overflow(task, lane)
        else:
            lane.put(task)

    def close(self, timeout: float | None = None) -> None:
        """Finish within `timeout` seconds (None: `ASOK_SHUTDOWN_TIMEOUT`) what is queued and running; log the rest."""
        _close([self], timeout)

    def alive(self) -> list[Task[Any]]:
        """Return the tasks that are queued, running or waiting for a delay or a retry."""
        lanes = list(self._lanes.values())
        return [task for lane in lanes for task in (*lane.queue.copy(), *lane.running.copy())] + self._clock.waiting()

    def forget(self) -> None:
        """Leave to the parent, in a forked child, the parent's tasks: here they are abandoned."""
        for lane in self._lanes.values():
            for task in (*lane.drain(), *lane.running):
                task.lose()
        for task in self._clock.drain():
            task.lose()
        # Nothing is made in their place yet: gevent may patch threads and locks after this.
        self._pid = os.getpid()
        self._lanes = {}
        self._clock = Clock()
        self._timeouts = Clock()
        self._closed = False

    def _wait_for_delay(self, task: Task[Any], lane: ThreadLane, bounded: bool) -> None:
        # A task that was held has nobody left to tell that there is no room.
        if bounded and task.options.when == "now" and self._clock.holds(self._max_waiting):
            self._refuse(
                task,
                f"{self._max_waiting} tasks wait for a delay or a retry already (ASOK_MAX_WAITING)",
            )
        if task.postpone():
            lane.wait(task, task.options.delay)

    def _overflow(self, task: Task[Any], lane: ThreadLane) -> None:
        full = f"Queue {lane.name!r} holds {self._max_queued} tasks (ASOK_MAX_QUEUED)"
        if self._raise_when_full and task.options.when == "now":
            self._refuse(task, full)
        now = time.monotonic()
        if now - lane.warned_at >= 1:
            lane.warned_at = now
            log(logging.WARNING, "%s: background task %s runs in its caller.", full, task.name, app=task.app)
        self._run_here(task)

    def _refuse(self, task: Task[Any], why: str) -> None:
        task.withdraw(None)
        raise QueueFull(f"{why}; task {task.name} was not accepted.")

    def _run_here(self, task: Task[Any]) -> None:
        error = task.perform(threading.current_thread())
        if error is not None and not isinstance(error, Exception):
            # Ctrl-C, gunicorn's SystemExit and gevent's timeouts are meant for this very thread.
            raise error


_backends: weakref.WeakSet[ThreadsBackend] = weakref.WeakSet()


def _dismiss(lanes: dict[str, ThreadLane], *clocks: Clock) -> None:
    """Let the idle threads of an application that is gone leave at once. Waits for none: it is a garbage collection."""
    for lane in lanes.values():
        lane.close()
    for clock in clocks:
        clock.dismiss()


def _close(backends: list[ThreadsBackend], timeout: float | None = None, *, at_exit: bool = False) -> None:
    """Close all together: each gets its whole time, and the last one does not wait for the first."""
    started = time.monotonic()
    interrupted: BaseException | None = None
    try:
        for backend in backends:
            backend._closed = True
            backend._clock.close()
            backend._timeouts.close()
            for lane in list(backend._lanes.values()):
                lane.close()
        if at_exit:
            _tell_of_wait(backends, started)
    except BaseException as error:  # a second Ctrl-C already: nothing is waited for
        interrupted, started = error, float("-inf")
    for backend in backends:
        for task in backend._clock.drain():
            task.abandon("the application shuts down")
    for backend in backends:
        seconds = backend.shutdown_timeout if timeout is None else timeout
        for lane in list(backend._lanes.values()):
            try:
                _finish(lane, started + seconds)
            except BaseException as error:  # a second Ctrl-C: the rest is abandoned now
                interrupted, started = error, float("-inf")
            why = f"not finished {seconds:g} s after the shutdown began"
            if interrupted is not None:
                why = "the shutdown was interrupted"
            elif timeout is None:
                why += " (ASOK_SHUTDOWN_TIMEOUT)"
            for task in lane.drain():
                task.abandon(why)
            for task in list(lane.running):
                task.abandon(why)
    if interrupted is not None:
        raise interrupted


def _tell_of_wait(backends: list[ThreadsBackend], started: float) -> None:
    """Say at once what the process waits for before it ends: else that looks as if it hung."""
    reloads = os.environ.get("WERKZEUG_RUN_MAIN") == "true"
    waiting = [backend for backend in backends if backend.shutdown_timeout]
    lanes = [(lane, backend.shutdown_timeout) for backend in waiting for lane in list(backend._lanes.values())]
    if not reloads:
        # Most are done by then, and nobody wants to read of them.
        for lane, seconds in lanes:
            _finish(lane, started + min(seconds, GRACE_SECONDS))
    unfinished = [(lane.unfinished(), seconds) for lane, seconds in lanes]
    names = [name for of_lane, _ in unfinished for name in of_lane]
    if not names:
        return
    if reloads:
        # It kills this process a quarter of a second after Ctrl-C: what is lost is told before it is.
        how = "; after Ctrl-C the reloader does not wait, and what has not finished by then is lost"
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        how = "; Ctrl-C again to quit"
    else:
        how = ""
    log(
        logging.WARNING, "Waiting up to %g s for %s %s (%s%s)%s.",
        max(seconds for of_lane, seconds in unfinished if of_lane), len(names), "task" if len(names) == 1 else "tasks",
        ", ".join(names[:MOST_NAMED]), f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "", how,
    )  # fmt: skip


def _finish(lane: ThreadLane, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        # Looked up each time: a worker that found more to do may have started one more.
        thread = next((other for other in list(lane.threads.values()) if other is not threading.current_thread()), None)
        if thread is None:
            # Whoever saw the backend open may have queued a task after the last thread had left.
            lane.run_queued()
            return
        if thread.is_alive():
            thread.join(left)
        else:
            # Just being started, and not to be joined before it is.
            time.sleep(min(left, 0.001))


def _close_at_exit() -> None:
    open_here = [backend for backend in _backends if not backend._closed and backend._pid == os.getpid()]
    # The tasks that are left have been named; Ctrl-C pressed again has nothing more to say.
    with contextlib.suppress(KeyboardInterrupt):
        _close(open_here, at_exit=True)


def _forget_in_child() -> None:
    for backend in _backends:
        backend.forget()


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
