"""The record of a task that other processes see: made at the call, kept up by the process that runs the task."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from flask import Flask

from .attempt import RunnableTask
from .backends.base import KEY_TAKEN
from .owed import owed_by
from .record_writer import Draft, RecordWriter, attach, key_of, record_of
from .results import text_of
from .sharing import open_store
from .summaries import State

Start = Callable[..., None]


class Journal(RecordWriter):
    """The record of one task, with what came out of it where that is not too large."""

    __slots__ = ()

    def outcome(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> str | None:
        """Return the value or the error as signed text."""
        return text_of(task.app, task.id, value, error)

    def owe(self, task: RunnableTask[Any], write: Callable[[], object]) -> None:
        """Write it in another thread, when the store takes it again."""
        with contextlib.suppress(RuntimeError):
            owed_by(task.app).add(write)


def draft_record(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any]) -> Draft:
    """
    Draft a record of `task`, which is not started yet, that other processes see.

    Raises BackendUnavailable where the store cannot be opened, and NotConfigured if no store is possible.
    """
    store, options = open_store(app), task.options
    store.tidy()
    journal = Journal(store, key_of(fn, options.unique), options.unique_until == "start")
    return Draft(store, record_of(task, app, fn, store.me), functools.partial(attach, task, journal))


def journaled(start: Start) -> Start:
    """Return what starts a deferred task that has a journal, unless another task has its unique key by then."""

    def begin(task: RunnableTask[Any], *, bounded: bool = True) -> None:
        if task.journal is None or task.journal.release(task):
            start(task, bounded=bounded)
        else:
            task.withdraw(KEY_TAKEN)

    return begin
