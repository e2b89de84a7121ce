"""What the log says of a task: a line for each thing that happens to it, with the task's fields."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from flask import Flask

from .logs import ExcInfo, frames_of, log
from .retries import cause_of
from .summaries import TaskSummary

FAILED = "Background task %s failed: %r"
"""What is logged of the last attempt of a task that fails."""

SHUTS_DOWN = "the application shuts down"
"""Why a task that is not running is abandoned when its application ends."""

ASKED_TO_STOP = "it was asked to stop"
"""Why a task that ran is cancelled."""


class Logged(Protocol):
    """What the log asks of a task."""

    @property
    def app(self) -> Flask:
        """The application that it runs for."""

    @property
    def summary(self) -> TaskSummary:
        """Its name, its id, and the rest of the fields."""


class Known(NamedTuple):
    """A task of which this process has no more than that."""

    app: Flask
    summary: TaskSummary


def log_of(task: Logged, level: int, message: str, *args: object, exc_info: ExcInfo = None) -> None:
    """Log something about `task`, with its fields and its name on one line; never raises, as `log`."""
    name = task.summary.name
    shown = [one_line(arg) if isinstance(arg, str) and arg == name else arg for arg in args]
    log(level, message, *shown, app=task.app, exc_info=exc_info, extra=task.summary.log_fields())


def one_line(text: str) -> str:
    """Return a text with each sign escaped that would begin another line, or tell a terminal to do something."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def task_fields(id: str, name: str) -> dict[str, str]:
    """Return the fields of a record about a task of which this process knows no more than that."""
    return {"task_id": id, "task_name": name}


def log_failed(task: Logged, error: BaseException) -> None:
    """Log the error of the last attempt, with the traceback."""
    log_of(task, logging.ERROR, FAILED, task.summary.name, error, exc_info=frames_of(error, error))


def log_retry(task: Logged, error: BaseException, seconds: float, attempts: int) -> None:
    """Log in one line that an attempt out of `attempts` failed; its traceback is for those who read DEBUG."""
    summary, cause = task.summary, cause_of(error)
    number = summary.attempts
    log_of(
        task, logging.WARNING, "Background task %s failed (attempt %s of %s, next in %.3g s): %r",
        summary.name, number, attempts, seconds, cause,
    )  # fmt: skip
    frames = frames_of(error, cause)
    if frames is not None:
        log_of(
            task, logging.DEBUG, "Attempt %s of background task %s failed here:", number, summary.name, exc_info=frames
        )


def log_cancelled(task: Logged, why: str, level: int = logging.INFO) -> None:
    """Log that the task never runs, or runs no further, and why."""
    log_of(task, level, "Background task %s (%s) cancelled: %s.", task.summary.name, task.summary.id, why)


def log_abandoned(task: Logged, why: str) -> None:
    """Log that the task was lost, in which state it was, and why; once more where Ctrl-C comes in the middle of it."""
    try:
        _log_abandoned(task, why)
    except BaseException:
        _log_abandoned(task, why)
        raise


def _log_abandoned(task: Logged, why: str) -> None:
    summary = task.summary
    log_of(
        task, logging.ERROR, "Background task %s (%s) abandoned while %s: %s.",
        summary.name, summary.id, summary.state, why,
    )  # fmt: skip


def log_timeout(task: Logged, seconds: float | None, stack: str) -> None:
    """Log that an attempt has run for more than `seconds`, and where it is."""
    log_of(
        task, logging.WARNING, "Background task %s (%s) has run past its timeout of %g s, and still is at:\n%s",
        task.summary.name, task.summary.id, seconds, stack,
    )  # fmt: skip
