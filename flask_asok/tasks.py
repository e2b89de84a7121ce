"""The Task: the handle on one call, and the one attempt at a time that it makes in a worker."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import datetime
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from . import process
from .context import Carried, fresh
from .errors import TaskAbandoned, TaskCancelled
from .hints import explain
from .logs import about_of, frames_of, log, log_exception, safe_repr
from .options import NotYet, Options, Retry, cause_of
from .progress import Progress
from .signals import (
    emit,
    task_abandoned,
    task_cancelled,
    task_failed,
    task_retried,
    task_started,
    task_succeeded,
)
from .summaries import LONGEST_ERROR_TEXT, State, TaskSummary

if TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

R = TypeVar("R", covariant=True)

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Carried]

_GENERATORS = frozenset({GeneratorType, AsyncGeneratorType})

_current: ContextVar[Task[Any] | None] = ContextVar("asok.current_task", default=None)


def current_task() -> Task[Any] | None:
    """Return the task that this code runs in, or None outside of one."""
    return _current.get()


class Lane(Protocol):
    """What a task needs of the place that runs it."""

    running: dict[Task[Any], None]
    """The tasks whose attempt is under way, as keys."""

    def watch(self, task: Task[Any], timeout: float) -> None:
        """See to the timeout, in seconds, of an attempt of `task` that begins now in this very thread."""

    def wait(self, task: Task[Any], seconds: float) -> None:
        """Run `task` again after `seconds`, holding no thread meanwhile."""


class Hold(Protocol):
    """What keeps a task from being started."""

    thread: int
    """The identifier of the thread that has to go on before the hold can end."""

    def is_ours(self) -> bool:
        """Does the request or the session of this very context have to end before the hold can?"""


joined: dict[int, Task[Any]] = {}
"""By the identifier of its thread, what each caller outside of tasks waits for now, and without a limit."""
process.after_fork(joined.clear)


class Task(threading.Thread, Generic[R]):
    """
    One call of `background()`, to be waited on like the thread it stands for.

    `join`, `is_alive`, `name`, `ident`, `native_id` and `daemon` mean what they mean on a `threading.Thread`; the work
    is done by a pooled thread, so that no thread is started for it. The task runs all the same when nobody keeps it.
    """

    # Thread.__init__ is never called: it would cost more than the whole rest of the task. Each public accessor of
    # Thread is overridden instead, and threading's own tables never list a task.

    _done = False
    _waiters: list[threading.Lock] = []  # noqa: RUF012 - empty for ever; a task that is waited for gets its own
    _value: Any = None
    _error: BaseException | None = None
    _thread: threading.Thread | None = None
    _awaits: Task[Any] | None = None
    _hold: Hold | None = None
    skips_waits: bool = False
    """Does a retry follow at once? For tests; what is logged and told of it is as ever."""
    stopping: bool = False
    """Was the task asked to stop? Then each report of its progress raises TaskCancelled. For backends."""
    reporter: Callable[[Progress], bool] | None = None
    """
    What a backend sets in order to hear of the progress, at most once a second, in the thread that reports it. Returns
    True to stop the task.
    """
    reported: float = float("-inf")
    """When the reporter was last called, by the monotonic clock."""
    _settler: int | None = None
    """The thread that tells the receivers of the task's end."""
    about: str = ""
    """What a recipe adds to the line that says the task was abandoned: no secret."""
    call: Call | None = None
    """The call that an abandoned task did not make. For recipes, and only while `task_abandoned` is sent."""

    def __init__(self, call: Call, options: Options, summary: TaskSummary, lane: Lane, app: Flask) -> None:
        # Whoever pops the call out of the box has claimed the task, to run or to settle it: one atomic step, no lock.
        self._box = [call]
        self.options = options
        self.summary = summary
        self.lane = lane
        self.app: Flask = app
        """The application that the task runs for."""

    def __repr__(self) -> str:
        return f"<Task {self.name} {self.state} {self.id}>"

    # What every thread has

    @property
    def name(self) -> str:
        """The function's name or the `name` option; used in logs."""
        return self.summary.name

    @name.setter
    def name(self, name: str) -> None:
        self.summary.name = str(name)

    @property
    def ident(self) -> int | None:
        """The identifier of the thread that runs, or ran, the latest attempt; None before."""
        return None if self._thread is None else self._thread.ident

    @property
    def native_id(self) -> int | None:
        """The system's identifier of that thread."""
        return None if self._thread is None else self._thread.native_id

    @property
    def daemon(self) -> bool:
        """True: an interpreter that ends waits `ASOK_SHUTDOWN_TIMEOUT` seconds for its tasks, and no longer."""
        return True

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        raise RuntimeError("A task runs on its backend's threads; their daemon status cannot be set.")

    def is_alive(self) -> bool:
        """Return True until the task is settled."""
        return not self._done

    def start(self) -> NoReturn:
        """Raise RuntimeError, as on any thread that was started."""
        raise RuntimeError("A task is started by background(), and once.")

    def run(self) -> NoReturn:
        """Raise RuntimeError: a backend runs tasks."""
        raise RuntimeError("A task is run by its backend; call the function itself to run it here.")

    if not TYPE_CHECKING:  # For a type checker it is an error already.

        def __await__(self) -> NoReturn:
            raise TypeError("A Task is a thread, not a coroutine. Write `await asyncio.to_thread(task.result)`.")

    def join(self, timeout: float | None = None) -> None:
        """
        Wait until the task is settled, or for `timeout` seconds at most.

        Inside another task it cannot deadlock: a task that is still queued is run right here, and the call then
        returns late if that takes longer than `timeout`. RuntimeError for a task that waits, by however many joins, for
        its caller: itself, one that joins it, one held until this very response or commit.
        """
        if self._done or self._settler == threading.get_ident():
            # Or a signal's receiver, here in this thread, has all there is to wait for.
            return
        waiting = _current.get()
        # Noted before it is looked who waits for whom: of two that do so at the same time one sees the other.
        if waiting is None:
            process.renew()
            thread = threading.get_ident()
            if timeout is None:
                joined[thread] = self
            try:
                self._refuse_circle(None, timeout)
                self._wait(timeout, in_task=False)
            finally:
                joined.pop(thread, None)
        else:
            waiting._awaits = self
            try:
                self._refuse_circle(waiting, timeout)
                self._wait(timeout, in_task=True)
            finally:
                waiting._awaits = None

    # What a thread lacks

    @property
    def id(self) -> str:
        """32 characters, the same over all attempts: good as an idempotency key. Not guessable from another id."""
        return self.summary.id

    @property
    def queue(self) -> str:
        """The name of the task's queue."""
        return self.summary.queue

    @property
    def state(self) -> State:
        """`queued`, `running`, `waiting` (for a delay, a retry, the response or the commit), or settled: `succeeded`,
        `failed`, `cancelled`, `abandoned`."""
        return self.summary.state

    @property
    def attempts(self) -> int:
        """How many attempts have begun."""
        return self.summary.attempts

    @property
    def enqueued_at(self) -> datetime:
        """When `background()` was called; aware, in UTC, like the two below."""
        return self.summary.enqueued_at

    @property
    def started_at(self) -> datetime | None:
        """When the latest attempt began."""
        return self.summary.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the task was settled."""
        return self.summary.finished_at

    @property
    def progress(self) -> Progress | None:
        """What the latest attempt has reported last; None before that. Kept when the task is settled."""
        return self.summary.progress

    def as_dict(self) -> dict[str, Any]:
        """Return what a page may show, as `TaskSummary.as_dict()` does."""
        # Looked up where the task runs elsewhere, and with it the rest.
        state = self.state
        return {**self.summary.as_dict(), "state": state}

    def result(self, timeout: float | None = None) -> R:
        """
        Wait like `join` and return what the function returned.

        Raises what the task raised; TimeoutError when it is not settled within `timeout` seconds; TaskCancelled or
        TaskAbandoned when it never finished.
        """
        error = self.exception(timeout)
        if error is None:
            return self._value  # type: ignore[no-any-return]
        try:
            raise error
        finally:
            # The error's traceback holds this frame from here on, and the frame the error: a cycle.
            del error, self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `join` and return what the task raised, or None; raises as `result` does when it never finished."""
        if not self._done:
            self.join(timeout)
        match self.summary.state:
            case "succeeded" | "failed":
                return self._error
            case "cancelled":
                raise TaskCancelled(f"Task {self.name} was cancelled.")
            case "abandoned":
                raise TaskAbandoned(
                    f"Task {self.name} was abandoned: its process ended or was forked before it finished."
                )
        raise TimeoutError(f"Task {self.name} is {self.state} after {timeout} s.")

    def cancel(self) -> bool:
        """Keep the task from running. Return False when it already runs, or ran; a cancelled task never runs."""
        self.withdraw("cancel() was called")
        return self.summary.state == "cancelled"

    # For backends

    def stop(self) -> bool:
        """Ask the task to stop at the next report of its progress; False when it is settled."""
        self.stopping = True
        return not self._done

    def is_held(self) -> bool:
        """Does the task wait for a response or a commit?"""
        return self._hold is not None

    def claim(self) -> Call | None:
        """Take the call out of the task: of all that try, one gets it, and must run or settle the task."""
        try:
            return self._box.pop()
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
        self.summary.state = state
        self._box.append(call)
        return True

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run one attempt here and now, in `thread`, unless somebody else has claimed it. Return what it raised."""
        try:
            call = self._box.pop()
        except IndexError:
            return None
        summary, lane = self.summary, self.lane
        summary.attempts += 1
        summary._started = time.time()
        summary.progress = None
        summary.state = "running"
        self._thread = thread
        lane.running[self] = None
        value: Any = None
        error: BaseException | None
        try:
            timeout = self.options.timeout
            if timeout is not None:
                lane.watch(self, timeout)
            if task_started.receivers:
                emit(task_started, self.app, task=self)
            value, error = Context().run(_attempt, self, call)
        except BaseException as raised:
            # Ctrl-C, in a caller who runs the task itself: it must come to an end all the same.
            error = raised
        # Missing when a shutdown has abandoned the task: it is settled, and its outcome comes too late.
        if lane.running.pop(self, self) is self:
            return error
        if error is None:
            self._value = value
            self.settle("succeeded", task_succeeded)
            return None
        self._fail_or_wait(call, error)
        try:
            return error
        finally:
            # The frames of the error's traceback lead back to this one, which must not lead to the error: a cycle.
            del self, call, error

    def settle(self, state: State, signal: NamedSignal, **kwargs: Any) -> None:
        """Give the claimed task its last state, tell the receivers of `signal`, then let go who waits."""
        self.summary._finished = time.time()
        self.summary.state = state
        try:
            if signal.receivers:
                self._settler = threading.get_ident()
                emit(signal, self.app, task=self, **kwargs)
        finally:
            # Last, so that whoever joins finds the context torn down, the error logged and the signals sent.
            self._done = True
            if self._waiters:
                self.wake()

    def withdraw(self, why: str | None, level: int = logging.INFO) -> None:
        """Settle as cancelled, and log `why`, unless the task is claimed already; None where the caller is told."""
        if self.claim() is None:
            return
        self._hold = None
        self._settle_cancelled(why, level)

    def _settle_cancelled(self, why: str | None, level: int = logging.INFO) -> None:
        try:
            if why is not None:
                log(
                    level, "Background task %s (%s) cancelled: %s.",
                    self.name, self.id, why, app=self.app, extra=self.log_fields(),
                )  # fmt: skip
        finally:
            self.settle("cancelled", task_cancelled)

    def abandon(self, why: str) -> None:
        """
        Settle as abandoned, log it by name and id, and send `task_abandoned`; nothing where the task is settled.

        A queued or waiting task never runs; of a running one the outcome comes too late.
        """
        call = self.claim()
        if call is None and self.lane.running.pop(self, self) is self:
            return
        self._hold = None
        about = self.about or (about_of(call[1]) if call is not None else "")
        try:
            log(
                logging.ERROR, "Background task %s (%s) abandoned while %s: %s.",
                self.name, self.id, self.state, f"{why} ({about})" if about else why,
                app=self.app, extra=self.log_fields(),
            )  # fmt: skip
        finally:
            self.call = call
            self.settle("abandoned", task_abandoned)
            self.call = None

    def lose(self) -> None:
        """Settle as abandoned without a word: in a forked child, whose parent goes on with the task."""
        self._box.clear()
        self.summary.state = "abandoned"
        self._done = True
        self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        waiters = self._waiters
        # The first ones, and as many as there are now: whoever finds nothing changed waits again, at the end.
        for _ in range(len(waiters)):
            try:
                waiters.pop(0).release()
            except IndexError:  # pragma: no cover - a waiter timed out meanwhile
                break

    def log_fields(self) -> dict[str, Any]:
        """Return the `extra` fields of a log record about this task."""
        summary = self.summary
        started = summary._started or time.time()
        return {
            "task_id": summary.id,
            "task_name": summary.name,
            "task_queue": summary.queue,
            "task_attempt": summary.attempts,
            "task_queued_ms": round((started - summary._enqueued) * 1000, 3),
            "task_duration_ms": round((summary.duration or 0.0) * 1000, 3),
        }

    def _fail_or_wait(self, call: Call, error: BaseException) -> None:
        summary = self.summary
        if isinstance(error, NotYet):
            summary.attempts -= 1
            self._wait_for_turn(call, error.after)
            return
        if self.stopping and isinstance(error, TaskCancelled):
            self._settle_cancelled("it was asked to stop")
            return
        seconds = self._seconds_to_retry(error)
        # Whatever happens while it is told, Ctrl-C in a caller who runs the task itself: somebody waits for its end.
        if seconds is not None:
            try:
                self._tell_of_retry(error, seconds)
            finally:
                self._wait_for_turn(call, 0.0 if self.skips_waits else seconds)
            return
        error = cause_of(error)
        self._error = error
        try:
            summary.error = safe_repr(error)[:LONGEST_ERROR_TEXT]
            log(
                logging.ERROR, "Background task %s failed: %r",
                summary.name, error, exc_info=frames_of(error, error), app=self.app, extra=self.log_fields(),
            )  # fmt: skip
        finally:
            self.settle("failed", task_failed, error=error)

    def _tell_of_retry(self, error: BaseException, seconds: float) -> None:
        summary, cause = self.summary, cause_of(error)
        summary.error = safe_repr(cause)[:LONGEST_ERROR_TEXT]
        log(
            logging.WARNING, "Background task %s failed (attempt %s of %s, next in %.3g s): %r",
            summary.name, summary.attempts, self.options.retries + 1, seconds, cause,
            exc_info=frames_of(error, cause), app=self.app, extra=self.log_fields(),
        )  # fmt: skip
        summary.state = "waiting"
        if task_retried.receivers:
            emit(task_retried, self.app, task=self, error=error, wait=seconds)

    def _wait_for_turn(self, call: Call, seconds: float) -> None:
        self.summary.state = "waiting"
        self._box.append(call)
        self.lane.wait(self, seconds)

    def _seconds_to_retry(self, error: BaseException) -> float | None:
        options, attempts = self.options, self.summary.attempts
        if attempts > options.retries or not isinstance(error, (Retry, *options.retry_on)):
            return None
        if isinstance(error, Retry) and error.after is not None:
            return error.after
        try:
            return options.wait_before(attempts + 1)
        except BaseException as wrong:
            log_exception("Backoff of background task %s failed: %r", self.name, wrong, app=self.app)
            return None

    def _refuse_circle(self, waiting: Task[Any] | None, timeout: float | None) -> None:
        """Raise RuntimeError where this task, by however many joins, waits for who joins it here."""
        if self._awaits is None and self._hold is None and self is not waiting:
            return
        link: Task[Any] | None = self
        seen = set()
        while link is not None and link not in seen:
            seen.add(link)
            hold = link._hold
            if link is waiting:
                raise RuntimeError(
                    f"Task {waiting.name} cannot join {self.name}, which waits for {waiting.name} itself."
                )
            # A view may wait a while, and then answer, for a task that goes on after the response.
            if hold is not None and (link is self or timeout is None) and _is_ended_here(hold, waiting):
                what = self.name if link is self else f"{self.name} waits for {link.name}, which"
                raise RuntimeError(
                    f"Task {what} starts after this response or commit: joining it here would never end."
                )
            link = link._awaits if hold is None else joined.get(hold.thread)

    def _wait(self, timeout: float | None, *, in_task: bool) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._done:
            if in_task and timeout != 0 and self._is_claimable():
                self.perform(threading.current_thread())
            elif deadline is None:
                self._wait_for_change(-1, in_task)
            elif (left := deadline - time.monotonic()) > 0:
                self._wait_for_change(left, in_task)
            else:
                return

    def _is_claimable(self) -> bool:
        return bool(self._box) and self.summary.state == "queued"

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Wait until the task is settled or queued again, for `seconds` at most, or without limit when -1."""
        lock = threading.Lock()
        lock.acquire()
        waiters: list[threading.Lock] = self.__dict__.setdefault("_waiters", [])
        waiters.append(lock)
        # It may have changed before it could see that somebody waits.
        changed = self._done or (in_task and self._is_claimable())
        if not changed:
            changed = lock.acquire(timeout=seconds)
        if not changed:
            with contextlib.suppress(ValueError):
                waiters.remove(lock)


def _is_ended_here(hold: Hold, waiting: Task[Any] | None) -> bool:
    # A task may be run by its caller, and then waits in the thread that is to end the hold.
    return hold.is_ours() or (waiting is not None and hold.thread == threading.get_ident())


def _attempt(task: Task[Any], call: Call) -> tuple[Any, BaseException | None]:
    """Call the function in a fresh app context; return its value or its error once that context is torn down."""
    fn, args, kwargs, carried = call
    value: Any = None
    error: BaseException | None = None
    app, _, variables, _ = carried
    for variable, carried_value in variables:
        variable.set(carried_value)
    _current.set(task)
    try:
        context = fresh(carried)
        context.push()
    except BaseException as raised:
        del task
        return None, raised
    try:
        value = fn(*args, **kwargs)
        if type(value) is CoroutineType:
            value = _run_coroutine(app, value)
        if type(value) in _GENERATORS:
            raise TypeError(f"{task.name} returned a generator, of which nothing has run. Loop over it in a task.")
    except BaseException as raised:
        # Without this frame, which is noise in the log.
        error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
        explain(error)
    try:
        context.pop(error)
    except BaseException as raised:
        log_exception("Teardown after background task %s failed: %r", task.name, raised, app=app)
    if error is None:
        return value, None
    try:
        return None, error
    finally:
        # As in `perform`: the next frame of the traceback leads back to this one.
        del task, call, error


def _run_coroutine(app: Flask, coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    async def outcome() -> Any:
        return await coroutine

    try:
        run = app.ensure_sync(outcome)
    except RuntimeError:
        # Flask's "async" extra is not installed; its text says so. Not to be awaited any more.
        coroutine.close()
        raise
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    # An `async def` view or task runs this one itself, and its event loop, which waits meanwhile, can take no other.
    return _run_beside(run)


def _run_beside(run: Callable[[], Any]) -> Any:
    """Run in a thread of its own, in this very context, and wait."""
    outcomes: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        try:
            outcomes.append((run(), None))
        except BaseException as error:
            outcomes.append((None, error))

    thread = threading.Thread(target=copy_context().run, args=(work,), name="asok-async", daemon=True)
    thread.start()
    thread.join()
    value, error = outcomes.pop()
    if error is None:
        return value
    try:
        raise error
    finally:
        # As in `result`: a cycle otherwise.
        del error
