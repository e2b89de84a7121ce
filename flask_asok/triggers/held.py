"""The tasks that are held: each is started, cancelled or abandoned, and none is lost."""

from __future__ import annotations

import _thread
import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

from .. import process
from ..attempt import RunnableTask
from ..logs import log_exception
from ..waiting import Trigger

Start = Callable[..., None]
Held = tuple[RunnableTask[Any], Start]

# Not a WeakSet: one thread may add a task while another looks through all.
_held: dict[int, weakref.ref[RunnableTask[Any]]] = {}


def keep(task: RunnableTask[Any], hold: Trigger) -> None:
    """Note that `hold` keeps `task` from being started."""
    number = id(task)
    task.trigger = hold
    _held[number] = weakref.ref(task, lambda _: _held.pop(number, None))


def all_held() -> Iterator[RunnableTask[Any]]:
    """Yield the tasks of this process, of whatever application, that wait for a response or a commit."""
    process.renew()
    for reference in list(_held.values()):
        task = reference()
        if task is not None:
            yield task


def abandon_held(app: Flask | None = None) -> None:
    """Abandon, at the end of `app` or of the process, the tasks whose response or commit has not come."""
    for task in all_held():
        if app is None or task.app is app:
            task.app.extensions["asok"].backend.abandon(task, "the application shuts down")


def _lose_in_child() -> None:
    """Leave to the parent, in a forked child, what waits for the parent's responses and commits."""
    for task in all_held():
        task.trigger = None
        task.lose()
    _held.clear()


# After the backends have closed: until then a response may still come to its end.
process.at_exit(abandon_held, last=True)
process.after_fork(_lose_in_child)


def release(task: RunnableTask[Any], start: Start, *, bounded: bool) -> None:
    """Start a held task, once. Nobody is left to raise to, so what goes wrong is logged."""
    if _let_go(task):
        _start(task, start, bounded)


def release_all(held: list[Held], *, bounded: bool) -> None:
    """Empty `held` and start each, though one that its releaser must run itself may raise SystemExit, which goes up."""
    interrupted: BaseException | None = None
    while held:
        # Another thread may be at it too.
        with contextlib.suppress(IndexError):
            task, start = held.pop(0)
            try:
                release(task, start, bounded=bounded)
            except BaseException as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted


def cancel_all(held: list[Held], why: str, level: int = logging.INFO) -> None:
    """Empty `held`, cancel each, and log why."""
    while held:
        with contextlib.suppress(IndexError):
            held.pop(0)[0].withdraw(why, level)


def release_dropped(held: list[Held]) -> None:
    """Start what is held by an object that the garbage collector has found."""
    ready = [(task, start) for task, start in held if _let_go(task)]
    if ready:
        _beside(_start_all, ready)


def cancel_dropped(held: list[Held], why: str) -> None:
    """Cancel what is held by an object that the garbage collector has found; a warning says why."""
    ready = [(task, start) for task, start in held if task.is_held()]
    if ready:
        _beside(cancel_all, ready, why, logging.WARNING)


def _let_go(task: RunnableTask[Any]) -> bool:
    """Take the task out of its hold; False where that is done."""
    hold, task.trigger = task.trigger, None
    return hold is not None


def _start(task: RunnableTask[Any], start: Start, bounded: bool) -> None:
    requeued = task.requeue()
    _held.pop(id(task), None)
    if not requeued:
        return
    try:
        start(task, bounded=bounded)
    except Exception as error:
        log_exception("Background task %s (%s) could not be started: %r", task.name, task.id, error, app=task.app)
        task.cancel()
    # A task that joins this one may hold the only thread: now it may run this one itself.
    task.wake()


def _start_all(held: list[Held]) -> None:
    for task, start in held:
        _start(task, start, False)


def _beside(work: Callable[..., None], *args: object) -> None:
    """
    Call `work(*args)` in a thread of its own: the garbage collector may have interrupted code that holds a lock.

    Not a `threading.Thread`, whose start takes a lock too.
    """
    try:
        _thread.start_new_thread(work, args)
    except RuntimeError:  # pragma: no cover - no more threads to be had, or the interpreter ends
        work(*args)
