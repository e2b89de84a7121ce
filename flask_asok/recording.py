"""The record of a task that other processes are to know of: made before the task is started."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from flask import Flask

from .attempt import RunnableTask
from .errors import BackendUnavailable
from .journal import draft_record
from .record_writer import Draft, key_of
from .state import state_of
from .store.durable import DurableStore
from .task_log import log_of
from .tasks import Task

Admit = Callable[[Task[Any]], bool]
"""Is asked of a task whose call has been checked, before another process can see it; False keeps it from starting."""


def record(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any], admit: Admit | None) -> str:
    """
    Make the record of a task and return its id, or the id of the task that has its unique key; "" if not admitted.

    What `admit` writes into a store of this machine is written with the record, or not at all.
    """
    state = state_of(app)
    if state.backend.distributed:
        return _reserve(task, app, fn) if admit is None or admit(task) else ""
    is_durable = state.is_durable(task.options)
    try:
        draft = (_draft_call() if is_durable else draft_record)(task, app, fn)
        holder = draft.store.add(draft.record) if admit is None else _admitted(task, draft, admit)
    except BackendUnavailable as error:
        if is_durable or task.options.unique is not None:
            raise
        log_of(task, logging.WARNING, "Background task %s (%s) is not tracked: %s", task.name, task.id, error)
        return task.id
    if holder == task.id:
        draft.attach()
    return holder


def _admitted(task: RunnableTask[Any], draft: Draft, admit: Admit) -> str:
    if not isinstance(draft.store, DurableStore):
        return draft.store.add(draft.record) if admit(task) else ""
    # Nothing but the store is asked in here. What the application shares is made under a lock, by a thread that may
    # wait for the store meanwhile.
    with draft.store.transaction():
        return draft.store.add(draft.record) if admit(task) else ""


@functools.cache
def _draft_call() -> Callable[[RunnableTask[Any], Flask, Callable[..., Any]], Draft]:
    """Return what drafts a durable call. Imported late, and once: the import takes a while even of what is there."""
    from .durable.call import draft_call

    return draft_call


def _reserve(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any]) -> str:
    # Such a backend keeps records of its own, of every task.
    key = key_of(fn, task.options.unique)
    return state_of(app).backend.reserve(task, key) if key else task.id
