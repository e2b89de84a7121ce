"""Run a periodic task by hand, in a command or a test: no tick is taken for it."""

from __future__ import annotations

from typing import Any

from flask import Flask

from ..state import state_of
from ..tasks import Task
from .clock import Clock
from .runs import start_run

LONGEST_AGO = 10 * 366 * 86_400.0
"""How far back the latest tick is looked for, in seconds."""

NONE = "There is no periodic task. Is the module with @asok.periodic imported where the app is made?"


def start_named(app: Flask, name: str, at: float | None = None) -> Task[Any]:
    """
    Start the periodic task `name` for the tick `at`, None for the latest that has come, and return its Task.

    Where its runs may not overlap, and one goes on, a handle on that is returned. ValueError for an unknown name.
    """
    clock = state_of(app).kept(Clock)
    entry = clock.entries.find(name)
    if entry is None:
        names = ", ".join(one.name for one in clock.entries)
        raise ValueError(f"There is no periodic task {name!r}. There are: {names}." if names else NONE)
    now = clock.now()
    if at is None:
        at = entry.schedule(clock.zone).latest(now - LONGEST_AGO, now) or now
    return start_run(app, entry, lambda _: True, at)
