"""Run the tasks of all queues on one thread."""

import atexit
import heapq
import itertools
import threading
import time

from flask_asok.backends.base import Backend


class OneThread(Backend):
    """The thread comes with the first task; it is its own runner for every queue."""

    name = "one-thread"

    def __init__(self, app, config):
        super().__init__(app, config)
        self.running = {}
        self._heap = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread = None
        self._is_closed = False

    def runner(self, queue):
        self.queues[queue]
        return self

    def start(self, task, *, bounded=True):
        if not task.options.delay or task.postpone():
            self._put(task, task.options.delay)

    def wait(self, task, seconds):
        self._put(task, seconds)

    def watch(self, task, timeout):
        """A thread cannot be stopped."""

    def close(self, timeout=None):
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        while self._heap:
            self.abandon(heapq.heappop(self._heap)[2], "the application shuts down")
        for task in list(self.running):
            self.abandon(task, "it took too long")

    def _put(self, task, seconds):
        with self._changed:
            if not self._is_closed:
                heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), task, task.attempts))
                self._changed.notify()
                if self._thread is None:
                    atexit.register(self.close, 8)
                    self._thread = threading.Thread(target=self._work, name="one-thread", daemon=True)
                    self._thread.start()
                return
        self.abandon(task, "the application shuts down")

    def _work(self):
        while (found := self._next()) is not None:
            task, attempts = found
            if task.attempts != attempts:
                # It was run in place of a task that waited for it, and may wait for a retry by now.
                continue
            # False for one that was cancelled while it waited for its delay or its retry.
            if task.state != "waiting" or task.requeue():
                task.wake()
                task.perform(threading.current_thread())

    def _next(self):
        with self._changed:
            while True:
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._heap)[2:]
                if self._is_closed:
                    return None
                self._changed.wait(left)
