"""What defers a task: the response to its request, or the commit of its transaction."""

from __future__ import annotations

from typing import Any

from flask import Flask

from ..attempt import RunnableTask
from .commit import hold_for_commit
from .held import Start, abandon_held, all_held, release
from .response import hold_for_response, listen

__all__ = ["abandon_held", "all_held", "hold", "listen", "release"]


def hold(task: RunnableTask[Any], app: Flask, start: Start) -> None:
    """Call `start(task)` at the moment that its `when` option names; at once where none is to come."""
    if task.options.when == "response":
        hold_for_response(task, app, start)
    else:
        hold_for_commit(task, app, start)
