"""One run of a periodic task: how it is started, for its tick or by hand, and what a list shows of the last one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Flask

from ..callables import options_of
from ..dispatch import start_if
from ..recording import Admit
from ..sharing import existing_store, open_store
from ..state import state_of
from ..store.base import Tick
from ..store.shared import Ticks
from ..tasks import Task
from .entries import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTask:
    """A function with a schedule, as `asok.periodic_tasks()` shows it. Times are aware datetimes in UTC."""

    name: str
    schedule: str
    """The `cron=`, or "every 300 s"."""
    tz: str
    """The time zone of its schedule."""
    next_at: datetime
    """Its next tick."""
    last_at: datetime | None
    """The latest tick for which it was started, in any process; None before the first."""
    last_id: str | None
    """The id of the task that was started then: `asok.get` finds it for a day after its end."""


def start_run(app: Flask, entry: Entry, admit: Admit, at: float) -> Task[Any]:
    """
    Start a run for the tick `at` if `admit` returns True of its Task.

    Returns that Task; or a handle on the run that goes on, where the entry lets none overlap.
    """
    options = options_of(entry.function)
    options = dataclasses.replace(options, tracked=True, scheduled=at)
    if options.unique is None:
        options = dataclasses.replace(options, unique=entry.key, unique_until="end")
    with app.app_context():
        return start_if(admit, entry.function, entry.args, dict(entry.kwargs), options)


def ticks_of(app: Flask) -> Ticks:
    """Return where the ticks of `app` are taken; makes the store. Raises BackendUnavailable or NotConfigured."""
    return state_of(app).backend.ticks() or open_store(app)


def note_last_run(ticks: Ticks, name: str, before: Tick | None) -> None:
    """Keep what ran for the tick `before`: nothing runs for the one that has just been taken."""
    if before is not None and before.task_id:
        ticks.take_tick(_last_of(name), before.at, before.task_id)


def last_run(app: Flask, name: str) -> Tick | None:
    """Return the latest tick for which something was started; makes no store."""
    ticks = state_of(app).backend.ticks() or existing_store(app)
    if ticks is None:
        return None
    tick = ticks.tick(name)
    return tick if tick is None or tick.task_id else ticks.tick(_last_of(name))


def listed(app: Flask, entry: Entry, zone: str, now: float) -> PeriodicTask:
    """Return what a list shows of an entry."""
    schedule, last = entry.schedule(zone), last_run(app, entry.name)
    return PeriodicTask(
        name=entry.name,
        schedule=schedule.text,
        tz=schedule.zone,
        next_at=in_utc(schedule.after(now)),
        last_at=None if last is None else in_utc(last.at),
        last_id=None if last is None else last.task_id,
    )


def in_utc(time: float) -> datetime:
    """Return seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(time, UTC)


def _last_of(name: str) -> str:
    # Names of periodic tasks have no line breaks: see `entries`.
    return f"{name}\nlast"
