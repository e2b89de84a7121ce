"""Run each task at once, in a thread of its own that is joined: for tests and scripts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flask import Flask

from ..tasks import Task, current_task, joined
from .base import Backend


class ImmediateBackend(Backend):
    """
    The task is settled when `background()` returns. Delays and backoffs are not waited for.

    A thread of its own, and not the caller's, so that code which leans on the caller's context fails in the test
    as it would in production.
    """

    name = "immediate"
    in_process = False

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.running: dict[Task[Any], None] = {}

    def lane(self, queue: str) -> ImmediateBackend:
        """Return itself for every known queue."""
        self.queues[queue]
        return self

    def start(self, task: Task[Any], *, bounded: bool = True) -> None:
        """Run all attempts of `task`, one after the other, and return when it is settled."""
        thread = threading.Thread(target=_perform, args=(task,), name=f"asok-{task.queue}", daemon=True)
        caller, here = current_task(), threading.get_ident()
        # As if the caller joined it, so that a task which waits for its caller is told that it would wait for ever.
        if caller is not None:
            caller._awaits = task
        else:
            joined[here] = task
        try:
            thread.start()
            thread.join()
        finally:
            if caller is not None:
                caller._awaits = None
            else:
                joined.pop(here, None)

    def alive(self) -> list[Task[Any]]:
        """Return the tasks that run."""
        return list(self.running)

    def watch(self, task: Task[Any], timeout: float) -> None:
        """Let it take its time."""

    def wait(self, task: Task[Any], seconds: float) -> None:
        """Have the next attempt follow at once."""
        task.requeue()


def _perform(task: Task[Any]) -> None:
    while task.state == "queued":
        task.perform(threading.current_thread())
    # The frames of an error's traceback lead back to this one, which must not lead to the error: a cycle.
    del task
