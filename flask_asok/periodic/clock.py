"""The clock of periodic tasks: a thread of each process that serves; it starts what the store lets it start."""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from flask import Flask

from .. import process
from ..errors import AsokError, NotConfigured
from ..helper_thread import HelperThread
from ..logs import log, log_exception
from ..signals import emit
from ..store.base import Tick
from ..store.shared import Ticks
from ..tasks import Task
from .entries import Entries, Entry
from .runs import in_utc, note_last_run, start_run, ticks_of
from .schedules import Schedule
from .signals import periodic_skipped

LONGEST_PAUSE = 30.0
"""How long the clock sleeps at most: the system's time may be set, and the machine may have slept."""

RETRY_SECONDS = 1.0
"""The pause before a tick is tried again whose task could not be started, and before a store is that was away."""

AFTER_SECONDS = 0.001
"""How much later than its tick a task is started: no clock may be a little early, and start it twice."""

STOP_SECONDS = 5.0
"""How long the end of the clock is waited for, which may be in the middle of starting a task."""


class Clock:
    """
    Looks, in this process, which ticks of one application are due, takes them in the store, and starts their tasks.

    Made by `init_app`, lives as long as the application; its thread comes with `start()` and leaves with `stop()`. A
    forked child has to start it anew.
    """

    now: Callable[[], float] = staticmethod(time.time)
    _is_away: bool
    """Has the last look found no store?"""
    _wake: threading.Event | None
    """Ends the sleep of the thread."""

    def __init__(self, app: Flask, entries: Entries, zone: str) -> None:
        self._app = weakref.ref(app, lambda _: self._wake_up())
        self.entries = entries
        self.zone = zone
        """The time zone of a `cron` without its own."""
        self._helper = HelperThread("asok-clock", self._turn, lambda: False)
        self._begin_anew()
        process.after_fork(self._begin_anew)
        _clocks.add(self)
        _stop_at_exit()
        entries.on_new(self)

    @property
    def is_running(self) -> bool:
        """Return True if its thread is there, in this process."""
        process.renew()
        return len(self._helper) > 0

    def start(self) -> None:
        """Run in this process from now on, once there is a periodic task; harmless twice."""
        process.renew()
        self._is_on = True
        if self.entries and not self._helper.is_stopped:
            # Not before: gevent may have patched it meanwhile.
            if self._wake is None:
                self._wake = threading.Event()
            self._helper.need()
            self._wake_up()

    def entry_added(self) -> None:
        """Look at a periodic task that was made after the start."""
        if self._is_on:
            self.start()

    def stop(self) -> None:
        """Start nothing any more. Harmless twice."""
        self._helper.stop()
        self._wake_up()
        self._helper.join(STOP_SECONDS)

    def look(self, app: Flask) -> float:
        """Start what is due, and return how many seconds later to look again."""
        if app.testing:
            return LONGEST_PAUSE
        try:
            ticks = ticks_of(app)
            new = [entry for entry in self.entries if entry.name not in self._seen]
            for entry in new:
                self._begin(ticks, entry)
            if new:
                _tell(app, new, ticks)
            pause = min(self._look_at(app, ticks, entry) for entry in self.entries)
        except AsokError as error:
            if not self._is_away:
                self._is_away = True
                log(logging.ERROR, "No periodic task is started: %s", error, app=app)
            return LONGEST_PAUSE if isinstance(error, NotConfigured) else RETRY_SECONDS
        if self._is_away:
            self._is_away = False
            log(logging.INFO, "Periodic tasks are started again.", app=app)
        return pause

    def _begin_anew(self) -> None:
        self._is_on = False
        self._is_away = False
        self._wake = None
        self._since: dict[str, float] = {}
        """When this process first knew of each."""
        self._seen: dict[str, float] = {}
        """The latest tick of each that this process need not look at any more."""
        self._owed: dict[str, tuple[Tick, Tick]] = {}
        """What was taken and could not be started, with what is to be in its place again."""
        self._told: dict[str, float] = {}
        """The tick of each whose failed start is in the log."""

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _turn(self) -> bool:
        app, wake = self._app(), self._wake
        if app is None or wake is None:
            return False
        wake.clear()
        try:
            pause = self.look(app)
        except Exception as error:
            log_exception("The clock of periodic tasks failed: %r", error, app=app)
            pause = LONGEST_PAUSE
        # It must not live for the sake of this thread.
        del app
        wake.wait(pause)
        return True

    def _begin(self, ticks: Ticks, entry: Entry) -> None:
        """Begin to look at a periodic task; one that is new to the store begins with its next tick."""
        since = self._since.setdefault(entry.name, self.now())
        found = ticks.tick(entry.name)
        if found is None:
            # Written down, so that the first tick is not lost either where no process runs then.
            ticks.replace_tick(entry.name, None, Tick(since))
        self._seen[entry.name] = since if found is None else found.at

    def _look_at(self, app: Flask, ticks: Ticks, entry: Entry) -> float:
        """Start a periodic task if it is due, and return how many seconds later to look at it again."""
        name, schedule, now = entry.name, entry.schedule(self.zone), self.now()
        self._give_back(ticks, name)
        tick = self._due_tick(app, entry, schedule, now)
        if tick is not None:
            if not self._deal_with(app, ticks, entry, schedule, tick, now):
                return RETRY_SECONDS
            self._seen[name] = tick
        following = entry.due(app.name, schedule.after(self._seen[name]))
        return max(0.0, min(LONGEST_PAUSE, following - now + AFTER_SECONDS))

    def _due_tick(self, app: Flask, entry: Entry, schedule: Schedule, now: float) -> float | None:
        """Return the latest tick that is due, and not seen to yet."""
        seen = self._seen[entry.name]
        tick = schedule.latest(seen, now)
        if tick is not None and entry.due(app.name, tick) > now:
            # The jitter is below the period: the tick before it is due.
            return schedule.latest(seen, tick - AFTER_SECONDS)
        return tick

    def _deal_with(self, app: Flask, ticks: Ticks, entry: Entry, schedule: Schedule, tick: float, now: float) -> bool:
        """Take the tick, and start the task or skip it; False if it could not be started, and is to be tried again."""
        before = ticks.tick(entry.name)
        known = Tick(self._since[entry.name]) if before is None else before
        if known.at >= tick:
            # Another process has taken it.
            return True
        late = now - entry.due(app.name, tick)
        if entry.grace is not None and late > entry.grace:
            if ticks.take_tick(entry.name, tick, ""):
                note_last_run(ticks, entry.name, before)
                _skip(app, entry, tick, "late", f"it is {late:.0f} s late, and its grace is {entry.grace:g} s")
            return True
        taken = _Taken(ticks, entry.name, tick)
        try:
            task = start_run(app, entry, taken.admit, tick)
        except Exception as error:
            self._note_failure(app, entry, tick, error)
            if taken.tick is not None:
                self._owed[entry.name] = (taken.tick, known)
                self._give_back(ticks, entry.name)
            return False
        if taken.tick is None:
            return True
        missed = schedule.latest(known.at, tick - AFTER_SECONDS)
        if missed is not None:
            _skip(app, entry, missed, "late", "a later one is due by now, as for those missed before it")
        if task.id != taken.tick.task_id:
            ticks.replace_tick(entry.name, taken.tick, Tick(tick))
            note_last_run(ticks, entry.name, before)
            _skip(app, entry, tick, "overlap", f"the run before it, {task.id}, still goes on")
        return True

    def _give_back(self, ticks: Ticks, name: str) -> None:
        """Let the processes try a tick again that could not be started; if the store is away, when it is back."""
        if name in self._owed:
            ticks.replace_tick(name, *self._owed[name])
            del self._owed[name]

    def _note_failure(self, app: Flask, entry: Entry, tick: float, error: Exception) -> None:
        if self._told.get(entry.name) != tick:
            self._told[entry.name] = tick
            log(
                logging.ERROR, "Periodic task %s could not be started for %s, and is tried again: %r",
                entry.name, in_utc(tick), error, app=app, exc_info=None if isinstance(error, AsokError) else error,
            )  # fmt: skip


class _Taken:
    """Takes a tick for the first task that it is asked to admit."""

    def __init__(self, ticks: Ticks, name: str, at: float) -> None:
        self.tick: Tick | None = None
        self._ticks = ticks
        self._name = name
        self._at = at

    def admit(self, task: Task[Any]) -> bool:
        if self._ticks.take_tick(self._name, self._at, task.id):
            self.tick = Tick(self._at, task.id)
        return self.tick is not None


def _skip(app: Flask, entry: Entry, tick: float, why: str, because: str) -> None:
    log(
        logging.WARNING, "Periodic task %s skips its tick of %s: %s.",
        entry.name, in_utc(tick), because, app=app,
    )  # fmt: skip
    if app.extensions["asok"].config["ASOK_METRICS"]:
        from ..telemetry.prometheus import count_skip

        count_skip(entry.function, why)
    emit(periodic_skipped, app, name=entry.name, at=in_utc(tick), why=why)


def _tell(app: Flask, new: list[Entry], ticks: Ticks) -> None:
    names = ", ".join(entry.name for entry in new)
    path = getattr(ticks, "path", None)
    where = "where the processes of all machines find them" if path is None else f"in {path}, good for one machine"
    log(logging.INFO, "The clock of periodic tasks runs for %s. Ticks are taken %s.", names, where, app=app)
    if not getattr(ticks, "is_shared", True):
        log(
            logging.WARNING,
            'ASOK_STORE is "memory": each process starts every periodic task. Set it to a path, or to redis://...',
            app=app,
        )


_clocks: weakref.WeakSet[Clock] = weakref.WeakSet()


def _stop_all() -> None:
    for clock in list(_clocks):
        clock.stop()


@functools.cache
def _stop_at_exit() -> None:
    # Registered after the backend of the first application: what is registered last is called first.
    process.at_exit(_stop_all)
