"""The Task: what the caller of `background()` gets, and all that it may use."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from .current import current
from .errors import TaskAbandoned, TaskCancelled
from .progress import Progress, plain_text
from .summaries import State, TaskSummary

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from flask import Flask

T = TypeVar("T")
R = TypeVar("R", covariant=True)


def current_task() -> Task[Any] | None:
    """Return the task that this code runs in, or None outside of one."""
    return current.get()  # type: ignore[no-any-return]


class Task(threading.Thread, Generic[R]):
    """
    One call of `background()`, to be waited on like the thread it stands for.

    `join`, `is_alive`, `name`, `ident`, `native_id` and `daemon` mean what they mean on a `threading.Thread`; a pooled
    thread does the work, so no thread is started for it. The task runs even if its caller drops it.
    """

    # Thread.__init__ is never called: it would cost more than the whole rest of the task. Each public accessor of
    # Thread is overridden instead, and threading's own tables never list a task.

    # A backend makes a RunnableTask (`attempt.py`), which sets these.

    app: Flask
    """The application that the task runs for."""
    _summary: TaskSummary
    _done = False
    _goes_on = False
    _value: Any = None
    _error: BaseException | None = None
    _thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Task {self.name} {self.state} {self.id}>"

    # What every thread has

    @property
    def name(self) -> str:
        """The function's name or the `name` option; used in logs."""
        return self._summary.name

    @name.setter
    def name(self, name: str) -> None:
        self._summary.name = plain_text(str(name))

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
        its caller: itself, one that joins it, one deferred to this response or commit.
        """
        self._join(timeout)

    # What a thread lacks

    @property
    def id(self) -> str:
        """32 characters, the same over all attempts: good as an idempotency key. Not guessable from another id."""
        return self._summary.id

    @property
    def queue(self) -> str:
        """The name of the task's queue."""
        return self._summary.queue

    @property
    def state(self) -> State:
        """`queued`, `running`, `waiting` (for a delay, a retry, the response or the commit), or settled: `succeeded`,
        `failed`, `cancelled`, `abandoned`."""
        return self._summary.state

    @property
    def attempts(self) -> int:
        """How many attempts have begun."""
        return self._summary.attempts

    @property
    def enqueued_at(self) -> datetime:
        """When `background()` was called; aware, in UTC, like the two below."""
        return self._summary.enqueued_at

    @property
    def started_at(self) -> datetime | None:
        """When the latest attempt began."""
        return self._summary.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the task was settled."""
        return self._summary.finished_at

    @property
    def scheduled_at(self) -> datetime | None:
        """The tick of a periodic task; None of any other."""
        return self._summary.scheduled_at

    @property
    def duration(self) -> float | None:
        """Seconds from the start of the latest attempt to its end, or until now; None before the first."""
        return self._summary.duration

    @property
    def error(self) -> str | None:
        """The text of what the latest attempt raised; None if it raised nothing."""
        return self._summary.error

    @property
    def progress(self) -> Progress | None:
        """What the latest attempt has reported last; None before that. Kept when the task is settled."""
        return self._summary.progress

    def as_dict(self) -> dict[str, Any]:
        """Return what a page may show, as `TaskSummary.as_dict()` does."""
        # Looked up where the task runs elsewhere, and with it the rest.
        state = self.state
        return {**self._summary.as_dict(), "state": state}

    # The task of an async function is one of a coroutine to a type checker. To tell that here, and not by two overloads
    # of `background`, is what lets mypy name the argument that does not fit.
    @overload
    def result(self: Task[Coroutine[Any, Any, T]], timeout: float | None = None) -> T: ...
    @overload
    def result(self, timeout: float | None = None) -> R: ...
    def result(self, timeout: float | None = None) -> Any:
        """
        Wait like `join` and return what the function returned.

        Raises what the task raised; TimeoutError when it is not settled within `timeout` seconds; TaskCancelled or
        TaskAbandoned when it never finished.
        """
        error = self.exception(timeout)
        if error is None:
            return self._value
        try:
            # From where it was raised first: each raise adds to the traceback, and so keeps the frames of each caller.
            raise error.with_traceback(self.__dict__.setdefault("_traceback", error.__traceback__))
        finally:
            # The error's traceback holds this frame from here on, and the frame the error: a cycle.
            del error, self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `join` and return what the task raised, or None; raises as `result` does when it never finished."""
        if not self._done:
            self.join(timeout)
        match self._summary.state:
            case "succeeded" | "failed":
                return self._error
            case "cancelled":
                raise TaskCancelled(f"Task {self.name} was cancelled.")
            case "abandoned" if self._goes_on:
                raise TaskAbandoned(f"Task {self.name} goes on in another process.")
            case "abandoned":
                raise TaskAbandoned(
                    f"Task {self.name} was abandoned: its process ended or was forked before it finished."
                )
        raise TimeoutError(f"Task {self.name} is {self.state} after {timeout} s.")

    def cancel(self) -> bool:
        """Keep the task from running. Return False when it already runs, or ran; a cancelled task never runs."""
        return self._cancel()

    def __dir__(self) -> list[str]:
        # What a backend sees of it is of no use to others.
        return [name for name in {*dir(Task), "app"} if name.startswith("__") or not name.startswith("_")]

    # What its backend makes of it

    def _join(self, timeout: float | None) -> None:
        raise NotImplementedError

    def _cancel(self) -> bool:
        raise NotImplementedError
