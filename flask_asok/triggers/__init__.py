"""What defers a task: the response to its request, or the commit of its transaction."""

from __future__ import annotations

from typing import Any

from flask import Flask

from ..attempt import RunnableTask
from .commit import defer_to_commit, innermost, is_committed
from .deferred import Start, abandon_deferred, all_deferred, release
from .response import defer_to_response, listen

__all__ = [
    "abandon_deferred", "all_deferred", "defer", "defer_to_commit", "innermost", "is_committed", "listen", "release",
]  # fmt: skip


def defer(task: RunnableTask[Any], app: Flask, start: Start) -> None:
    """Defer `start(task)` to the response or commit named by `when`; call it now if there is none."""
    if task.options.when == "response":
        defer_to_response(task, app, start)
    else:
        defer_to_commit(task, app, start)
