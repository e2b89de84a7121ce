"""The name of a task that has few values, for spans and metrics."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from ..callables import decorated, path_of


def label_of(fn: Callable[..., Any]) -> str:
    """Return `module.qualname` of the function that callers know; never the `name` option, which may name each call."""
    if type(fn) is FunctionType and not fn.__dict__:
        # As below, but quicker, for most functions.
        return f"{fn.__module__}.{fn.__qualname__}"
    return path_of(decorated(fn)).replace(":", ".")
