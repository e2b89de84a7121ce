"""The timer of the threads backend: delays, retries and timeouts wait here and hold no worker."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from typing import Any

from ..logs import log_exception
from ..tasks import Task

IDLE_SECONDS = 10.0
"""How long a thread with nothing to do stays."""

TIDY_SECONDS = 1.0
"""How long a clock that is full waits before it looks once more for tasks that were cancelled."""

MOST_STALE = 1_000
"""Entries of tasks that are over, besides as many as there are others, that the heap keeps before it is tidied."""

Action = Callable[[Task[Any], int], None]
Entry = tuple[float, int, Action, int]
"""When, the entry's number, what, and in which of the task's attempts."""


class Clock:
    """
    Call an action on a task when its time has come, in one thread that is there only while something waits.

    Callers hand entries over through a queue; only the thread touches the heap, so nothing is locked.
    """

    _inbox: queue.SimpleQueue[Entry | None] | None = None

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heap: list[Entry] = []
        self._numbers = itertools.count()
        self._tasks: dict[int, tuple[float, Callable[[], Task[Any] | None]]] = {}
        """When, and a reference to the task, for each entry that waits, by number; who pops one has taken it out."""
        self._free = [True]
        """Who pops it may start the thread."""
        self._thread: threading.Thread | None = None
        self.is_closed: bool = False
        """Once True, `drain` may have been through: who calls `at` looks after that whether the clock is closed."""
        self._tidied_at = float("-inf")

    def __len__(self) -> int:
        return len(self._tasks)

    def waiting(self) -> list[Task[Any]]:
        """Return the tasks that wait."""
        tasks = [reference() for _, reference in list(self._tasks.values())]
        return [task for task in tasks if task is not None]

    def holds(self, bound: int) -> bool:
        """Do `bound` tasks wait here, those not counted that were cancelled meanwhile?"""
        if len(self) < bound:
            return False
        now = self._now()
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            for number, (_, reference) in list(self._tasks.items()):
                task = reference()
                if task is None or task.state != "waiting":
                    self._tasks.pop(number, None)
            self.wake()
        return len(self) >= bound

    def at(self, seconds: float, action: Action, task: Task[Any], *, weak: bool = False) -> None:
        """
        Call `action(task, attempt)` in `seconds` from now, `attempt` being the one of this moment.

        With `weak` the clock does not keep the task alive for that, and forgets it with the task.
        """
        # Made by the first entry, and not with the clock: gevent may patch the class after the app is made and forked.
        inbox = self._inbox or self.__dict__.setdefault("_inbox", queue.SimpleQueue())
        due, number = self._now() + seconds, next(self._numbers)
        reference = weakref.ref(task, partial(self._tasks.pop, number)) if weak else partial(_itself, task)
        self._tasks[number] = due, reference
        inbox.put((due, number, action, task.attempts))
        if self._free and not self.is_closed:
            self._start()

    def wake(self) -> None:
        """Look at the time again."""
        if self._inbox is not None:
            self._inbox.put(None)

    def dismiss(self) -> None:
        """Have the thread leave; what still waits stays for `drain`."""
        self.is_closed = True
        self.wake()

    def close(self) -> None:
        """Dismiss the thread, and wait until it has left."""
        self.dismiss()
        thread = self._thread
        # One that is not alive is over, or just being started: then it will find the clock closed.
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(1)

    def drain(self) -> Iterable[Task[Any]]:
        """Take out every task that waits, the next one first. For a closed clock, or one that was lost in a fork."""
        waiting, self._tasks = self._tasks, {}
        tasks = [reference() for _, reference in sorted(waiting.values(), key=lambda each: each[0])]
        return [task for task in tasks if task is not None and task.state == "waiting"]

    def _start(self) -> None:
        try:
            self._free.pop()
        except IndexError:
            return
        self._thread = threading.Thread(target=self._run, name="asok-clock", daemon=True)
        try:
            Context().run(self._thread.start)
        except RuntimeError:
            self._free.append(True)
            raise

    def _run(self) -> None:
        try:
            while not self.is_closed and self._turn():
                pass
        finally:
            # First leave, then look, as the workers do.
            self._free.append(True)
            if self._inbox is not None and self._inbox.qsize() and not self.is_closed:
                self._start()

    def _turn(self) -> bool:
        """Wait for the next entry or the next due time, then do what is due; False after idling."""
        heap, inbox = self._heap, self._inbox
        assert inbox is not None
        timeout = heap[0][0] - self._now() if heap else IDLE_SECONDS
        try:
            entry = inbox.get(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        except queue.Empty:
            if not heap:
                return False
        else:
            if entry is not None:
                heapq.heappush(heap, entry)
        if len(heap) > 2 * len(self._tasks) + MOST_STALE:
            heap[:] = [entry for entry in heap if entry[1] in self._tasks]
            heapq.heapify(heap)
        while heap and heap[0][0] <= self._now() and not self.is_closed:
            due, number, action, attempt = heapq.heappop(heap)
            _, reference = self._tasks.pop(number, (due, None))
            task = None if reference is None else reference()
            if task is None:
                continue
            try:
                action(task, attempt)
            except BaseException as error:
                log_exception("Timer of background task %s failed: %r", task.name, error, app=task.app)
            # Not to be kept alive by the variables of this frame until the next one is due.
            del task, reference
        return True


def _itself(task: Task[Any]) -> Task[Any]:
    return task
