"""The Task of a call that runs in another process: its state is looked up in the records."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from ...attempt import RunnableTask
from ...calls import Parts
from ...errors import BackendUnavailable, MessageRefused, TaskAbandoned
from ...messages.message import Message
from ...progress import Progress
from ...store.away import warn_of_store
from ...summaries import SETTLED
from ...task_log import log_of
from ...waiting import Runner
from . import outcomes
from .fields import update
from .hub import Hub, keep_trying, release

R = TypeVar("R", covariant=True)

MOST_DELIVERIES = 3
"""The lost workers after which an attempt is not repeated."""

ONCE = "lost with its worker, and is to run at most once"
"""Why a task is abandoned that may have been done already."""

KILLED = range(-255, -191)
"""The exit codes with which billiard ends a worker's process on a signal: the signal's number less 256."""


class Remote:
    """The runner of the tasks that other processes run."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.running: dict[RunnableTask[Any], Any] = {}
        """The tasks that this process does run: in a worker, or in place of a task that waits for them."""

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Do nothing: Celery watches the timeout."""

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Send the next attempt, which is due in `seconds`."""
        assert isinstance(task, CeleryTask)
        task.send_next(seconds)


class CeleryTask(RunnableTask[R]):
    """A Task whose state is looked up in Redis each time: in its caller's process, its worker, and any other."""

    message: Message
    runner: Remote | Runner
    key = ""
    """The unique key."""
    is_written = False
    """Has the task a record, so that only its message is to be sent?"""

    @property
    def state(self) -> Any:
        """As on every Task; asks Redis until the task is settled."""
        self._look()
        return self.summary.state

    @property
    def progress(self) -> Progress | None:
        """What the record has of the progress; each report in the process that runs the task."""
        self._look()
        return self.summary.progress

    def is_alive(self) -> bool:
        """Return True until the task is settled; asks Redis."""
        self._look()
        return not self._done

    def __repr__(self) -> str:
        # Without asking Redis: a log shows it, perhaps since Redis is down.
        return f"<Task {self.name} {self.summary.state} {self.id}>"

    def cancel(self) -> bool:
        """Keep the task from running. False when it already runs, or ran. NotConfigured without a Redis."""
        hub = self._hub
        if self._done or self.trigger is not None or hub is None:
            return super().cancel()
        if outcomes.cancel(hub, self.id):
            self._look()
        return self.summary.state == "cancelled"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the task is settled. NotConfigured without a Redis, which alone could tell."""
        if not self._done and self._hub is not None and self not in self.runner.running:
            self._hub.need_records()
        super().join(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As on every Task."""
        try:
            return super().exception(timeout)
        except TaskAbandoned:
            # The record says more about the reason.
            if self._error is None:
                raise
            raise self._error from None
        except TimeoutError as error:
            if self.summary.state != "queued":
                raise
            raise TimeoutError(
                f"{error} Is a worker running, and not busy with others? Start one with `flask --app APP asok worker`."
            ) from None

    # For its backend and its worker

    def run_here(self, runner: Runner) -> None:
        """Become a task of this process, which `runner` runs: no message was sent."""
        self.runner = runner

    def claim_attempt(self) -> Literal["ours", "taken", "over"]:
        """
        Claim the attempt that the message asks for.

        "ours": run it at once; "taken": another process has it; "over": it must not be run. A task that was lost with
        its worker, and must not be repeated, is abandoned.
        """
        hub = self._hub
        records = None if hub is None else hub.records
        if records is None:
            return "ours"
        claimed = records.claim(self.message)
        if claimed != "lost":
            return claimed
        if self.message.once:
            why = ONCE
        elif records.delivered_again(self.id, self.message.attempt) >= MOST_DELIVERIES:
            why = f"given up: {MOST_DELIVERIES} workers were lost with it"
        else:
            return "ours"
        keep_trying(lambda: self.abandon_lost(why))
        return "over"

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt here, in place of a task that waits for it, unless another process has it."""
        if self._hub is None:
            return super().perform(thread)
        if self.claim_attempt() != "ours":
            self._look()
            return None
        try:
            return self.perform_claimed(thread)
        except BackendUnavailable as error:
            # Some worker has its message by now, and makes the attempt once more.
            log_of(self, logging.WARNING, "Background task %s (%s) goes on elsewhere: %s", self.name, self.id, error)
            return None

    def perform_claimed(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt that this process has claimed, and write down the outcome."""
        self.reporter: Callable[[Progress], bool] | None = self._report
        try:
            error = super().perform(thread)
            if self._done:
                keep_trying(self._keep_outcome)
        except BaseException:
            # There is no outcome: the process must end, or cannot reach the broker. Another one takes over.
            release(self._remote_hub, self.id)
            raise
        return error

    def send_next(self, seconds: float) -> None:
        """Send the next attempt, which is due in `seconds`."""
        hub, message = self._remote_hub, self.message
        message.attempt = self.attempts + 1
        message.due = time.time() + seconds
        records = hub.records
        if records is not None:
            keep_trying(lambda: records.wait(message, self.summary.error or ""))
        try:
            keep_trying(lambda: hub.publish(message))
        except BackendUnavailable:
            if not message.once:
                # The message of this attempt is not acknowledged yet, and serves for the next one too.
                raise
            keep_trying(lambda: self.abandon_lost("not tried again: its retry could not be sent", had_begun=False))

    def abandon(self, why: str) -> None:
        """As on every task, without asking Redis for the state, which may be away."""
        if self._hub is None or self.call is None:
            super().abandon(why)
            return
        self.runner.running[self] = None
        try:
            super().abandon(why)
        finally:
            self.runner.running.pop(self, None)

    def abandon_lost(self, why: str, *, had_begun: bool = True) -> None:
        """
        Abandon a task that was lost with its worker, for every process to see, unless it is settled.

        Where Redis is unreachable this can be called again: signals are sent, and lines are logged, once.
        """
        if not self._done:
            if outcomes.is_settled(self._remote_hub, self.id):
                return
            if had_begun:
                self.summary.state, self.summary.attempts = "running", self.message.attempt
            self._error = TaskAbandoned(f"The task was {why}.")
            self.summary.error = why
            self.abandon(why)
        self._keep_outcome()

    # Inside

    @property
    def _hub(self) -> Hub | None:
        """None for a task that this process runs on its own threads."""
        return self.runner.hub if isinstance(self.runner, Remote) else None

    @property
    def _remote_hub(self) -> Hub:
        assert isinstance(self.runner, Remote)
        return self.runner.hub

    def _is_claimable(self) -> bool:
        return not self._done and super()._is_claimable()

    def _fail_or_wait(self, call: Parts, error: BaseException) -> None:
        if self._hub is not None and isinstance(error, SystemExit) and error.code in KILLED:
            # The worker was told to end, which this error does; the message goes to another one.
            raise error
        super()._fail_or_wait(call, error)

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Ask Redis again and again: 5 ms after the start, and ever more rarely, down to ten times a second."""
        if self._hub is None:
            super()._wait_for_change(seconds, in_task)
            return
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
        """Update this Task from its record."""
        hub = self._hub
        if self._done or hub is None or hub.records is None or self.trigger is not None or self in self.runner.running:
            return
        fields = hub.records.read(self.id)
        if fields:
            self._take_over(hub, fields)

    def _take_over(self, hub: Hub, fields: Mapping[str, str]) -> None:
        update(self.summary, fields)
        self.message.attempt = int(fields["attempt"])
        if self.summary.state not in SETTLED:
            return
        if self.summary.state != "cancelled":
            try:
                self._value, self._error = hub.read_outcome(self.id, fields.get("outcome"))
            except MessageRefused as refused:
                # Signed with a key that is gone, or forged: only a caller that asks for the result hears of it.
                self._error = refused
        self._box.clear()
        self._done = True
        self.wake()

    def _report(self, progress: Progress) -> bool:
        """Write the progress down, and return True if another process asks the task to stop."""
        records = None if self._hub is None else self._hub.records
        try:
            return records is not None and records.report(self.id, self.message.attempt, progress)
        except BackendUnavailable as error:
            warn_of_store(self, error)
            return False

    def _keep_outcome(self) -> None:
        outcomes.keep(
            self._remote_hub,
            self.message,
            self.summary.state,
            value=self._value,
            error=self._error,
            text=self.summary.error or "",
            attempts=self.attempts,
            progress=self.summary.progress,
        )
