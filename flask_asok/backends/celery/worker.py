"""What a worker does with the message of a task: run it, leave it to others, or drop it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import exceptions
from itsdangerous import BadData

from ...errors import BackendUnavailable, MessageRefused, TaskAbandoned
from ...logs import about_of, log
from ...messages.message import VERSION, Message
from ...signals import task_failed
from ...store.base import KEEP_SECONDS, Record
from ...summaries import SETTLED, TaskSummary
from ...task_log import task_fields
from .hub import SENT, Hub, keep_trying, time_limits
from .release_before import is_over_in_records_before
from .task import CeleryTask, Remote
from .timeouts import raise_task_timeout
from .variables import worker_variables

ONCE = "lost with its worker, and is to run at most once"
"""Why a task is abandoned that may have been done already."""

OTHER_KEY = " Does the web process have another SECRET_KEY, or another application this name?"


class Worker:
    """
    Handles the messages that Celery delivers to this process.

    It makes tasks of `task_class`; `remember` is called with the summary of each task that begins here.
    """

    def __init__(self, hub: Hub, task_class: type[Any], remember: Callable[[TaskSummary], None]) -> None:
        self._hub = hub
        self._task_class = task_class
        self._remember = remember

    @property
    def has_store(self) -> bool:
        """Does a store keep the messages?"""
        return self._hub.store is not None

    def handle(self, celery_task: Any, signed: object) -> None:
        """
        Run the attempt that a message asks for; the two generic Celery tasks call this.

        Where a store keeps the message it is acknowledged already: what goes wrong here, a sweeper mends.
        """
        request = celery_task.request
        try:
            message = self._read(request.id, signed)
        except MessageRefused as error:
            self._refuse(request.id, error)
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
            raise_task_timeout()
            self._go_on(message, str(getattr(request, SENT, None) or ""))
        except BackendUnavailable as error:
            log(
                logging.ERROR, "Background task %s (%s) is left to another worker: %s",
                message.name, message.id, error, app=self._hub.app, extra=message.log_fields(),
            )  # fmt: skip
            raise exceptions.Reject(error, requeue=True) from None

    def lost(self, id: str, pid: int | None) -> None:
        """Let the sweepers know that process `pid` has ended, which had the task `id`."""
        store = self._hub.store
        record = None if store is None else store.read(id)
        if store is not None and record is not None and record.state == "running" and pid:
            # At once, rather than when the lease runs out.
            store.end_process(record.owner, pid)

    def lost_once(self, id: str, signed: object) -> None:
        """Abandon a task that its dead process may have done, and that must run at most once, where no store has it."""
        if (message := self.message(id, signed)) is not None:
            self.give_up(message, 0, ONCE)

    def give_up(self, message: Message, claim: int, why: str) -> None:
        """Abandon a task that was running when its process ended; `claim` is this process's."""
        try:
            task = self.restored(message)
        except Exception:  # of a message that this code does not know, or of the application's code
            log(
                logging.ERROR, "Background task %s (%s) abandoned while running: %s.",
                message.name, message.id, why, app=self._hub.app, extra=message.log_fields(),
            )  # fmt: skip
            if self._hub.store is not None:
                self._hub.store.settle(message.id, claim, "abandoned", error=why)
            return
        task.summary.state = "running"
        task.abandon_claimed(claim, why)

    def stopped(self, id: str, signed: object, timeout: float) -> None:
        """Settle as failed a task that was killed at its time limit."""
        if (message := self.message(id, signed)) is None:
            return
        why = f"stopped at its time limit of {timeout:g} s"
        record = None if self._hub.store is None else self._hub.store.read(id)
        if record is not None and record.is_settled:
            return
        log(
            logging.ERROR, "Background task %s (%s) failed: %s%s",
            message.name, id, why, self._about(message), app=self._hub.app, extra=message.log_fields(),
        )  # fmt: skip
        claim = 0 if record is None else record.claim
        try:
            task = self.restored(message)
        except Exception:  # as in `give_up`
            if self._hub.store is not None:
                self._hub.store.settle(id, claim, "failed", error=why)
            return
        task.fail_claimed(claim, why, TaskAbandoned(f"The task was {why}."), task_failed)

    def revoked(self, id: str, why: str) -> None:
        """Settle as cancelled what Celery was told to revoke or terminate."""
        store = self._hub.store
        record = None if store is None else store.read(id)
        if store is None or record is None or record.is_settled:
            return
        if store.cancel(id) or store.settle(id, record.claim, "cancelled", error=f"{why} by Celery"):
            log(
                logging.INFO, "Background task %s (%s) cancelled: it was %s by Celery.",
                record.name, id, why, app=self._hub.app, extra=task_fields(id, record.name),
            )  # fmt: skip

    def message(self, id: str, signed: object) -> Message | None:
        """Return the message of the task `id`; None where it is not one of the application."""
        with contextlib.suppress(MessageRefused):
            return self._read(id, signed)
        return None

    def restored(self, message: Message) -> CeleryTask[Any]:
        """Return the Task of a message. Raises whatever the code of the application raises, or MessageRefused."""
        (fn, args, kwargs, captured), options, summary = self._hub.packer.unpack(message)
        app, values, variables, adapter = captured
        call = fn, args, kwargs, (app, values, worker_variables(variables), adapter)
        task: CeleryTask[Any] = self._task_class(call, options, summary, Remote(self._hub), self._hub.app)
        task.message = message
        task.is_in_worker = True
        return task

    def _read(self, id: str, signed: object) -> Message:
        message = self._hub.packer.read(signed)
        if message.id != id:
            raise MessageRefused("The message carries the id of another one.")
        if message.v > VERSION:
            raise MessageRefused("The message is of a later release of Flask-Asok.")
        return message

    def _refuse(self, id: object, error: MessageRefused) -> None:
        """Leave a message that is not to be trusted here to others, if the store knows the task; else it is dropped."""
        hint = OTHER_KEY if isinstance(error.__cause__, BadData) else ""
        store, record = self._hub.store, None
        with contextlib.suppress(BackendUnavailable):
            if store is not None and isinstance(id, str):
                record = store.read(id)
        if store is None or record is None:
            log(logging.ERROR, "Refused a message for background tasks: %r%s", error, hint, app=self._hub.app)
        else:
            self.leave(record.id, f"{error}{hint}", record.name)

    def leave(self, id: str, why: str, name: str = "unknown") -> None:
        """Leave a task that this process cannot run to others, and say so once; after a while it has failed."""
        store = self._hub.need_store()
        match keep_trying(lambda: store.leave(id, f"refused by its worker: {why}")):
            case 1:
                log(
                    logging.ERROR, "Refused a message for background tasks: %s (%s) is left to other workers: %s",
                    name, id, why, app=self._hub.app, extra=task_fields(id, name),
                )  # fmt: skip
            case 2:
                log(
                    logging.ERROR, "Background task %s (%s) failed: no worker could run it: %s",
                    name, id, why, app=self._hub.app, extra=task_fields(id, name),
                )  # fmt: skip

    def _go_on(self, message: Message, sent: str) -> None:
        """
        Run the attempt, if it is to be made here and now.

        Celery acknowledges the message after Ignore too, and does not log a success.
        """
        store = self._hub.store
        if store is None and (wait := message.due - time.time()) > 1:
            keep_trying(lambda: self._hub.publish(message, wait=wait))
            raise exceptions.Ignore
        try:
            task = self.restored(message)
        except Exception as error:
            # It is signed, but this code cannot run it: it may be older.
            self._cannot_run(message, f"{error!r}")
            raise exceptions.Ignore from None
        claim = task.begin(sent)
        if claim < 0 and self._written_down(message):
            claim = task.begin(sent)
        if claim <= 0:
            # Delivered twice, run in place of a task that waits for it, settled meanwhile, or not due.
            raise exceptions.Ignore
        self._remember(task.summary)
        task.perform_begun(threading.current_thread())
        _report_to_celery(task)

    def _cannot_run(self, message: Message, why: str) -> None:
        if self._hub.store is None:
            log(
                logging.ERROR, "Background task %s (%s) failed: refused by its worker: %s%s",
                message.name, message.id, why, self._about(message), app=self._hub.app, extra=message.log_fields(),
            )  # fmt: skip
        elif keep_trying(lambda: self._hub.need_store().read(message.id)) is not None or self._written_down(message):
            self.leave(message.id, why, message.name)

    def _written_down(self, message: Message) -> bool:
        """Make the record of a task that has none: a release before has sent it, or Redis has lost it."""
        store = self._hub.need_store()
        if message.recorded and time.time() - message.enqueued > KEEP_SECONDS:
            log(
                logging.WARNING, "The message of background task %s (%s) is dropped: %s",
                message.name, message.id, "its record is gone, so it was settled or cancelled.",
                app=self._hub.app, extra=task_fields(message.id, message.name),
            )  # fmt: skip
            return False
        if not message.recorded and keep_trying(lambda: is_over_in_records_before(store, message)):
            return False
        delay = max(0.0, message.due - time.time())
        record = Record(
            id=message.id, name=message.name, queue=message.queue, function=message.fn, enqueued=message.enqueued,
            state="waiting" if delay else "queued", scheduled=message.scheduled, attempts=message.attempt - 1,
        )  # fmt: skip
        message.recorded = True
        keep_trying(lambda: store.accept(record, self._hub.packer.sign(message), delay))
        return True

    def _about(self, message: Message) -> str:
        # Where this code cannot read the arguments there is nothing to say about them.
        with contextlib.suppress(Exception):
            if about := about_of(map(self._hub.packer.serializer.decode, message.args)):
                return f" ({about})"
        return ""


def _report_to_celery(task: CeleryTask[Any]) -> None:
    """Report the outcome through Celery's events, for Flower and other monitors."""
    if task.summary.state == "waiting":
        raise exceptions.Retry(when=max(0.0, task.message.due - time.time()))
    if task.summary.state in SETTLED - {"succeeded", "cancelled"}:
        # Never the error itself, which may be a SystemExit: Celery would take that for the worker's own.
        raise RuntimeError(task.summary.error) from None
