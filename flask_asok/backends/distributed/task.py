"""The Task of a call that runs in another process: its state is looked up in the store."""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ...attempt import RunnableTask
from ...errors import BackendUnavailable, MessageRefused, TaskAbandoned, TaskFailed
from ...messages.message import Message
from ...progress import Progress
from ...record_writer import attach
from ...store.base import Record
from ...summaries import TaskSummary
from ...task_log import log_of
from ...waiting import Runner
from .engine_store import EngineStore, new_claim
from .hub import Hub, insist
from .task_record import AttemptRecord

if TYPE_CHECKING:
    from blinker import NamedSignal

R = TypeVar("R", covariant=True)

SHORT_PAUSE = 0.05
"""Seconds before the store is asked again for a task that it does not give."""


def update(summary: TaskSummary, record: Record, now: float) -> None:
    """Write what a record says into a summary."""
    summary.state, summary.attempts, summary.error = record.state, record.attempts, record.error or None
    if record.state == "waiting" and record.due and record.due <= now:
        # Queued: a task that waits for it in the last free process then runs it in place.
        summary.state = "queued"
    summary.started, summary.finished, summary.progress = record.started, record.finished, record.progress
    summary.scheduled = record.scheduled


class Remote:
    """The runner of the tasks that other processes run."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.running: dict[RunnableTask[Any], Any] = {}
        """The tasks that this process does run: in a worker, or in place of a task that waits for them."""

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Do nothing: the engine watches the timeout."""

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Leave the next attempt to the store, whose sweeper sends it."""


class RemoteTask(RunnableTask[R]):
    """A Task whose state is looked up in the store each time: in its caller's process, its worker, and any other."""

    runner: Remote | Runner
    key = ""
    """The unique key."""
    sent = ""
    """When its message counts as sent; "" where none is to be sent now."""
    signed = ""
    """The message as it is sent."""
    is_written = False
    """Does a record keep the message?"""

    @functools.cached_property
    def message(self) -> Message:
        """Its message: the one that this process was sent, or else that of its call."""
        assert self.call is not None
        message = self.remote_hub.packer.message_of(self.call, self.options, self.summary)
        message.unique_until = self.options.unique_until
        return message

    @property
    def has_message(self) -> bool:
        """Was its message made by now?"""
        return "message" in vars(self)

    @property
    def state(self) -> Any:
        """As on every Task; asks the store until the task is settled."""
        self._look()
        return self.summary.state

    @property
    def progress(self) -> Progress | None:
        """What the record has of the progress; each report in the process that runs the task."""
        self._look()
        return self.summary.progress

    def is_alive(self) -> bool:
        """Return True until the task is settled; asks the store."""
        self._look()
        return not self._done

    def __repr__(self) -> str:
        # Without asking the store: a log shows it, perhaps since that is away.
        return f"<Task {self.name} {self.summary.state} {self.id}>"

    def cancel(self) -> bool:
        """Keep the task from running. False when it already runs, or ran. NotConfigured without a store."""
        hub = self._hub
        if self._done or self.trigger is not None or hub is None:
            return super().cancel()
        self.app.extensions["asok"].backend.cancel(self.id)
        self._look()
        return self.summary.state == "cancelled"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the task is settled. NotConfigured without a store, which alone could tell."""
        if not self._done and self._hub is not None and self not in self.runner.running:
            self._hub.need_store()
        super().join(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As on every Task."""
        try:
            return super().exception(timeout)
        except TaskAbandoned:
            # The record says more about the reason.
            if self._error is None:
                raise
            raise self._error.with_traceback(None) from None
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

    def begin(self, sent: str = "") -> int:
        """
        Claim the attempt that is due, whose message was sent at `sent`: then this process must run it.

        Returns 0 where the attempt is not to be made, -1 where the task has no record. Without a store every message is
        an attempt.
        """
        hub = self.remote_hub
        if hub.store is None:
            return 1
        store, claim = hub.enter(), new_claim()
        claim, attempt = insist(
            lambda: store.begin(self.id, store.me, sent, claim=claim, once=self.message.once),
            lambda: self.app.extensions["asok"].backend.is_closed,
        )
        if claim > 0:
            self.has_begun(store, claim, attempt)
        return claim

    def has_begun(self, store: EngineStore, claim: int, attempt: int) -> None:
        """Note that this process has claimed the attempt of that number, and must run it."""
        self.summary.state, self.summary.attempts = "queued", attempt - 1
        written = AttemptRecord(self.remote_hub, store, claim, once=self.message.once)
        attach(self, written)
        if self.message.unique_until == "start":
            written.free(self)

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt here, in place of a task that waits for it, unless another process has it."""
        if self._hub is None:
            return super().perform(thread)
        try:
            if self.begin() <= 0:
                self._look()
                if self._is_claimable():
                    # Not yet, by the clock of the store.
                    time.sleep(SHORT_PAUSE)
                return None
            return self.perform_begun(thread)
        except BackendUnavailable as error:
            # Some worker gets its message.
            log_of(self, logging.WARNING, "Background task %s (%s) goes on elsewhere: %s", self.name, self.id, error)
            return None

    def perform_aside(self) -> BaseException | None:
        """As of every task; in the main thread of a process of Celery's right there, where its time limit is raised."""
        if self._hub is not None and threading.current_thread() is threading.main_thread():
            return self.perform(threading.current_thread())
        return super().perform_aside()

    def perform_begun(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt that this process has claimed."""
        try:
            return super().perform(thread)
        except BaseException:
            # There is no outcome: the process must end. Another one takes over.
            if isinstance(self.journal, AttemptRecord):
                self.journal.give_back(self)
            raise

    def abandon_claimed(self, claim: int, why: str) -> None:
        """Abandon the task, of which this process has a claim and no attempt, for every process to see."""
        hub = self.remote_hub
        if hub.store is not None:
            attach(self, AttemptRecord(hub, hub.store, claim, once=True))
        self._error = TaskAbandoned(f"The task was {why}.")
        self.summary.error = why
        self.abandon(why)

    def fail_claimed(self, claim: int, why: str, error: BaseException, signal: NamedSignal) -> None:
        """Settle the task as failed, of which this process has a claim and no attempt."""
        hub = self.remote_hub
        if hub.store is not None:
            attach(self, AttemptRecord(hub, hub.store, claim, once=True))
        if self.claim() is not None:
            self.summary.error, self._error = why, error
            self.settle("failed", signal, error=error)

    def abandon(self, why: str) -> None:
        """As on every task, without asking the store for the state, which may be away."""
        if self._hub is None or self.call is None:
            super().abandon(why)
            return
        self.runner.running[self] = None
        try:
            super().abandon(why)
        finally:
            self.runner.running.pop(self, None)

    # Inside

    @property
    def _hub(self) -> Hub | None:
        """None for a task that this process runs on its own threads."""
        return self.runner.hub if isinstance(self.runner, Remote) else None

    @property
    def remote_hub(self) -> Hub:
        """The hub of a task that other processes run."""
        assert isinstance(self.runner, Remote)
        return self.runner.hub

    def _is_claimable(self) -> bool:
        return not self._done and super()._is_claimable()

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Ask the store again and again: 5 ms after the start, and ever more rarely, down to ten times a second."""
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
        if self._done or hub is None or self.trigger is not None or self in self.runner.running:
            return
        store = hub.store
        if store is None:
            return
        record = store.get(self.id)
        if record is not None:
            self._take_over(hub, record)

    def _take_over(self, hub: Hub, record: Record) -> None:
        update(self.summary, record, time.time())
        if not record.is_settled:
            return
        try:
            if record.outcome is not None:
                self._value, self._error = hub.read_outcome(self.id, record.outcome)
            elif record.state == "abandoned":
                self._error = TaskAbandoned(f"The task was {record.error or 'not finished'}.")
            elif record.state == "failed":
                self._error = TaskFailed(record.error or f"Task {self.name} failed.")
            elif record.state == "succeeded":
                raise MessageRefused("The record has no outcome.")
        except MessageRefused as refused:
            # Signed with a key that is gone, or forged: only a caller that asks for the result hears of it.
            self._error = refused
        self._box.clear()
        self._done = True
        self.wake()
