"""What wakes tasks that wait for a delay, a retry or their timeout; meanwhile they hold no worker."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..attempt import RunnableTask
from ..helper_thread import HelperThread
from ..logs import log_exception

IDLE_SECONDS = 10.0
"""How long a thread with nothing to do stays."""

TIDY_SECONDS = 1.0
"""How long a full scheduler waits before it looks again for tasks that were cancelled."""

MOST_STALE = 1_000
"""How many entries of settled tasks the heap keeps, besides as many as there are others, before it is tidied."""

Action = Callable[[RunnableTask[Any], int], None]
Entry = tuple[float, int, Action, int]
"""When it is due, its number, what to call, and the attempt of the task that it was made in."""


class Scheduler:
    """
    Call an action on a task when it is due, in one thread that is there only while something waits.

    Callers hand entries over through a queue; only the thread touches the heap, so nothing is locked.
    """

    _inbox: queue.SimpleQueue[Entry | None] | None = None

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heap: list[Entry] = []
        self._numbers = itertools.count()
        self._tasks: dict[int, tuple[float, Callable[[], RunnableTask[Any] | None]]] = {}
        """When it is due, and a reference to the task, for each waiting entry by its number. Popping takes it out."""
        self._thread = HelperThread("asok-scheduler", self._turn, self._has_work)
        self._tidied_at = float("-inf")

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_closed(self) -> bool:
        """Once True, `drain()` may have run: check this again after calling `at()`."""
        return self._thread.is_stopped

    def waiting(self) -> list[RunnableTask[Any]]:
        """Return the tasks that wait."""
        tasks = [reference() for _, reference in list(self._tasks.values())]
        return [task for task in tasks if task is not None]

    def count(self, enough: int) -> int:
        """Return how many tasks wait; from `enough` on those are looked for, and left out, that were cancelled."""
        if len(self) < enough:
            return len(self)
        now = self._now()
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            for number, (_, reference) in list(self._tasks.items()):
                task = reference()
                if task is None or task.state != "waiting":
                    self._tasks.pop(number, None)
            self.wake()
        return len(self)

    def at(self, seconds: float, action: Action, task: RunnableTask[Any], *, weak: bool = False) -> None:
        """
        Call `action(task, attempt)` in `seconds` from now, with the attempt of this moment.

        With `weak` the scheduler does not keep the task alive, and drops the entry with it. RuntimeError if the system
        gives no thread to wait in.
        """
        # Made by the first entry: gevent may patch the class after the app is made and forked.
        inbox = self._inbox or self.__dict__.setdefault("_inbox", queue.SimpleQueue())
        due, number = self._now() + seconds, next(self._numbers)
        reference = weakref.ref(task, partial(self._tasks.pop, number)) if weak else partial(_itself, task)
        self._tasks[number] = due, reference
        inbox.put((due, number, action, task.attempts))
        self._thread.need()

    def wake(self) -> None:
        """Look at the time again."""
        if self._inbox is not None:
            self._inbox.put(None)

    def stop(self) -> None:
        """Stop the thread, without waiting for it; pending entries stay for `drain()`."""
        self._thread.stop()
        self.wake()

    def close(self) -> None:
        """Stop the thread, and wait until it has left."""
        self.stop()
        self._thread.join(1)

    def drain(self) -> Iterator[RunnableTask[Any]]:
        """Take out every task that waits, the next one first. For a closed scheduler, or one that a fork has lost."""
        for number, (_, reference) in sorted(self._tasks.items(), key=lambda each: each[1][0]):
            task = reference()
            if task is not None and task.state == "waiting":
                yield task
            # Not before it was abandoned: an interruption there must leave it to the next call.
            self._tasks.pop(number, None)

    def _has_work(self) -> bool:
        return self._inbox is not None and not self._inbox.empty()

    def _turn(self) -> bool:
        """Wait for the next entry or the next due time, then handle all due entries; False after idling."""
        heap, inbox = self._heap, self._inbox
        assert inbox is not None
        timeout = heap[0][0] - self._now() if heap else IDLE_SECONDS
        try:
            arrived = [inbox.get(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))]
        except queue.Empty:
            if not heap:
                return False
        else:
            # All that are there: of two that are due by now the later one may have been handed over first.
            arrived += (inbox.get() for _ in range(inbox.qsize()))
            for entry in arrived:
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
                log_exception(
                    "Timer of background task %s failed: %r", task.name, error, app=task.app, extra=task.log_fields()
                )
            # Else the variables of this frame would keep the task alive until the next one is due.
            del task, reference
        return True


def _itself(task: RunnableTask[Any]) -> RunnableTask[Any]:
    return task
