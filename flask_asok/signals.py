"""Signals sent as a task moves through its states; the sender is the application."""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

from .logs import is_ctrl_c, log_exception

namespace: Namespace = Namespace()
"""Every signal of the package by its name. Recipes make theirs in it, and so each can be imported from here."""

task_queued: NamedSignal = namespace.signal("task-queued")
"""The task was accepted. Receivers get `task`, as with every signal here; this one is sent in the caller's thread."""
task_started: NamedSignal = namespace.signal("task-started")
"""An attempt begins. Like the following ones it is sent in the thread that runs the task, in the context variables of
the attempt, and outside of its application context."""
task_succeeded: NamedSignal = namespace.signal("task-succeeded")
task_failed: NamedSignal = namespace.signal("task-failed")
"""The last attempt raised; `error` is what it raised."""
task_retried: NamedSignal = namespace.signal("task-retried")
"""An attempt raised `error`; the next one begins in `wait` seconds."""
task_cancelled: NamedSignal = namespace.signal("task-cancelled")
task_abandoned: NamedSignal = namespace.signal("task-abandoned")
"""The task was not finished when its process shut down."""


def emit(signal: NamedSignal, app: Flask, **kwargs: Any) -> None:
    """Call every receiver of `signal`; one that raises is logged and keeps neither the others nor the task."""
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **kwargs)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            fields = kwargs["task"].log_fields() if "task" in kwargs else None
            log_exception("Receiver of %s failed: %r", signal.name, error, app=app, extra=fields)


def __getattr__(name: str) -> NamedSignal:
    """Return the signal of a recipe: `from flask_asok.signals import webhook_failed`."""
    try:
        return namespace[name.replace("_", "-")]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
