"""The warning of a process whose store is away."""

from __future__ import annotations

import logging
import time

from flask import Flask

from ..errors import AsokError
from ..logs import log

WARN_SECONDS = 60.0
"""How often one process warns."""

_warned_at = float("-inf")


def warn_of_store(name: str, id: str, error: AsokError, *, app: Flask) -> None:
    """Warn, once a minute, that the record of a task could not be written."""
    global _warned_at
    if time.monotonic() - _warned_at >= WARN_SECONDS:
        _warned_at = time.monotonic()
        log(
            logging.WARNING, "Background task %s (%s) goes on, but its record could not be written: %s",
            name, id, error, app=app,
        )  # fmt: skip
