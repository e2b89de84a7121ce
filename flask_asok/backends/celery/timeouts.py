"""The soft time limit of a worker, as an error of ours that is Celery's as well."""

from __future__ import annotations

import signal
import threading

from celery.exceptions import SoftTimeLimitExceeded

from ...errors import TaskTimeout

# Made by a call: Celery has no types, so a checker could not tell what a class below one of its own is.
CeleryTaskTimeout: type[TaskTimeout] = type(
    "CeleryTaskTimeout",
    (TaskTimeout, SoftTimeLimitExceeded),
    {"__module__": __name__, "__doc__": "Raised in a task at its soft time limit, for code that catches either."},
)


def raise_task_timeout() -> None:
    """Let the signal of the soft time limit, in a process of Celery's pool, raise CeleryTaskTimeout."""
    number = getattr(signal, "SIGUSR1", None)
    # Of a process that is none of the pool's, the signal is not ours.
    if number is None or threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(number)
    if getattr(handler, "__name__", "") == "soft_timeout_sighandler":
        signal.signal(number, _raise)


def _raise(number: int, frame: object) -> None:
    raise CeleryTaskTimeout("The task has reached its time limit.")
