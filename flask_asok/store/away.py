"""The warning of a process whose store is away."""

from __future__ import annotations

import logging
import time

from ..errors import AsokError
from ..task_log import Logged, log_of

WARN_SECONDS = 60.0
"""How often one process warns."""

_warned_at = float("-inf")


def warn_of_store(task: Logged, error: AsokError) -> None:
    """Warn, once a minute, that the record of a task could not be written."""
    global _warned_at
    if time.monotonic() - _warned_at >= WARN_SECONDS:
        _warned_at = time.monotonic()
        log_of(
            task, logging.WARNING, "Background task %s (%s) goes on, but its record could not be written: %s",
            task.summary.name, task.summary.id, error,
        )  # fmt: skip
