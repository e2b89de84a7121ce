"""What a task reports while it runs: its progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, TypeVar, overload

from .attempt import running_task
from .errors import TaskCancelled
from .progress import Progress

T = TypeVar("T")

EVERY_SECONDS = 1.0
"""How often `track` reports, and a reporter is told, at most."""


def report_progress(done: float, total: float | None = None, text: str | None = None) -> None:
    """
    Tell how far the task that this code runs in has come: `done` of `total`, and a text of up to 200 characters.

    Outside of a task it does nothing. TypeError for another type, ValueError for a number that is negative or not
    finite. Raises TaskCancelled once the task was asked to stop, by `asok.cancel(id, running=True)`: let it
    through.
    """
    task = running_task()
    if task is None:
        return
    progress = Progress.of(done, total, text, time.time())
    if task.summary.state != "running":
        # A thread that has this context and outlives the attempt, or one whose task was abandoned at a shutdown.
        return
    task.summary.progress = progress
    reporter = task.reporter
    if reporter is not None and (now := time.monotonic()) - task.reported >= EVERY_SECONDS:
        task.reported = now
        if reporter(progress):
            task.stopping = True
    if task.stopping:
        raise TaskCancelled(f"Task {task.name} was asked to stop.")


@overload
def track(iterable: Iterable[T], total: float | None = None, text: str | None = None) -> Iterator[T]: ...
@overload
def track(iterable: AsyncIterable[T], total: float | None = None, text: str | None = None) -> AsyncIterator[T]: ...


def track(iterable: Any, total: float | None = None, text: str | None = None) -> Any:
    """
    Yield the items, and report how many of them are done: `for row in track(rows):`, or `async for`.

    `total` is `len(iterable)` where that has a length. It reports at the first item, then at most once a second, and at
    the end; not at the end where the loop is left early. Raises as `report_progress` does, at the next item where the
    task was asked to stop.
    """
    if total is None:
        # A range may be too long for len(), and a proxy may have no length though its type does.
        with contextlib.suppress(TypeError, OverflowError):
            total = len(iterable)
    steps = _Steps(total, text)
    if isinstance(iterable, AsyncIterable):
        return _track_async(iterable, steps)
    return _track(iter(iterable), steps)


def _track(items: Iterator[T], steps: _Steps) -> Iterator[T]:
    for item in items:
        steps.take()
        yield item
        steps.done += 1
    steps.report()


async def _track_async(items: AsyncIterable[T], steps: _Steps) -> AsyncIterator[T]:
    async for item in items:
        steps.take()
        yield item
        steps.done += 1
    steps.report()


class _Steps:
    """The items of one loop that are done."""

    def __init__(self, total: float | None, text: str | None) -> None:
        self.done = 0
        self._total = total
        self._text = text
        self._due = float("-inf")

    def take(self) -> None:
        """Report before the next item, if it is time to."""
        task = running_task()
        if task is not None and (time.monotonic() >= self._due or task.stopping):
            self._due = time.monotonic() + EVERY_SECONDS
            self.report()

    def report(self) -> None:
        report_progress(self.done, self._total, self._text)
