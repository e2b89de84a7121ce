"""Find a task of this process by its id."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask

from .attempt import RunnableTask
from .state import state_of
from .summaries import SETTLED
from .triggers import all_held

LOOKS = 50
LOOK_SECONDS = 0.001


def find_task(app: Flask, id: str) -> RunnableTask[Any] | None:
    """Return the task of `app` with this id that this process runs, or will; None if it is settled or unknown."""
    backend = state_of(app).backend
    for _ in range(LOOKS):
        held = (task for task in all_held() if task.app is app)
        task = next((task for task in (*backend.alive(), *held) if task.id == id and task.is_alive()), None)
        if task is not None or backend.distributed:
            return task
        summary = backend.get(id)
        if summary is None or summary.state in SETTLED:
            return None
        # On its way: a thread has taken it out of its queue, and does not run it yet.
        time.sleep(LOOK_SECONDS)
    return None
