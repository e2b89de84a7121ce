"""Signals sent as a task moves through its states; the sender is the application."""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

from .logs import is_ctrl_c, log_exception

_signals = Namespace()

task_queued: NamedSignal = _signals.signal("task-queued")
"""The task was accepted. Receivers get `task`, as with every signal here; this one is sent in the caller's thread."""
task_started: NamedSignal = _signals.signal("task-started")
"""An attempt begins. Like the following ones it is sent in the thread that runs the task, outside of its context."""
task_succeeded: NamedSignal = _signals.signal("task-succeeded")
task_failed: NamedSignal = _signals.signal("task-failed")
"""The last attempt raised; `error` is what it raised."""
task_retried: NamedSignal = _signals.signal("task-retried")
"""An attempt raised `error`; the next one begins in `wait` seconds."""
task_cancelled: NamedSignal = _signals.signal("task-cancelled")
task_abandoned: NamedSignal = _signals.signal("task-abandoned")
"""The task was not finished when its process shut down."""

mail_refused: NamedSignal = _signals.signal("mail-refused")
"""
The SMTP server refused recipients for good: `message_id`, `refused` (a list of `Refusal`: address, code, text).

Sent in the thread and the app context of the task, also where other recipients of the same mail were accepted.
"""

webhook_failed: NamedSignal = _signals.signal("webhook-failed")
"""
A webhook was not delivered, and nothing will try again: `delivery` has what it takes to store and replay it, `error`
says why.

Sent in the thread and the app context of the attempt. It holds no secret: of the URL only scheme, host and port.
"""
webhook_gone: NamedSignal = _signals.signal("webhook-gone")
"""The receiver answered 410: disable the endpoint. Sent before `webhook_failed`, with the same arguments."""


def emit(signal: NamedSignal, app: Flask, **kwargs: Any) -> None:
    """Call every receiver of `signal`; one that raises is logged and keeps neither the others nor the task."""
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **kwargs)
        except BaseException as error:
            log_exception("Receiver of %s failed: %r", signal.name, error, app=app)
            if is_ctrl_c(error):
                raise
