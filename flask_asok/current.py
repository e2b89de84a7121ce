"""Which task code runs in: below everything, so that a filter of the log can ask for it as well."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

current: ContextVar[Any] = ContextVar("asok.current_task", default=None)
"""The task that this code runs in. `current_task` is for reading it."""
