"""Run each task at once, in its own thread, and wait for it: for tests and scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask

from ..attempt import RunnableTask
from ..waiting import waiting_for
from .base import Backend


class ImmediateBackend(Backend):
    """
    The task is settled when `background()` returns. Delays and backoffs are not waited for.

    Each task has a thread of its own, so code that relies on the caller's context fails in the test as it would in
    production.
    """

    name = "immediate"
    in_process = False

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.running: dict[RunnableTask[Any], Any] = {}

    def runner(self, queue: str) -> ImmediateBackend:
        """Return itself for every known queue."""
        self.queues[queue]
        return self

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """Run all attempts of `task`, one after the other, and return when it is settled."""
        thread = threading.Thread(target=_perform, args=(task,), name=f"asok-{task.queue}", daemon=True)
        # As if the caller joined it: a task that joins its caller gets an error, not a wait without end.
        with waiting_for(task):
            thread.start()
            thread.join()

    def alive(self) -> list[RunnableTask[Any]]:
        """Return the tasks that run."""
        return list(self.running)

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Let it take its time."""

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Make the next attempt follow at once."""
        task.summary.due = time.time()
        task.requeue()


def _perform(task: RunnableTask[Any]) -> None:
    while task.state == "queued":
        task.perform(threading.current_thread())
    # The frames of an error's traceback lead back to this one, which must not lead to the error: a cycle.
    del task
