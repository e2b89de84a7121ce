"""Deferred tasks, which wait for a response or a commit: each is started, cancelled or abandoned, none is lost."""

from __future__ import annotations

import _thread
import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flask import Flask

from .. import process
from ..attempt import RunnableTask
from ..logs import log_exception
from ..task_log import SHUTS_DOWN
from ..waiting import Trigger

Start = Callable[..., None]


class Deferred(NamedTuple):
    """A task, and what starts it."""

    task: RunnableTask[Any]
    start: Start


# Not a WeakSet: one thread may add a task while another looks through all.
_deferred: dict[int, weakref.ref[RunnableTask[Any]]] = {}


def wait_for(trigger: Trigger, task: RunnableTask[Any]) -> None:
    """Note that `task` waits for `trigger`."""
    number = id(task)
    task.trigger = trigger
    _deferred[number] = weakref.ref(task, lambda _: _deferred.pop(number, None))


def all_deferred() -> Iterator[RunnableTask[Any]]:
    """Yield the tasks of this process, of whatever application, that wait for a response or a commit."""
    process.renew()
    for reference in list(_deferred.values()):
        task = reference()
        if task is not None:
            yield task


def abandon_deferred(app: Flask | None = None) -> None:
    """Abandon, at the end of `app` or of the process, the tasks whose response or commit has not come."""
    for task in all_deferred():
        if app is None or task.app is app:
            task.app.extensions["asok"].backend.abandon(task, SHUTS_DOWN)


def _leave_to_parent() -> None:
    """Leave to the parent, in a forked child, the tasks that wait for the parent's responses and commits."""
    for task in all_deferred():
        task.trigger = None
        task.mark_abandoned()
    _deferred.clear()


# After the backends have closed: until then a response may still come to its end.
process.at_exit(abandon_deferred, last=True)
process.after_fork(_leave_to_parent)


def release(task: RunnableTask[Any], start: Start, *, bounded: bool) -> None:
    """Start a deferred task, once. Its caller is gone and can catch nothing, so errors are logged."""
    if _end_wait(task):
        _start(task, start, bounded)


def release_all(deferred: list[Deferred], *, bounded: bool) -> None:
    """Empty `deferred` and start each. One that runs in this thread may raise SystemExit, which is raised last."""
    interrupted: BaseException | None = None
    while deferred:
        # Another thread may be at it too.
        with contextlib.suppress(IndexError):
            task, start = deferred.pop(0)
            try:
                release(task, start, bounded=bounded)
            except BaseException as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted


def cancel_all(deferred: list[Deferred], why: str, level: int = logging.INFO) -> None:
    """Empty `deferred`, cancel each, and log why."""
    while deferred:
        with contextlib.suppress(IndexError):
            deferred.pop(0).task.withdraw(why, level)


def release_dropped(deferred: list[Deferred]) -> None:
    """Start the tasks of an object that the garbage collector has found."""
    ready = [each for each in deferred if _end_wait(each.task)]
    if ready:
        _beside(_start_all, ready)


def cancel_dropped(deferred: list[Deferred], why: str) -> None:
    """Cancel the tasks of an object that the garbage collector has found; a warning says why."""
    ready = [each for each in deferred if each.task.is_deferred()]
    if ready:
        _beside(cancel_all, ready, why, logging.WARNING)


def _end_wait(task: RunnableTask[Any]) -> bool:
    """Take the trigger from the task; False if another thread has done so."""
    trigger, task.trigger = task.trigger, None
    return trigger is not None


def _start(task: RunnableTask[Any], start: Start, bounded: bool) -> None:
    requeued = task.requeue()
    _deferred.pop(id(task), None)
    if not requeued:
        return
    task.summary.due = time.time()
    try:
        start(task, bounded=bounded)
    except Exception as error:
        log_exception(
            "Background task %s (%s) could not be started: %r",
            task.name, task.id, error, app=task.app, extra=task.log_fields(),
        )  # fmt: skip
        task.cancel()
    # A task that joins this one may have the only thread: now it may run this one itself.
    task.wake()


def _start_all(deferred: list[Deferred]) -> None:
    for task, start in deferred:
        _start(task, start, False)


def _beside(work: Callable[..., None], *args: object) -> None:
    """
    Call `work(*args)` in a thread of its own: the garbage collector may have interrupted code that holds a lock.

    Not a `threading.Thread`, whose start takes a lock too.
    """
    try:
        _thread.start_new_thread(work, args)
    except RuntimeError:  # pragma: no cover - the system gives no more threads, or the interpreter ends
        work(*args)
