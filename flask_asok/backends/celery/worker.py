"""What a worker does with the message of a task: run it, send it on, or drop it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import exceptions
from itsdangerous import BadData

from ...errors import BackendUnavailable, MessageRefused, TaskAbandoned
from ...logs import about_of, log
from ...messages.message import Message
from ...signals import task_failed
from ...summaries import TaskSummary
from . import outcomes
from .hub import Hub, keep_trying, release, time_limits
from .records import KEEPS_MESSAGE
from .task import ONCE, CeleryTask, Remote
from .variables import worker_variables

WATCH_SECONDS = 5.0
"""The pause before a message is looked at again whose attempt another process has claimed."""


class Worker:
    """
    Handles the messages that Celery delivers to this process.

    It makes tasks of `task_class`; `remember` is called with the summary of each task that begins here.
    """

    def __init__(self, hub: Hub, task_class: type[Any], remember: Callable[[TaskSummary], None]) -> None:
        self._hub = hub
        self._task_class = task_class
        self._remember = remember

    def handle(self, celery_task: Any, signed: object) -> None:
        """Run the attempt that a message asks for; the two generic Celery tasks call this."""
        request = celery_task.request
        try:
            message = self._hub.packer.read(signed)
            if message.id != request.id:
                raise MessageRefused("The message carries the id of another one.")
        except MessageRefused as error:
            # Acknowledged and dropped: it would be as invalid the next time.
            hint = ""
            if isinstance(error.__cause__, BadData):
                hint = " Does the web process have another SECRET_KEY, or another application this name?"
            log(logging.ERROR, "Refused a message for background tasks: %r%s", error, hint, app=self._hub.app)
            raise exceptions.Ignore from None
        try:
            if list(request.timelimit or (None, None)) != time_limits(message.timeout):
                # The envelope is not signed: it was changed, or holds a message from another one.
                log(
                    logging.WARNING,
                    "Background task %s (%s) came with a time limit that is not its own, and is sent again with that.",
                    message.name, message.id, app=self._hub.app, extra=message.log_fields(),
                )  # fmt: skip
                keep_trying(lambda: self._hub.publish(message))
                raise exceptions.Ignore
            self._go_on(message)
        except BackendUnavailable as error:
            release(self._hub, message.id)
            log(
                logging.ERROR, "Background task %s (%s) is left to another worker: %s",
                message.name, message.id, error, app=self._hub.app, extra=message.log_fields(),
            )  # fmt: skip
            raise exceptions.Reject(error, requeue=True) from None

    def lost(self, id: str, pid: int) -> None:
        """Let another worker take over the attempt of process `pid`, which has died."""
        # At once, rather than when the lease runs out.
        release(self._hub, id, pid)

    def lost_once(self, id: str, signed: object) -> None:
        """Abandon a task that its dead process may have done, and that must run at most once."""
        if (message := self._message(id, signed)) is None:
            return
        task = self._task(message)
        if task is None:
            self._fail(message, ONCE)
        else:
            task.abandon_lost(ONCE)

    def stopped(self, id: str, signed: object, timeout: float) -> None:
        """Settle as failed a task that was killed at its time limit."""
        if (message := self._message(id, signed)) is not None:
            self._fail(message, f"stopped at its time limit of {timeout:g} s", self._task(message))

    def _go_on(self, message: Message) -> None:
        """
        Run the attempt; send its message on if it is not due, or if a live process has claimed it.

        Celery acknowledges the message after Ignore too, and does not log a success.
        """
        try:
            task = self._restored(message)
        except Exception as error:
            # It is signed, but this code cannot run it: it may be older. Kept, for `flask asok retry`.
            self._fail(message, f"refused by its worker: {error!r}")
            raise exceptions.Ignore from None
        if message.due - time.time() > 1:
            keep_trying(lambda: self._hub.publish(message))
            raise exceptions.Ignore
        match keep_trying(task.claim_attempt):
            case "ours":
                task.perform_claimed(threading.current_thread())
                _report_to_celery(task)
                return
            case "taken":
                # Delivered twice, or run in place of a task that waits for it. Should that process be lost, this is
                # the only message there is.
                keep_trying(lambda: self._hub.publish(message, WATCH_SECONDS))
            case "over":
                keep_trying(lambda: self._send_lost_retry(message))
        raise exceptions.Ignore

    def _send_lost_retry(self, message: Message) -> None:
        """Send the next attempt again: a worker may have been lost after it wrote it down and before it sent it."""
        fields = self._hub.need_records().read(message.id)
        attempt = message.attempt + 1
        # Sending it twice does no harm: the second message finds it claimed.
        if fields.get("state") in ("waiting", "queued") and fields["attempt"] == str(attempt) and "due" in fields:
            self._hub.publish(dataclasses.replace(message, attempt=attempt, due=float(fields["due"])))

    def _fail(self, message: Message, why: str, task: CeleryTask[Any] | None = None) -> None:
        """Settle a task as failed, unless it is settled; `task` is None where it cannot be restored."""
        if outcomes.is_settled(self._hub, message.id):
            return
        log(
            logging.ERROR, "Background task %s (%s) failed: %s%s",
            message.name, message.id, why, self._about(message), app=self._hub.app, extra=message.log_fields(),
        )  # fmt: skip
        if task is not None and task.claim() is not None:
            task.summary.error = why
            task.settle("failed", task_failed, error=TaskAbandoned(f"The task was {why}."))
        outcomes.keep_stopped(self._hub, message, "failed", why)

    def _about(self, message: Message) -> str:
        # Where this code cannot read the arguments there is nothing to say about them.
        with contextlib.suppress(Exception):
            if about := about_of(map(self._hub.packer.serializer.decode, message.args)):
                return f" ({about})"
        return ""

    def _message(self, id: str, signed: object) -> Message | None:
        with contextlib.suppress(MessageRefused):
            message = self._hub.packer.read(signed)
            if message.id == id:
                return message
        return None

    def _task(self, message: Message) -> CeleryTask[Any] | None:
        # The worker's main process, which asks for this, has run nothing: its other processes refuse what is invalid.
        with contextlib.suppress(Exception):
            return self._restored(message)
        return None

    def _restored(self, message: Message) -> CeleryTask[Any]:
        (fn, args, kwargs, captured), options, summary = self._hub.packer.unpack(message)
        app, values, variables, adapter = captured
        call = fn, args, kwargs, (app, values, worker_variables(variables), adapter)
        task: CeleryTask[Any] = self._task_class(call, options, summary, Remote(self._hub), self._hub.app)
        task.message = message
        task.is_in_worker = True
        self._remember(summary)
        return task


def _report_to_celery(task: CeleryTask[Any]) -> None:
    """Report the outcome through Celery's events, for Flower and other monitors."""
    if task.summary.state == "waiting":
        raise exceptions.Retry(when=max(0.0, task.message.due - time.time()))
    if task.summary.state in KEEPS_MESSAGE:
        # Never the error itself, which may be a SystemExit: Celery would take that for the worker's own.
        raise RuntimeError(task.summary.error) from None
