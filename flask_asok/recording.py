"""The record of a task that other processes are to know of: made before the task is started."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import Flask

from .attempt import RunnableTask
from .journal import keep_journal
from .record_writer import key_of
from .sharing import open_store
from .state import state_of
from .store.durable import DurableStore
from .tasks import Task

Admit = Callable[[Task[Any]], bool]
"""Is asked of a task whose call has been checked, before another process can see it; False keeps it from starting."""


def record(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any], admit: Admit | None) -> str:
    """
    Make the record of a task and return its id, or the id of the task that has its unique key; "" if not admitted.

    What `admit` writes into a store of this machine is written with the record, or not at all.
    """
    if admit is None:
        return _record(task, app, fn)
    if not state_of(app).backend.distributed:
        store = open_store(app)
        if isinstance(store, DurableStore):
            with store.transaction():
                return _record(task, app, fn) if admit(task) else ""
    return _record(task, app, fn) if admit(task) else ""


@functools.cache
def _write_down() -> Callable[[RunnableTask[Any], Flask, Callable[..., Any]], str]:
    """Return what records a durable call. Imported late, and once: the import takes a while even of what is there."""
    from .durable.call import write_down

    return write_down


def _record(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any]) -> str:
    state = state_of(app)
    if state.backend.distributed:
        # Such a backend keeps records of its own, of every task.
        key = key_of(fn, task.options.unique)
        return state.backend.reserve(task, key) if key else task.id
    if state.is_durable(task.options):
        return _write_down()(task, app, fn)
    return keep_journal(task, app, fn)
