"""What Sentry and OpenTelemetry see of one attempt: START HERE. For an application that has loaded one of them."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol

from ..context import Variables
from ..logs import is_ctrl_c
from ..task_log import log_of


class Traced(Protocol):
    """What one of the tools knows of an attempt that is under way."""

    def failed(self, error: BaseException, *, is_last: bool) -> None:
        """Report what the attempt raised."""

    def ended(self, state: str) -> None:
        """End what was begun; `state` is the task's."""


class Tracing:
    """
    An attempt, as the tools see it from its begin to its end, in the attempt's own context.

    A tool that raises is logged, and never stops a task.
    """

    __slots__ = ("_task", "_traced", "fn")

    def __init__(self, task: Any, fn: Callable[..., Any], traced: list[Traced]) -> None:
        self._task = task
        self.fn: Callable[..., Any] = fn
        self._traced = traced

    def failed(self, error: BaseException, *, is_last: bool) -> None:
        """Report what the attempt raised: `is_last` where no other attempt follows."""
        for traced in self._traced:
            try:
                traced.failed(error, is_last=is_last)
            except BaseException as wrong:
                _complain(self._task, wrong)

    def ended(self, state: str) -> None:
        """End spans and scopes. An attempt that was none is dropped without this: nothing is sent of it."""
        for traced in reversed(self._traced):
            try:
                traced.ended(state)
            except BaseException as wrong:
                _complain(self._task, wrong)


ROOMS = (("sentry_sdk", "sentry"), ("opentelemetry.trace", "otel"))
"""The module that an application loads to use a tool, and ours for it."""


@functools.cache
def _room(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def begin(task: Any, fn: Callable[..., Any]) -> Tracing | None:
    """Begin spans and scopes for the attempt of `task` that starts now, in its own context; None without a tool."""
    traced: list[Traced] = []
    for tool, room in ROOMS:
        if sys.modules.get(tool) is not None:
            try:
                found = _room(room).begin(task, fn)
                if found is not None:
                    traced.append(found)
            except BaseException as wrong:
                _complain(task, wrong)
    return Tracing(task, fn, traced) if traced else None


def published(task: Any, fn: Callable[..., Any], captured: Variables) -> None:
    """Let Sentry note in the caller that `task` was queued, and which context variables go with it."""
    try:
        for variable, value in captured:
            if variable.name == "current_scope" and value.span is not None:
                _room("sentry").publish(task, fn, value)
    except BaseException as wrong:
        _complain(task, wrong)


def _complain(task: Any, error: BaseException) -> None:
    if is_ctrl_c(error):
        raise error
    log_of(task, logging.WARNING, "Tracing of background task %s failed: %r", task.summary.name, error, exc_info=error)
