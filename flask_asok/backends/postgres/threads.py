"""The threads of a worker, which are kept from one task to the next."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from contextvars import Context


class Threads:
    """
    Makes each call at once, in a thread that has nothing else to do.

    They are as many as there were calls at the same time. With a limit a task could wait that nobody else may take.
    """

    def __init__(self) -> None:
        self.idle: list[queue.SimpleQueue[Callable[[], None] | None]] = []
        """What each idle thread waits for, the latest last."""
        self._is_closed = False

    def call(self, do: Callable[[], None]) -> None:
        """Call `do`, which never raises, in another thread; in a context of its own."""
        try:
            self.idle.pop().put(do)
        except IndexError:
            # In an empty context: a thread that inherits its starter's (free-threaded Python) would keep that alive.
            thread = threading.Thread(target=self._work, args=(do,), name="asok-task", daemon=True)
            Context().run(thread.start)

    def close(self) -> None:
        """Let the idle threads exit, and each other one when it is done."""
        self._is_closed = True
        with contextlib.suppress(IndexError):
            while True:
                self.idle.pop().put(None)

    def _work(self, do: Callable[[], None] | None) -> None:
        # By its module: gevent may replace it after this file was imported.
        wanted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        while do is not None:
            Context().run(do)
            # It leads to the task.
            do = None
            self.idle.append(wanted)
            if self._is_closed:
                self.close()
            do = wanted.get()
