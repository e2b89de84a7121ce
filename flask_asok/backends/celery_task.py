"""The Task of a call that runs in another process: its state is looked up in the records."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..attempt import RunnableTask
from ..calls import Parts
from ..errors import BackendUnavailable, MessageRefused
from ..logs import log
from ..summaries import SETTLED, TaskSummary

if TYPE_CHECKING:
    from .celery import CeleryBackend

R = TypeVar("R", covariant=True)

KILLED = range(-255, -191)
"""Exit codes with which billiard ends a worker's process on a signal: the signal's number less 256."""


class Remote:
    """The lane of a task in the process that has sent it: it runs elsewhere."""

    def __init__(self, backend: CeleryBackend) -> None:
        self.backend = backend
        self.running: dict[RunnableTask[Any], None] = {}

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Leave it to Celery, which knows of the timeout."""

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Send the next attempt."""
        assert isinstance(task, CeleryTask)
        self.backend.worker.send_next(task, seconds)


class CeleryTask(RunnableTask[R]):
    """
    A Task whose state is looked up in Redis, by whoever asks.

    In the process that called `background()`, in the worker that runs it, and in any other that knows its id.
    """

    message: dict[str, Any]
    lane: Remote

    @property
    def state(self) -> Any:
        """As on every Task; asks Redis until the task is settled."""
        self._look()
        return self.summary.state

    def is_alive(self) -> bool:
        """Return True until the task is settled; asks Redis."""
        self._look()
        return not self._done

    def __repr__(self) -> str:
        # Without asking Redis: this is for logs, and for when Redis is down.
        return f"<Task {self.name} {self.summary.state} {self.id}>"

    def cancel(self) -> bool:
        """Keep it from running, wherever it is queued. False when it already runs, or ran. Needs what `join` needs."""
        if self._done or self.trigger is not None:
            return super().cancel()
        if self.lane.backend.need_records().cancel(self.id):
            self._look()
        return self.summary.state == "cancelled"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the task is settled; without a Redis for the records nobody could tell: NotConfigured."""
        if not self._done and self not in self.lane.running:
            self.lane.backend.need_records()
        super().join(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As on every Task."""
        try:
            return super().exception(timeout)
        except TimeoutError as error:
            if self.summary.state != "queued":
                raise
            raise TimeoutError(
                f"{error} Is a worker running, and not busy with others? Start one with `flask --app APP asok worker`."
            ) from None

    def _is_claimable(self) -> bool:
        return not self._done and bool(self._box) and self.summary.state == "queued"

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt here, in a worker that waits for it, unless another worker has it."""
        backend = self.lane.backend
        if backend.worker.claim(self) != "ours":
            self._look()
            return None
        try:
            return backend.worker.perform(self, thread)
        except BackendUnavailable as error:
            # Its message, which some worker has meanwhile, is good for one more attempt.
            log(
                logging.WARNING,
                "Background task %s (%s) goes on elsewhere: %s",
                self.name,
                self.id,
                error,
                app=self.app,
            )
            return None

    def _fail_or_wait(self, call: Parts, error: BaseException) -> None:
        if isinstance(error, SystemExit) and error.code in KILLED:
            # The worker was told to end, and will be once this has gone on up; its message goes to another one.
            raise error
        super()._fail_or_wait(call, error)

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Look at Redis now and then: five milliseconds after the start, a tenth of a second later on."""
        deadline = None if seconds < 0 else time.monotonic() + seconds
        pause = 0.005
        gate = threading.Event()
        while not (self._done or (in_task and self._is_claimable())):
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if left <= 0:
                return
            gate.wait(left)
            pause = min(pause * 1.5, 0.1)
            self._look()

    def _look(self) -> None:
        """Take over from the record what has happened meanwhile."""
        records = self.lane.backend.records
        if self._done or records is None or self.trigger is not None or self in self.lane.running:
            return
        fields = records.read(self.id)
        if fields:
            self._take_over(fields)

    def _take_over(self, fields: Mapping[str, str]) -> None:
        fill(self.summary, fields)
        self.message["attempt"] = int(fields.get("attempt", 1))
        if self.summary.state not in SETTLED:
            return
        if self.summary.state != "cancelled":
            try:
                self._value, self._error = self.lane.backend.outcome(self.id, fields.get("outcome"))
            except MessageRefused as refused:
                # Signed with a key that is gone, or by somebody else; only who asks for the result shall hear of it.
                self._error = refused
        self._box.clear()
        self._done = True
        self.wake()


def facts_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record tells of a task from the start; written again with its end, should it be lost meanwhile."""
    return {key: message[key] for key in ("name", "queue", "enqueued", "attempt")}


def fill(summary: TaskSummary, fields: Mapping[str, str]) -> TaskSummary:
    """Write a record, as `Records.read` returns it, into a summary."""
    summary.state = fields["state"]  # type: ignore[assignment]
    attempt = int(fields["attempt"])
    summary.attempts = int(fields.get("attempts", attempt - 1))
    claim = fields.get(f"claim:{attempt}", "").split(" ")
    if len(claim) == 2:
        summary.started = float(claim[1])
        summary.attempts = attempt
    summary.finished = float(fields.get("finished", 0))
    summary.error = fields.get("error")
    return summary
