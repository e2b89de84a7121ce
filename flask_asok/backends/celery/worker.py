"""What a worker does with the message of a task: run it, leave it to others, or drop it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any

from celery import exceptions
from itsdangerous import BadData

from ...errors import BackendUnavailable, MessageRefused, TaskAbandoned
from ...logs import log
from ...messages.message import VERSION, Message
from ...signals import task_failed
from ...store.base import KEEP_SECONDS, Record
from ...summaries import SETTLED
from ..distributed.hub import keep_trying
from ..distributed.task import Remote, RemoteTask
from ..distributed.worker import ONCE, OTHER_KEY, RemoteWorker
from .hub import SENT, CeleryHub, time_limits
from .release_before import is_over_in_records_before
from .task import CeleryRemote
from .timeouts import raise_task_timeout


class Worker(RemoteWorker):
    """Handles the messages that Celery delivers to this process."""

    hub: CeleryHub
    remote_class: type[Remote] = CeleryRemote

    @property
    def has_store(self) -> bool:
        """Does a store keep the messages?"""
        return self.hub.store is not None

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
                    message.name, message.id, app=self.hub.app, extra=message.log_fields(),
                )  # fmt: skip
                keep_trying(lambda: self.hub.publish(message))
                raise exceptions.Ignore
            raise_task_timeout()
            self._go_on(message, str(getattr(request, SENT, None) or ""))
        except BackendUnavailable as error:
            log(
                logging.ERROR, "Background task %s (%s) is left to another worker: %s",
                message.name, message.id, error, app=self.hub.app, extra=message.log_fields(),
            )  # fmt: skip
            raise exceptions.Reject(error, requeue=True) from None

    def lost(self, id: str, pid: int | None) -> None:
        """Let the sweepers know that process `pid` has ended, which had the task `id`."""
        store = self.hub.store
        record = None if store is None else store.read(id)
        if store is not None and record is not None and record.state == "running" and pid:
            # At once, rather than when the lease runs out.
            store.end_process(record.owner, pid)

    def lost_once(self, id: str, signed: object) -> None:
        """Abandon a task that its dead process may have done, and that must run at most once, where no store has it."""
        if (message := self.message(id, signed)) is not None:
            self.give_up(message, ONCE)

    def stopped(self, id: str, signed: object, timeout: float) -> None:
        """Settle as failed a task that was killed at its time limit."""
        if (message := self.message(id, signed)) is None:
            return
        why = f"stopped at its time limit of {timeout:g} s"
        record = None if self.hub.store is None else self.hub.store.read(id)
        if record is not None and record.is_settled:
            return
        log(
            logging.ERROR, "Background task %s (%s) failed: %s%s",
            message.name, id, why, self.about(message), app=self.hub.app, extra=message.log_fields(),
        )  # fmt: skip
        claim = 0 if record is None else record.claim
        try:
            task = self.restored(message)
        except Exception:  # as in `give_up`
            if self.hub.store is not None:
                self.hub.store.settle(id, claim, "failed", error=why)
            return
        task.fail_claimed(claim, why, TaskAbandoned(f"The task was {why}."), task_failed)

    def revoked(self, id: str, why: str) -> None:
        """Settle as cancelled what Celery was told to revoke or terminate."""
        store = self.hub.store
        record = None if store is None else store.read(id)
        if store is None or record is None or record.is_settled:
            return
        if store.cancel(id) or store.settle(id, record.claim, "cancelled", error=f"{why} by Celery"):
            self.tell_cancelled(record, f"it was {why} by Celery")

    def message(self, id: str, signed: object) -> Message | None:
        """Return the message of the task `id`; None where it is not one of the application."""
        with contextlib.suppress(MessageRefused):
            return self._read(id, signed)
        return None

    def _read(self, id: str, signed: object) -> Message:
        message = self.hub.packer.read(signed)
        if message.id != id:
            raise MessageRefused("The message carries the id of another one.")
        if message.v > VERSION:
            raise MessageRefused("The message is of a later release of Flask-Asok.")
        return message

    def _refuse(self, id: object, error: MessageRefused) -> None:
        """Leave a message that is not to be trusted here to others, if the store knows the task; else it is dropped."""
        hint = OTHER_KEY if isinstance(error.__cause__, BadData) else ""
        store, record = self.hub.store, None
        with contextlib.suppress(BackendUnavailable):
            if store is not None and isinstance(id, str):
                record = store.read(id)
        if store is None or record is None:
            log(logging.ERROR, "Refused a message for background tasks: %r%s", error, hint, app=self.hub.app)
        else:
            self.leave(record.id, f"{error}{hint}", record.name)

    def _go_on(self, message: Message, sent: str) -> None:
        """
        Run the attempt, if it is to be made here and now.

        Celery acknowledges the message after Ignore too, and does not log a success.
        """
        store = self.hub.store
        if store is None and (wait := message.due - time.time()) > 1:
            keep_trying(lambda: self.hub.publish(message, wait=wait))
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
        self.remember(task.summary)
        task.perform_begun(threading.current_thread())
        _report_to_celery(task)

    def _cannot_run(self, message: Message, why: str) -> None:
        if self.hub.store is None:
            log(
                logging.ERROR, "Background task %s (%s) failed: refused by its worker: %s%s",
                message.name, message.id, why, self.about(message), app=self.hub.app, extra=message.log_fields(),
            )  # fmt: skip
        elif keep_trying(lambda: self.hub.need_store().read(message.id)) is not None or self._written_down(message):
            self.leave(message.id, why, message.name)

    def _written_down(self, message: Message) -> bool:
        """Make the record of a task that has none: a release before has sent it, or Redis has lost it."""
        store = self.hub.need_store()
        if message.recorded and time.time() - message.enqueued > KEEP_SECONDS:
            log(
                logging.WARNING, "The message of background task %s (%s) is dropped: %s",
                message.name, message.id, "its record is gone, so it was settled or cancelled.",
                app=self.hub.app, extra=message.log_fields(),
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
        keep_trying(lambda: store.accept(record, self.hub.packer.sign(message), delay))
        return True


def _report_to_celery(task: RemoteTask[Any]) -> None:
    """Report the outcome through Celery's events, for Flower and other monitors."""
    if task.summary.state == "waiting":
        raise exceptions.Retry(when=max(0.0, task.message.due - time.time()))
    if task.summary.state in SETTLED - {"succeeded", "cancelled"}:
        # Never the error itself, which may be a SystemExit: Celery would take that for the worker's own.
        raise RuntimeError(task.summary.error) from None
