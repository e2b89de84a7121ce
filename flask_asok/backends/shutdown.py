"""Shut down the threads backend: accepted tasks finish in time, or are abandoned and logged by name."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from ..attempt import RunnableTask
from ..logs import log
from ..task_log import SHUTS_DOWN
from .pool import WorkerPool
from .scheduler import Scheduler

GRACE_SECONDS = 0.1
"""How long the end of a process waits before it logs what it waits for."""

SETTLE_SECONDS = 1.0
"""How much longer a worker is waited for that is between two steps of a task, to log or to record how it ended."""

MOST_INTERRUPTIONS = 20
"""How often Ctrl-C may be pressed again before the names of the tasks that are left are given up."""

MOST_NAMED = 5
"""How many tasks are named when the end of a process waits for them."""


class Closing(Protocol):
    """What a backend that ends shows of itself."""

    shutdown_timeout: float
    scheduler: Scheduler
    pools: dict[str, WorkerPool]

    def abandon(self, task: RunnableTask[Any], why: str) -> None:
        """Abandon a task that is queued, waits or runs."""

    def unsettled(self) -> list[RunnableTask[Any]]:
        """Return the recent tasks that are not settled."""

    def stop(self) -> None:
        """Accept no task any more, and let the threads exit once nothing is queued."""


def close(backends: Sequence[Closing], timeout: float | None = None, *, at_exit: bool = False) -> None:
    """
    Close all together: each gets its whole time, and the last one does not wait for the first.

    What is not finished within `timeout` seconds (None: the backend's own time) is abandoned, as is all that is left
    when a second Ctrl-C comes, which is raised.
    """
    started = time.monotonic()
    interrupted: BaseException | None = None
    for _ in range(MOST_INTERRUPTIONS):
        try:
            _close(backends, timeout, started, at_exit and interrupted is None, interrupted is not None)
            break
        except BaseException as error:
            # A second Ctrl-C, in the middle of anything: the rest is abandoned now.
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _close(
    backends: Sequence[Closing], timeout: float | None, started: float, tells: bool, is_interrupted: bool
) -> None:
    """Do all of it. It may be begun again after an interruption: what is settled stays so."""
    for backend in backends:
        # Once interrupted, nothing is waited for: not for the end of the scheduler either.
        with contextlib.suppress(BaseException) if is_interrupted else contextlib.nullcontext():
            backend.stop()
    if tells:
        _tell_of_wait(backends, started)
    left: list[RunnableTask[Any]] = []
    for backend in backends:
        for task in backend.scheduler.drain():
            left.append(task)
            backend.abandon(task, SHUTS_DOWN)
    stuck: set[int | None] = set()
    # Twice: a worker may be about to begin a task, or have ended one, which then is neither queued nor running. First,
    # though, all is named that is known to be unfinished: something else may kill this process any moment.
    for extra in (0.0, SETTLE_SECONDS):
        for backend in backends:
            seconds = backend.shutdown_timeout if timeout is None else timeout
            why = f"not finished {seconds:g} s after the shutdown began"
            if is_interrupted:
                why = "the shutdown was interrupted"
            elif timeout is None:
                why += " (ASOK_SHUTDOWN_TIMEOUT)"
            for pool in list(backend.pools.values()):
                pool.finish(float("-inf") if is_interrupted else started + seconds + extra, but=stuck)
                stuck.update(task.ident for task in pool.running.copy())
                for task in itertools.chain(pool.drain(), list(pool.running)):
                    left.append(task)
                    backend.abandon(task, why)
    for backend in backends:
        for task in backend.unsettled():
            # The thread that lets it wait for its retry still tells receivers of that, and may never get any further.
            if task.state == "waiting" and not task.is_deferred():
                left.append(task)
                backend.abandon(task, SHUTS_DOWN)
    _tell_of_handed_over(left)


def _tell_of_handed_over(left: list[RunnableTask[Any]]) -> None:
    """Log how many durable tasks other processes go on with, for each application."""
    for app, number in Counter(task.app for task in left if task.goes_on).items():
        log(
            logging.INFO, "%s durable %s left to the next process.",
            number, "task is" if number == 1 else "tasks are", app=app,
        )  # fmt: skip


def _tell_of_wait(backends: Sequence[Closing], started: float) -> None:
    """Log at once what the process waits for before it ends: otherwise it seems to hang."""
    reloads = os.environ.get("WERKZEUG_RUN_MAIN") == "true"
    waiting = [backend for backend in backends if backend.shutdown_timeout]
    if not reloads:
        # Most are done by then, and nobody wants to read of them.
        for backend in waiting:
            for pool in list(backend.pools.values()):
                pool.finish(started + min(backend.shutdown_timeout, GRACE_SECONDS))
    for backend in waiting:
        tasks = [task for pool in list(backend.pools.values()) for task in pool.unfinished()]
        if tasks:
            _log_wait(tasks, backend.shutdown_timeout, reloads)


def _log_wait(tasks: list[RunnableTask[Any]], seconds: float, reloads: bool) -> None:
    """Log the tasks of one application, for its own handlers too."""
    if reloads:
        # It kills this process a quarter of a second after Ctrl-C: log the lost tasks before that.
        how = "; after Ctrl-C the reloader does not wait, and what has not finished by then is lost"
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        how = "; Ctrl-C again to quit"
    else:
        how = ""
    names = [task.name for task in tasks]
    log(
        logging.WARNING, "Waiting up to %g s for %s %s (%s%s)%s.",
        seconds, len(names), "task" if len(names) == 1 else "tasks",
        ", ".join(names[:MOST_NAMED]), f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "", how,
        app=tasks[0].app,
    )  # fmt: skip
