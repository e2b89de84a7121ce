"""Joins that cannot deadlock: a task that waits runs the other one in its place, and a circle is refused."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from . import process
from .aside import start_aside
from .current import current
from .progress import Progress
from .summaries import State
from .tasks import Task
from .telemetry.tracing import Tracing

R = TypeVar("R", covariant=True)


class Trigger(Protocol):
    """What a deferred task waits for: the end of a response, or a commit."""

    thread: int
    """The identifier of the thread that has to go on before it can come."""

    def is_ours(self) -> bool:
        """Does it wait for the end of the current context's request or session?"""


class Journal(Protocol):
    """What a task writes down of itself for other processes; see `journal.py`. None of it raises."""

    def release(self, task: Any) -> bool:
        """Note that a deferred task is queued; False if it must not run."""

    def begin(self, task: Any, fn: Any) -> State | None:
        """Note that an attempt begins, which calls `fn`; return the state that the task has if it must not be made."""

    def free_at_start(self, task: Any) -> None:
        """Note that the attempt is not put off any more, if its function says that itself."""

    def leave(self, task: Any) -> None:
        """Note that the attempt is not made, since a shutdown has abandoned the task meanwhile."""

    def renewed(self, call: Any) -> Any:
        """Return what the next attempt calls."""

    def hand_over(self, task: Any) -> bool:
        """Leave the task to another process; False if none can run it."""

    def wait(self, task: Any, seconds: float, error: BaseException | None) -> None:
        """Note that the next attempt comes in `seconds`."""

    def settle(self, task: Any, state: State, value: Any, error: BaseException | None) -> None:
        """Record the last state, with the value or the error."""


class Runner(Protocol):
    """What a task needs of the place that runs it."""

    running: dict[Any, Any]
    """The tasks whose attempt is under way, each with the context that it runs in."""

    def watch(self, task: Any, timeout: float) -> None:
        """Watch the attempt of `task` that starts now in this thread; `timeout` is in seconds."""

    def wait(self, task: Any, seconds: float) -> None:
        """Run `task` again after `seconds`, holding no thread meanwhile."""


waits: dict[object, JoinableTask[Any]] = {}
"""What each caller waits for now, by the task that it is. One outside of tasks is known by the identifier of its
thread, and stands here only where it waits without a limit."""

process.after_fork(waits.clear)


class waiting_for:  # noqa: N801 - used as a statement
    """Note for this block that its code waits for `task`. It is a class: a generator would cost twice as much."""

    __slots__ = ("_key",)

    def __init__(self, task: JoinableTask[Any], timeout: float | None = None) -> None:
        process.renew()
        caller: JoinableTask[Any] | None = current.get()
        self._key: object = threading.get_ident() if caller is None else caller
        if caller is not None or timeout is None:
            waits[self._key] = task

    def __enter__(self) -> JoinableTask[Any] | None:
        """Return the task that the code runs in, or None."""
        return None if isinstance(self._key, int) else self._key  # type: ignore[return-value]

    def __exit__(self, *_: object) -> None:
        waits.pop(self._key, None)


def threads_that_wait() -> set[int | None]:
    """Return the identifiers of the threads that wait, by however many joins, for the task that this code runs in."""
    found: set[int | None] = set()
    links: list[object] = [current.get()]
    while links and (link := links.pop()) is not None:
        for waiter, task in waits.copy().items():
            ident = waiter.ident if isinstance(waiter, JoinableTask) else waiter
            if task is link and ident not in found:
                found.add(ident)  # type: ignore[arg-type]
                links.append(waiter)
    return found


class JoinableTask(Task[R]):
    """A Task that can be waited for, and asked to stop."""

    journal: Journal | None = None
    """What writes the task down; None of a task that only this process knows."""
    trigger: Trigger | None = None
    """What a deferred task waits for; None of any other."""
    tracing: Tracing | None = None
    """What Sentry and OpenTelemetry have of the attempt that is under way; None in a process that has neither."""
    is_in_worker: bool = False
    """Does an attempt go on with the scopes and the span that an engine's worker has begun for it?"""
    stopping: bool = False
    """Was the task asked to stop? Then each report of its progress raises TaskCancelled."""
    reporter: Callable[[Progress], bool] | None = None
    """Hears of the progress at most once a second, in the reporting thread; returns True to stop the task."""
    reported: float = float("-inf")
    """When the reporter was last called, by the monotonic clock."""
    nesting: int = 0
    """How many tasks, each started by the one before and run while that waits, lead to this one; it is counted too."""
    _waiters: list[threading.Lock] = []  # noqa: RUF012 - empty for ever; a task that is waited for gets its own
    _settler: int | None = None
    """The thread that tells the receivers of the task's end."""

    @property
    def goes_on(self) -> bool:
        """Has this process left the task to another one?"""
        return self._goes_on

    def stop(self) -> bool:
        """Ask the task to stop at the next report of its progress; False when it is settled."""
        self.stopping = True
        return not self._done

    def is_deferred(self) -> bool:
        """Does the task wait for a response or a commit?"""
        return self.trigger is not None

    def end_tracing(self, state: State) -> None:
        """End what Sentry and OpenTelemetry have of the attempt, which has left the task in `state`."""
        tracing, self.tracing = self.tracing, None
        if tracing is not None:
            tracing.ended(state)

    def _join(self, timeout: float | None) -> None:
        if self._done or self._settler == threading.get_ident():
            # A signal's receiver, in the settling thread itself, has nothing left to wait for.
            return
        # Noted before the look: of two callers that join each other at the same time, one sees the other.
        with waiting_for(self, timeout) as caller:
            self._refuse_circle(caller, timeout)
            self._wait(timeout, in_task=caller is not None)

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run one attempt here and now."""
        raise NotImplementedError

    def perform_aside(self) -> BaseException | None:
        """
        Run one attempt in a thread of its own while this one waits; here if there is no thread to be had.

        In this one its teardown would end the caller's database session, if that belongs to the thread, and an `async`
        caller has its event loop running.
        """
        try:
            outcome = start_aside(lambda: self.perform(threading.current_thread()), f"asok-{self.queue}")
        except RecursionError:
            # A RuntimeError as well: here there is no room for an attempt.
            raise
        except RuntimeError:
            return self.perform(threading.current_thread())
        return outcome()

    def wake(self) -> None:
        """Let every waiting thread look again."""
        waiters = self._waiters
        # The first ones, and as many as there are now: one that finds nothing changed waits again, at the end.
        for _ in range(len(waiters)):
            try:
                waiters.pop(0).release()
            except IndexError:  # pragma: no cover - a waiter timed out meanwhile
                break

    def _is_claimable(self) -> bool:
        raise NotImplementedError

    def _refuse_circle(self, waiting: JoinableTask[Any] | None, timeout: float | None) -> None:
        """Raise RuntimeError if this task, by however many joins, waits for the caller."""
        if self not in waits and self.trigger is None and self is not waiting:
            return
        link: JoinableTask[Any] | None = self
        seen = set()
        while link is not None and link not in seen:
            seen.add(link)
            trigger = link.trigger
            if link is waiting:
                raise RuntimeError(
                    f"Task {waiting.name} cannot join {self.name}, which waits for {waiting.name} itself."
                )
            # A view may wait a while, and then answer, for a task that goes on after the response.
            if trigger is not None and (link is self or timeout is None) and _comes_after(trigger, waiting):
                what = self.name if link is self else f"{self.name} waits for {link.name}, which"
                raise RuntimeError(
                    f"Task {what} starts after this response or commit: joining it here would never end."
                )
            link = waits.get(link if trigger is None else trigger.thread)

    def _wait(self, timeout: float | None, *, in_task: bool) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        only_looks = timeout is not None and timeout <= 0
        while not self._done:
            if in_task and not only_looks and self._is_claimable():
                self.perform_aside()
            elif deadline is None:
                self._wait_for_change(-1, in_task)
            elif (left := deadline - time.monotonic()) > 0:
                self._wait_for_change(left, in_task)
            else:
                return

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Wait until the task is settled or queued again, for `seconds` at most, or without limit when -1."""
        lock = threading.Lock()
        lock.acquire()
        waiters: list[threading.Lock] = self.__dict__.setdefault("_waiters", [])
        waiters.append(lock)
        # The task may have changed before it could see this waiter.
        changed = self._done or (in_task and self._is_claimable())
        if not changed:
            changed = lock.acquire(timeout=seconds)
        if not changed:
            with contextlib.suppress(ValueError):
                waiters.remove(lock)


def _comes_after(trigger: Trigger, waiting: JoinableTask[Any] | None) -> bool:
    """Does the trigger wait for this code to go on?"""
    # Where there is no further thread to be had, a task runs in the very one that is to go on.
    return trigger.is_ours() or (waiting is not None and trigger.thread == threading.get_ident())
