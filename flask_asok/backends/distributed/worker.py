"""What a worker does with a task that another process has sent: restore it, leave it to others, or give it up."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from ...errors import MessageRefused
from ...logs import about_of, log
from ...messages.message import Message
from ...store.base import Record
from ...summaries import TaskSummary
from ...task_log import ASKED_TO_STOP, Known, log_cancelled, one_line, task_fields
from .commands import summary_of
from .engine_store import EngineStore
from .hub import Hub, keep_trying
from .task import Remote, RemoteTask
from .variables import worker_variables

ONCE = "lost with its worker, and is to run at most once"
"""Why a task is abandoned that may have been done already."""

OTHER_KEY = " Does the web process have another SECRET_KEY, or another application this name?"

MOST_DEATHS = 3
"""The lost workers after which a task is not repeated."""


class RemoteWorker:
    """
    Handles the messages that an engine delivers to this process.

    It makes tasks of `task_class`; `remember` is called with the summary of each task that begins here.
    """

    remote_class: type[Remote] = Remote
    has_scopes: bool = True
    """Does the engine begin scopes of Sentry, and a span, for each message that it delivers?"""

    def __init__(self, hub: Hub, task_class: type[Any], remember: Callable[[TaskSummary], None]) -> None:
        self.hub = hub
        self.remember = remember
        self._task_class = task_class

    def restored(self, message: Message) -> RemoteTask[Any]:
        """Return the Task of a message. Raises whatever the code of the application raises, or MessageRefused."""
        (fn, args, kwargs, captured), options, summary = self.hub.packer.unpack(message)
        app, values, variables, adapter = captured
        call = fn, args, kwargs, (app, values, worker_variables(variables), adapter)
        task: RemoteTask[Any] = self._task_class(call, options, summary, self.remote_class(self.hub), self.hub.app)
        task.message = message
        task.is_in_worker = self.has_scopes
        return task

    def give_up(self, message: Message, why: str, record: Record | None = None) -> None:
        """Abandon a task that was running when its process ended, if that is what its record, if any, still says."""
        try:
            task = self.restored(message)
        except Exception:  # of a message that this code does not know, or of the application's code
            if record is None or self.hub.need_store().settle(record.id, record.claim, "abandoned", error=why):
                log(
                    logging.ERROR, "Background task %s (%s) abandoned while running: %s.",
                    one_line(message.name), message.id, why, app=self.hub.app, extra=message.log_fields(),
                )  # fmt: skip
            return
        claim = 0 if record is None else self.hub.need_store().take_over(record)
        if claim or record is None:
            task.summary.state = "running"
            task.abandon_claimed(claim, why)

    def leave(self, id: str, why: str, name: str = "unknown") -> None:
        """Leave a task that this process cannot run to others, and say so once; after a while it has failed."""
        store = self.hub.need_store()
        match keep_trying(lambda: store.leave(id, f"refused by its worker: {why}")):
            case 1:
                log(
                    logging.ERROR, "Refused a message for background tasks: %s (%s) is left to other workers: %s",
                    one_line(name), id, why, app=self.hub.app, extra=self._fields_of(id, name),
                )  # fmt: skip
            case 2:
                log(
                    logging.ERROR, "Background task %s (%s) failed: no worker could run it: %s",
                    one_line(name), id, why, app=self.hub.app, extra=self._fields_of(id, name),
                )  # fmt: skip

    def _fields_of(self, id: str, name: str) -> dict[str, Any]:
        record = keep_trying(lambda: self.hub.need_store().read(id))
        return task_fields(id, name) if record is None else summary_of(record).log_fields()

    def tell_cancelled(self, record: Record, why: str) -> None:
        """Log and count a task that was cancelled by its record, which no attempt of it will tell."""
        log_cancelled(Known(self.hub.app, summary_of(record)), why)
        if self.hub.config["ASOK_METRICS"]:
            from ...telemetry.prometheus import meters_of, write_soon

            with contextlib.suppress(MessageRefused):  # of a function that this code does not know
                meters = meters_of(record.queue, self.hub.packer.names.find(record.function))
                meters.ended("cancelled", 0.0)
                write_soon(meters)

    def kept_message(self, id: str, signed: str) -> Message | None:
        """Return the message that the record of a task keeps; one that cannot be read here is left to others."""
        try:
            return self.hub.packer.read_for(id, signed)
        except MessageRefused as error:
            # What this process cannot read, another one gets in its turn; or it fails in the end.
            self.leave(id, str(error))
            return None

    def take_back(self, store: EngineStore, record: Record) -> None:
        """Let a task that was lost with its process run again, unless it is to be given up."""
        signed = store.message_of(record.id)
        message = None if signed is None else self.kept_message(record.id, signed)
        if message is not None and record.stopping:
            self.stop(store, record)
        elif message is not None and (why := _why_last(record, message)):
            self.give_up(message, why, record)
        elif store.take_back(record) and message is not None:
            log(
                logging.WARNING, "Background task %s (%s) was lost with its process, and is sent again.",
                one_line(record.name), record.id, app=self.hub.app, extra=message.log_fields(),
            )  # fmt: skip

    def stop(self, store: EngineStore, record: Record) -> None:
        """Cancel a task that nobody runs any more, and that was asked to stop."""
        if store.settle(record.id, record.claim, "cancelled", error=ASKED_TO_STOP):
            self.tell_cancelled(record, ASKED_TO_STOP)

    def about(self, message: Message) -> str:
        """Return what a log says of the arguments; "" where this code cannot read them."""
        with contextlib.suppress(Exception):
            if about := about_of(map(self.hub.packer.serializer.decode, message.args)):
                return f" ({about})"
        return ""


def _why_last(record: Record, message: Message) -> str:
    """Return why a task that was lost with its process is not to run again; "" if it is."""
    if message.once:
        return ONCE
    return f"given up: {MOST_DEATHS} workers were lost with it" if record.deaths + 1 >= MOST_DEATHS else ""
