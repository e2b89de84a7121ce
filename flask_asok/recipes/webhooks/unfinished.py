"""The deliveries that have not ended. `webhook_failed` tells of those that a shutdown or a bug leaves behind."""

from __future__ import annotations

import copy
from typing import Any

from flask import Flask

from ...attempt import RunnableTask
from ...signals import emit, task_abandoned, task_cancelled, task_failed
from ...state import state_of
from .errors import WebhookError
from .outcome import not_delivered
from .signals import webhook_failed
from .webhook import Webhook

_KEY = "unfinished webhooks"


class Unfinished:
    """The unfinished deliveries of one application in one process, from its first webhook to the end of the process."""

    def __init__(self, app: Flask) -> None:
        self._by_id: dict[str, Webhook | WebhookError] = {}
        """By the id of its task: the error of the latest attempt, or the webhook if no attempt has failed yet."""
        task_abandoned.connect(self.on_abandoned, app)
        task_failed.connect(self._on_failed, app)
        task_cancelled.connect(self._on_cancelled, app)

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, task: RunnableTask[Any], webhook: Webhook) -> None:
        """Note that an attempt begins."""
        self._by_id.setdefault(task.id, webhook)
        task.about = task.about or webhook.__asok_about__

    def fail(self, task: RunnableTask[Any], error: WebhookError) -> None:
        """Note that an attempt failed and that another one will follow."""
        if task.id in self._by_id:
            # A copy has no traceback: its frames would be kept for as long as the task waits.
            self._by_id[task.id] = copy.copy(error)
            task.about = getattr(error.delivery, "__asok_about__", task.about)

    def end(self, task: RunnableTask[Any]) -> bool:
        """Forget a delivery; the caller then tells how it ended. Return False if it was forgotten already."""
        return self._by_id.pop(task.id, None) is not None

    def on_abandoned(self, app: Flask, task: RunnableTask[Any]) -> None:
        """Tell of the delivery that an abandoned task leaves, if it is one of a webhook."""
        left = self._by_id.pop(task.id, None)
        if left is None and task.call is not None:
            # It has not begun: it was queued, or waited for its delay.
            left = next((argument for argument in task.call.args if isinstance(argument, Webhook)), None)
        _tell(app, left, task, task.summary.error or "the process shut down")

    def _on_failed(self, app: Flask, task: RunnableTask[Any], error: BaseException) -> None:
        # Not a WebhookError, which ends the delivery itself: a backoff that raised, or MemoryError.
        _tell(app, self._by_id.pop(task.id, None), task, type(error).__name__)

    def _on_cancelled(self, app: Flask, task: RunnableTask[Any]) -> None:
        self._by_id.pop(task.id, None)


def unfinished_of(app: Flask) -> Unfinished:
    """Return the unfinished deliveries of `app` in this process."""
    return state_of(app).shared(_KEY, lambda: Unfinished(app))


def set_up(app: Flask) -> None:
    """Listen to tasks that are abandoned in a process that may never have sent a webhook: a worker."""
    task_abandoned.connect(_on_lost, app)


def _on_lost(app: Flask, task: RunnableTask[Any]) -> None:
    made: list[Unfinished] = []

    def make() -> Unfinished:
        made.append(Unfinished(app))
        return made[0]

    state_of(app).shared(_KEY, make)
    # One that was there before has heard of the task itself.
    for unfinished in made:
        unfinished.on_abandoned(app, task)


def _tell(app: Flask, left: Webhook | WebhookError | None, task: RunnableTask[Any], why: str) -> None:
    if left is not None:
        error = not_delivered(left, task.attempts, why) if isinstance(left, Webhook) else left
        with app.app_context():
            emit(webhook_failed, app, delivery=error.delivery, error=error)
