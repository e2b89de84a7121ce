"""One attempt of a task: claimed, run in its own context, and settled or tried again."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import Context
from sys import modules
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from .calls import Call, Parts, make
from .current import current
from .errors import TaskCancelled
from .logs import about_of, log_exception, safe_repr
from .options import Options
from .retries import NotYet, cause_of, has_no_threads, next_wait
from .signals import emit, task_abandoned, task_cancelled, task_failed, task_retried, task_started, task_succeeded
from .summaries import LONGEST_ERROR_TEXT, State, TaskSummary
from .task_log import ASKED_TO_STOP, SHUTS_DOWN, log_abandoned, log_cancelled, log_failed, log_retry
from .telemetry.tracing import begin
from .waiting import JoinableTask, Runner, Trigger

if TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

R = TypeVar("R", covariant=True)


def running_task() -> RunnableTask[Any] | None:
    """Return the task that this code runs in, as a backend or a recipe sees it, or None outside of one."""
    return current.get()  # type: ignore[no-any-return]


class RunnableTask(JoinableTask[R]):
    """
    A Task as its backend sees it, which makes it, runs it and settles it.

    `background()` returns it as a Task, on which a type checker, an editor and `dir()` show none of this.
    """

    skips_waits: bool = False
    """Does a retry follow at once? For tests; logs and signals still tell the real wait."""
    about: str = ""
    """What a recipe adds to the log line of an abandoned task; no secret."""
    _unmade: list[Parts] = []  # noqa: RUF012 - empty for ever; an abandoned task gets its own

    def __init__(self, call: Parts, options: Options, summary: TaskSummary, runner: Runner, app: Flask) -> None:
        # Thread.__init__ is left out on purpose: see Task.
        # To pop the call out of the box is to claim the task, to run or settle it: one atomic step, no lock.
        self._box = [call]
        self._summary = summary
        summary.task = ref(self)
        self.options = options
        self.runner = runner
        self.app = app

    @property
    def summary(self) -> TaskSummary:
        """What is remembered of the task, which follows it."""
        return self._summary

    @property
    def call(self) -> Call | None:
        """The call that is still to be made; of an abandoned task, while `task_abandoned` is sent, the one not made."""
        found = self._box[:1] or self._unmade
        return Call._make(found[0]) if found else None

    def claim(self) -> Call | None:
        """Take the call out of the task. Of all threads that try, one gets it and must run or settle the task."""
        try:
            return Call._make(self._box.pop())
        except IndexError:
            return None

    def requeue(self) -> bool:
        """Make a waiting task a queued one; False when it was cancelled meanwhile. Call `wake` once it is queued."""
        return self._become("queued")

    def postpone(self) -> bool:
        """Make a queued task a waiting one; False when it was cancelled meanwhile."""
        return self._become("waiting")

    def _become(self, state: State) -> bool:
        call = self.claim()
        if call is None:
            return False
        self._summary.state = state
        self._box.append(call)
        return True

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run one attempt here and now, in `thread`, unless another thread has claimed it. Return what it raised."""
        summary, runner = self._summary, self.runner
        if summary.state != "queued":
            # Another task may have run it in place, and it waits for its retry by now.
            return None
        try:
            call = self._box.pop()
        except IndexError:
            return None
        # First: a shutdown must see a task that is being written down.
        runner.running[self] = around = Context()
        if self.journal is not None and (over := self.journal.begin(self, call[0])):
            if runner.running.pop(self, self) is not self:
                if over == "cancelled":
                    self._settle_cancelled("another process cancelled it")
                else:
                    self.mark_abandoned(goes_on=True)
            return None
        summary.state = "running"
        if self not in runner.running:
            # A shutdown came in between, and could not know of this attempt.
            summary.state = "abandoned"
            if self.journal is not None:
                self.journal.leave(self)
            return None
        summary.attempts += 1
        summary.started = time.time()
        summary.progress = None
        self._thread = thread
        error = around.run(self._attempt, call)
        try:
            return error
        finally:
            # The frames of the error's traceback lead back to this one, which must not lead to the error: a cycle.
            del self, call, around, error

    def _attempt(self, call: Parts) -> BaseException | None:
        """Make the call, and see to its outcome, in the attempt's own context: what is logged and signalled too."""
        runner = self.runner
        error: BaseException | None
        try:
            for variable, captured_value in call[3][2]:
                variable.set(captured_value)
            current.set(self)
            if "sentry_sdk" in modules or "opentelemetry.trace" in modules:
                self.tracing = begin(self, call[0])
            if self.options.timeout is not None:
                runner.watch(self, self.options.timeout)
            if task_started.receivers:
                emit(task_started, self.app, task=self)
            value, error = make(call, self)
        except BaseException as raised:
            # Ctrl-C, in a caller that runs the task itself: the task must still come to an end.
            error = raised
        if self.journal is not None and has_no_threads(error) and self.app.extensions["asok"].backend.is_closed:
            self.abandon(f"{SHUTS_DOWN}: {error}")
        # Missing when a shutdown has abandoned the task: it is settled, and its outcome comes too late.
        if runner.running.pop(self, self) is not self:
            if error is not None:
                self._fail_or_wait(call, error)
            else:
                self._value = value
                self.settle("succeeded", task_succeeded)
        try:
            return error
        finally:
            # As in `perform`; and a Sentry scope, say, is not to live as long as the error.
            captured_value = None
            del self, call, error

    def replace_call(self, call: Parts) -> None:
        """Let the task, which is not started yet, make another call."""
        self._box[:] = [call]

    def settle(self, state: State, signal: NamedSignal, **kwargs: Any) -> None:
        """Give the claimed task its last state, send `signal`, then release the waiting threads."""
        self._summary.finished = time.time()
        self._summary.state = state
        try:
            if signal.receivers:
                self._settler = threading.get_ident()
                emit(signal, self.app, task=self, **kwargs)
        finally:
            try:
                if self.tracing is not None:
                    self.end_tracing(state)
                if self.journal is not None:
                    self.journal.settle(self, state, self._value, self._error)
            finally:
                # Last: a caller that joins finds the context torn down, the error logged and the signals sent.
                self._done = True
                if self._waiters:
                    self.wake()

    def withdraw(self, why: str | None, level: int = logging.INFO) -> None:
        """Settle as cancelled, and log `why`, unless the task is claimed already. Without `why` the caller raises."""
        if self.claim() is None:
            return
        self.trigger: Trigger | None = None
        self._settle_cancelled(why, level)

    def _settle_cancelled(self, why: str | None, level: int = logging.INFO) -> None:
        try:
            if why is not None:
                log_cancelled(self, why, level)
        finally:
            self.settle("cancelled", task_cancelled)

    def abandon(self, why: str) -> None:
        """Settle as abandoned, log it by name and id, and send `task_abandoned`; a durable one goes on elsewhere."""
        call = self.claim()
        if call is not None:
            self._abandon(why, call)
            return
        around = self.runner.running.pop(self, self)
        if around is not self:
            # The attempt's own context is entered in its own thread.
            (around.copy() if around else Context()).run(self._abandon, why, None)

    def _abandon(self, why: str, call: Call | None) -> None:
        if self.journal is not None and self.journal.hand_over(self):
            self.end_tracing("abandoned")
            self.mark_abandoned(goes_on=True)
            return
        self.trigger = None
        about = self.about or (about_of(call.args) if call is not None else "")
        try:
            log_abandoned(self, f"{why} ({about})" if about else why)
        finally:
            self._unmade = [] if call is None else [call]
            self.settle("abandoned", task_abandoned)
            self._unmade = []

    def mark_abandoned(self, *, goes_on: bool = False) -> None:
        """Mark as abandoned, without logging or signals: another process, such as a forked child's parent, has it."""
        self._goes_on = goes_on
        self._box.clear()
        self._summary.state = "abandoned"
        self._done = True
        self.wake()

    def log_fields(self) -> dict[str, Any]:
        """Return the `extra` fields of a log record about this task."""
        return self._summary.log_fields()

    def _fail_or_wait(self, call: Parts, error: BaseException) -> None:
        summary = self._summary
        if isinstance(error, NotYet):
            summary.attempts -= 1
            self.tracing = None
            try:
                self._put_back(call, error.after, None)
            finally:
                self.runner.wait(self, error.after)
            return
        if self.stopping and isinstance(error, TaskCancelled):
            self._settle_cancelled(ASKED_TO_STOP)
            return
        seconds, cause = self._seconds_to_retry(error), cause_of(error)
        # Whatever the log and the signal raise, Ctrl-C for one: a caller may wait for the end of this task.
        try:
            summary.error = safe_repr(cause)[:LONGEST_ERROR_TEXT]
            if self.tracing is not None:
                self.tracing.failed(cause, is_last=seconds is None)
            if seconds is None:
                log_failed(self, cause)
            else:
                log_retry(self, error, seconds, self.options.retries + 1)
        finally:
            if seconds is None:
                self._error = cause
                self.settle("failed", task_failed, error=cause)
            else:
                self._retry(call, error, seconds)

    def _retry(self, call: Parts, error: BaseException, seconds: float) -> None:
        wait = 0.0 if self.skips_waits else seconds
        try:
            self._put_back(call, wait, error)
            if task_retried.receivers:
                emit(task_retried, self.app, task=self, error=error, wait=seconds)
        finally:
            self.end_tracing("waiting")
            self.runner.wait(self, wait)

    def _put_back(self, call: Parts, seconds: float, error: BaseException | None) -> None:
        # First the call: what is seen to wait can be cancelled.
        self._box.append(call if self.journal is None else self.journal.renewed(call))
        self._summary.state = "waiting"
        if self.journal is not None:
            self.journal.wait(self, seconds, error)

    def _seconds_to_retry(self, error: BaseException) -> float | None:
        try:
            return next_wait(self.options, self._summary.attempts, error)
        except BaseException as wrong:
            text = "Backoff of background task %s failed: %r"
            log_exception(text, self.name, wrong, app=self.app, extra=self.log_fields())
            return None

    def _cancel(self) -> bool:
        self.withdraw("cancel() was called")
        return self._summary.state == "cancelled"

    def _is_claimable(self) -> bool:
        return bool(self._box) and self._summary.state == "queued"
