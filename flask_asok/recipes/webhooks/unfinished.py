"""The deliveries that have not ended: what a shutdown, or a bug, leaves of them is told as failed, to be replayed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from flask import Flask

from ... import signals
from ...attempt import RunnableTask
from ...errors import WebhookError
from .webhook import Webhook


class Unfinished:
    """
    The unfinished deliveries of one application in one process, from its first webhook to the end of the process.

    `lost` makes the error of one that has none of its own yet, from its webhook, the attempts made and the reason.
    """

    def __init__(self, app: Flask, lost: Callable[[Webhook, int, str], WebhookError]) -> None:
        self._lost = lost
        self._by_id: dict[str, Webhook | WebhookError] = {}
        """Of each task that has begun: why its latest attempt failed, or its webhook where none has failed yet."""
        signals.task_abandoned.connect(self._on_abandoned, app)
        signals.task_failed.connect(self._on_failed, app)
        signals.task_cancelled.connect(self._on_cancelled, app)

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, task: RunnableTask[Any], webhook: Webhook) -> None:
        """Note that an attempt begins."""
        self._by_id.setdefault(task.id, webhook)
        task.about = task.about or webhook.__asok_about__

    def fail(self, task: RunnableTask[Any], error: WebhookError) -> None:
        """Note that an attempt failed and another one will be made."""
        if task.id in self._by_id:
            # A copy has no traceback, whose frames would be kept for as long as the task waits.
            self._by_id[task.id] = copy.copy(error)
            task.about = getattr(error.delivery, "__asok_about__", task.about)

    def end(self, task: RunnableTask[Any]) -> bool:
        """Forget a delivery: whoever does so tells how it ended. Return False where it was forgotten already."""
        return self._by_id.pop(task.id, None) is not None

    def _on_abandoned(self, app: Flask, task: RunnableTask[Any]) -> None:
        left = self._by_id.pop(task.id, None)
        if left is None and task.call is not None:
            # It has not begun: it was queued, or waited for its delay.
            left = next((argument for argument in task.call.args if isinstance(argument, Webhook)), None)
        self._tell(app, left, task, "the process shut down")

    def _on_failed(self, app: Flask, task: RunnableTask[Any], error: BaseException) -> None:
        # None of ours, which has ended it: a backoff that raises, say, or no memory.
        self._tell(app, self._by_id.pop(task.id, None), task, type(error).__name__)

    def _on_cancelled(self, app: Flask, task: RunnableTask[Any]) -> None:
        self._by_id.pop(task.id, None)

    def _tell(self, app: Flask, left: Webhook | WebhookError | None, task: RunnableTask[Any], why: str) -> None:
        if left is not None:
            error = self._lost(left, task.attempts, why) if isinstance(left, Webhook) else left
            with app.app_context():
                signals.emit(signals.webhook_failed, app, delivery=error.delivery, error=error)
