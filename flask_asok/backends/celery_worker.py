"""What a worker does with the message of a task: claim it, run it, keep what came out, send it on."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from celery.exceptions import Ignore, Reject, Retry
from itsdangerous import BadData

from ..attempt import RunnableTask
from ..context import Carried, Variables
from ..errors import BackendUnavailable, MessageRefused, TaskAbandoned
from ..logs import about_of, log
from ..options import options_of
from ..signals import emit, task_abandoned
from ..summaries import SETTLED, TaskSummary
from .celery_task import CeleryTask, Remote, facts_of
from .engine import ONCE, time_limits
from .message import size_of

if TYPE_CHECKING:
    from .celery import CeleryBackend

T = TypeVar("T")

MOST_DELIVERIES = 3
"""Workers that one attempt may cost before it is given up."""

WATCH_SECONDS = 5.0
"""When a message is looked at again whose attempt another process has."""

INSIST_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses of a worker between its tries to reach the broker."""


class CeleryWorker:
    """
    Runs the messages of one application; its backend sends them.

    Used by `flask asok worker`, and by a task that runs in place another one which it waits for.
    """

    def __init__(self, backend: CeleryBackend) -> None:
        self._backend = backend

    def work(self, celery_task: Any, sealed: object) -> None:
        """Run the attempt that a message asks for; called by the two generic Celery tasks."""
        request = celery_task.request
        try:
            message = self._backend.seal.open(sealed, "call")
            if message["id"] != request.id:
                raise MessageRefused("The message carries the id of another one.")
        except (MessageRefused, KeyError) as error:
            # Acknowledged and dropped: it would be no better the next time.
            hint = ""
            if isinstance(error.__cause__, BadData):
                hint = " Does the web process have another SECRET_KEY, or another application this name?"
            log(logging.ERROR, "Refused a message for background tasks: %r%s", error, hint, app=self._backend.app)
            raise Ignore from None
        try:
            if list(request.timelimit or (None, None)) != time_limits(message.get("timeout")):
                # The envelope is not signed: somebody has changed it, or sent the message in one of their own.
                log(
                    logging.WARNING,
                    "Background task %s (%s) came with a time limit that is not its own, and is sent again with that.",
                    message["name"], request.id, app=self._backend.app,
                )  # fmt: skip
                insist(lambda: self._backend.publish(message, max(0.0, message["due"] - time.time())))
                raise Ignore
            self._go_on(message)
        except BackendUnavailable as error:
            self.leave(request.id)
            log(
                logging.ERROR,
                "Background task %s (%s) is left to another worker: %s",
                message["name"], request.id, error, app=self._backend.app,
            )  # fmt: skip
            raise Reject(error, requeue=True) from None

    def _go_on(self, message: dict[str, Any]) -> None:
        """
        Run the attempt, or send its message on where it is not due, or where a live process has it.

        Celery acknowledges the message after Ignore too, and does not log that something has succeeded.
        """
        try:
            task = self._restore(self._backend.names.find(message["fn"]), message)
        except Exception as error:
            # Signed, yet not to be run by this code: an older one perhaps. Kept, for `flask asok retry`.
            self.give_up(message, f"refused by its worker: {error!r}")
            raise Ignore from None
        wait = message["due"] - time.time()
        if wait > 1:
            insist(lambda: self._backend.publish(message, wait))
            raise Ignore
        match insist(lambda: self.claim(task)):
            case "ours":
                self.perform(task, threading.current_thread())
                self._tell_celery(task)
                return
            case "taken":
                # Handed out twice, or run in place by a task that waits for it. Should that process be lost, this is
                # the only message there is.
                insist(lambda: self._backend.publish(message, WATCH_SECONDS))
            case "over":
                insist(lambda: self._send_lost_retry(task))
        raise Ignore

    def claim(self, task: CeleryTask[Any]) -> Literal["ours", "taken", "over"]:
        """Claim the attempt whose turn it is: "ours", to be run at once; "taken" by another; "over", not to be run."""
        message, records = task.message, self._backend.records
        if records is None:
            return "ours"
        found = records.claim(task.id, message["attempt"], facts_of(message))
        if found != "lost":
            return found
        if message["once"]:
            why = ONCE
        elif records.delivered_again(task.id, message["attempt"]) >= MOST_DELIVERIES:
            why = f"given up: {MOST_DELIVERIES} workers were lost with it"
        else:
            return "ours"
        self.give_up(message, why)
        emit(task_abandoned, self._backend.app, task=task)
        return "over"

    def _send_lost_retry(self, task: CeleryTask[Any]) -> None:
        """Send the next attempt again: a worker may have been lost between writing that it is due and sending it."""
        fields = self._backend.need_records().read(task.id)
        attempt = task.message["attempt"] + 1
        # Sent twice it does no harm: the second finds it claimed.
        if fields.get("state") in ("waiting", "queued") and fields["attempt"] == str(attempt) and "due" in fields:
            due = float(fields["due"])
            self._backend.publish({**task.message, "attempt": attempt, "due": due}, max(0.0, due - time.time()))

    def perform(self, task: CeleryTask[Any], thread: threading.Thread) -> BaseException | None:
        """Run a claimed attempt in this process and keep what came out, for all to see."""
        try:
            error = RunnableTask.perform(task, thread)
            if task._done:
                insist(lambda: self._record(task))
        except BaseException:
            # Nothing came out of it: told to end, or out of reach of the broker. Another may take it over at once.
            self.leave(task.id)
            raise
        return error

    def leave(self, id: str, pid: int | None = None) -> None:
        """Give up the lease on an attempt, of process `pid` where that is lost; if this fails it runs out by itself."""
        with contextlib.suppress(BackendUnavailable):
            if self._backend.records is not None:
                self._backend.records.release(id, pid or os.getpid())

    def send_next(self, task: CeleryTask[Any], seconds: float) -> None:
        """Send the next attempt of a task that waits for it."""
        task.message["attempt"] = task.attempts + 1
        task.message["due"] = time.time() + seconds
        records = self._backend.records
        if records is not None:
            insist(lambda: records.wait(task.id, task.attempts + 1, task.summary.error or "", seconds))
        try:
            insist(lambda: self._backend.publish(task.message, seconds))
        except BackendUnavailable:
            if not task.options.at_most_once:
                # The message of this attempt, which is not acknowledged yet, is good for the next one too.
                raise
            self.give_up(task.message, "not tried again: its retry could not be sent")

    def give_up(self, message: Mapping[str, Any], why: str) -> None:
        """Settle as failed a task that was ended from outside, unless it is settled."""
        id, records = message["id"], self._backend.records
        if records is not None and records.read(id).get("state") in SETTLED:
            return
        log(
            logging.ERROR, "Background task %s (%s) failed: %s%s",
            message["name"], id, why, self._about(message), app=self._backend.app,
        )  # fmt: skip
        if records is not None:
            error = self._backend.codec.encode_error(TaskAbandoned(f"The task was {why}."))
            records.finish(
                id,
                {
                    **facts_of(message),
                    "state": "failed",
                    "error": why,
                    "outcome": self._backend.sealed_outcome(id, {"error": error}),
                    "message": self._backend.seal.close(message, "call"),
                },
            )

    def _about(self, message: Mapping[str, Any]) -> str:
        # Of a message that this code cannot read there is nothing to say.
        with contextlib.suppress(Exception):
            if about := about_of(map(self._backend.codec.decode, message["args"])):
                return f" ({about})"
        return ""

    def stopped(self, id: str, sealed: object, why: str) -> None:
        """Give up the task of a message, in the worker's main process, which knows nothing else of it."""
        with contextlib.suppress(MessageRefused):
            message = self._backend.seal.open(sealed, "call")
            if message["id"] == id:
                self.give_up(message, why)

    def _restore(self, fn: Callable[..., Any], message: dict[str, Any]) -> CeleryTask[Any]:
        """Make the worker's Task of a message."""
        decode = self._backend.codec.decode
        told = dict(message["options"])
        if "retry_on" in told:
            told["retry_on"] = tuple(map(self._backend.names.find_error, told["retry_on"]))
        if "backoff" in told:
            told["backoff"] = decode(told["backoff"])
        options = options_of(fn).replace(**told)
        options = dataclasses.replace(options, name=message["name"], queue=message["queue"])
        url = message["url"]
        adapter = url and self._backend.app.url_map.bind(url[0], url[1], url[2], url[3])
        carried: Carried = (self._backend.app, decode(message["g"]), _trace_variables(message.get("trace")), adapter)
        args = tuple(decode(arg) for arg in message["args"])
        kwargs = {key: decode(arg) for key, arg in message["kwargs"].items()}
        summary = TaskSummary(message["name"], message["queue"], message["id"])
        summary.enqueued = float(message["enqueued"])
        summary.attempts = int(message["attempt"]) - 1
        task: CeleryTask[Any] = CeleryTask(
            (fn, args, kwargs, carried), options, summary, Remote(self._backend), self._backend.app
        )
        task.message = message
        self._backend._recent.append(summary)
        return task

    def _record(self, task: CeleryTask[Any]) -> None:
        if self._backend.records is None:
            return
        error = task._error
        try:
            value = None if error is not None else self._backend.codec.encode(task._value, f"What {task.name} returned")
            if (size := size_of(value)) > self._backend.most_bytes:
                raise ValueError(
                    f"What {task.name} returned has {size:,} bytes, more than ASOK_MESSAGE_MAX_BYTES "
                    f"({self._backend.most_bytes:,}). Store it, and return its path or id."
                )
            wrong = error
        except (TypeError, ValueError) as unfit:
            value, wrong = None, unfit
        outcome = {"value": value} if wrong is None else {"error": self._told(wrong)}
        fields = {
            **facts_of(task.message),
            "state": task.summary.state,
            "attempts": task.attempts,
            "error": task.summary.error or "",
            "outcome": self._backend.sealed_outcome(task.id, outcome),
        }
        if error is not None:
            # For `flask asok retry`.
            fields["message"] = self._backend.seal.close(task.message, "call")
        self._backend.records.finish(task.id, fields)

    def _told(self, error: BaseException) -> dict[str, Any]:
        told = self._backend.codec.encode_error(error)
        return told if size_of(told) <= self._backend.most_bytes else {"text": f"{told['text'][:1000]}..."}

    def _tell_celery(self, task: CeleryTask[Any]) -> None:
        """Have Celery's own events tell what happened, for Flower and its like."""
        if not task._done:
            raise Retry(when=max(0.0, task.message["due"] - time.time()))
        if task._error is not None:
            # Never a SystemExit or the like: it would be meant for the worker.
            raise RuntimeError(task.summary.error) from None


def insist(do: Callable[[], T]) -> T:
    """Do it, and where Redis or the broker is out of reach try again for a quarter of a minute: workers have time."""
    for pause in INSIST_SECONDS:
        try:
            return do()
        except BackendUnavailable:
            time.sleep(pause)
    return do()


def _trace_variables(headers: Mapping[str, str] | None) -> Variables:
    """Return the context variables with which a task goes on with the caller's OpenTelemetry trace."""
    if not headers or "opentelemetry.propagate" not in sys.modules:
        return ()

    def attached() -> Variables:
        context = sys.modules["opentelemetry.propagate"].extract(headers)
        sys.modules["opentelemetry.context"].attach(context)
        return tuple(copy_context().items())

    return Context().run(attached)
