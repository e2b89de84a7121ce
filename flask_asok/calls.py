"""A call: what a task keeps of it, and how it is made."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple

from flask import Flask
from werkzeug.local import LocalProxy

from .aside import start_aside
from .context import Captured, fresh
from .hints import explain
from .logs import log_exception

Parts = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Captured]
"""A call as each task keeps it: a Call, which names its parts, would cost a tenth more."""

_CALLING = (map, filter, itertools.starmap, itertools.filterfalse, itertools.takewhile, itertools.dropwhile)

_AWAITABLE_TO_NO_PURPOSE = (threading.Thread, LocalProxy)
"""A Task says how to wait for it, and a proxy passes on whatever its type has."""

_LAZY: dict[type, str] = {
    GeneratorType: "generator",
    AsyncGeneratorType: "generator",
    **{kind: kind.__name__ for kind in _CALLING},
}
"""What a call may return that has run nothing yet."""


class Call(NamedTuple):
    """What a task calls."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    captured: Captured


def make(call: Parts, task: Any) -> tuple[Any, BaseException | None]:
    """Call the function in a fresh app context; return its value or its error once that context is torn down."""
    fn, args, kwargs, captured = call
    value: Any = None
    error: BaseException | None = None
    app = captured[0]
    try:
        context = fresh(captured)
        context.push()
    except BaseException as raised:
        del task
        return None, raised
    try:
        value = fn(*args, **kwargs)
        if value is not None:
            if type(value) is CoroutineType:
                value = _run_coroutine(app, value)
            if hasattr(type(value), "__await__") and not isinstance(value, _AWAITABLE_TO_NO_PURPOSE):
                raise TypeError(f"{task.name} returned an awaitable, of which nothing has run. Await it in the task.")
            if type(value) in _LAZY:
                lazy = _LAZY[type(value)]
                raise TypeError(f"{task.name} returned a {lazy}, of which nothing has run. Loop over it in a task.")
    except BaseException as raised:
        # Without this frame, which is noise in the log.
        error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
        explain(error)
    try:
        context.pop(error)
    except BaseException as raised:
        log_exception(
            "Teardown after background task %s failed: %r", task.name, raised, app=app, extra=task.log_fields()
        )
    if error is None:
        return value, None
    try:
        return None, error
    finally:
        # As in `perform`: the next frame of the traceback leads back to this one.
        del task, call, captured, error


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
    return start_aside(partial(copy_context().run, run), "asok-async")()
