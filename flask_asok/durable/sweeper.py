"""The sweeper of a process: it takes over the durable tasks that no living process owns."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flask import Flask

from ..errors import AsokError, MessageRefused
from ..handles import summary_of
from ..helper_thread import PausingThread
from ..logs import log, log_exception
from ..messages.message import Message
from ..record_writer import attach
from ..results import packer_of
from ..sharing import existing_store
from ..state import state_of
from ..store.away import WARN_SECONDS
from ..store.base import Record
from ..store.durable import DurableStore
from ..task_log import ASKED_TO_STOP, SHUTS_DOWN
from .home import durable_store, store_of_calls
from .journal import DurableJournal

SWEEPER = "sweeper"
"""Where the sweeper of a process is, among what the application shares."""

LOOK_SECONDS = 0.5
"""How often a process looks for tasks that others have left."""

BATCH = 100
"""How many tasks a process has in each queue when it takes no more over."""

OTHERS_SECONDS = 600.0
"""How long a task that this process cannot run is left to others."""

RARELY_SECONDS = 10.0
"""How often it looks for queues that it does not know, and for processes that have ended."""

MOST_DEATHS = 3
"""A task that has run in so many processes when they ended is not run again: it may be what ends them."""


class _Left(NamedTuple):
    """A task that this process cannot run, and leaves to others."""

    queue: str
    since: float
    """When this process first met it."""


class Sweeper:
    """Looks, in a thread of its own, for durable tasks that no living process owns, and runs them in this process."""

    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, app: Flask, queues: Sequence[str] = ()) -> None:
        self._app = app
        self._queues = queues
        self._left: dict[str, _Left] = {}
        """The tasks that this process cannot run."""
        self._rarely_at = self._warned_at = float("-inf")
        self._thread = PausingThread("asok-sweeper", self._turn, lambda: not self._is_closed())

    def start(self) -> None:
        """Look from now on; harmless where it does already."""
        self._thread.need()

    def close(self) -> None:
        """Look no more, and wait for the look that is under way."""
        self._thread.close(1)

    def _turn(self) -> float | None:
        if self._is_closed():
            return None
        try:
            # At once again while there is more than this process could take.
            return LOOK_SECONDS / 50 if self.look() else LOOK_SECONDS
        except AsokError as error:
            self._warn(error)
            return LOOK_SECONDS
        except Exception as error:
            log_exception("Taking over background tasks failed: %r", error, app=self._app)
            return RARELY_SECONDS

    def look(self) -> bool:
        """Take over what there is, as far as the queues of this process have room; True if there may be more."""
        backend = state_of(self._app).backend
        queued = Counter(task.queue for task in backend.alive() if task.summary.state == "queued")
        more = False
        for queue in self._queues or backend.queues:
            more |= self._take(queue, BATCH - queued[queue])
        if self.now() - self._rarely_at >= RARELY_SECONDS:
            self._rarely_at = self.now()
            self._tidy()
        return more

    def _take(self, queue: str, room: int) -> bool:
        if room <= 0:
            return False
        taken, limit = 0, room + len(self._left)
        found = durable_store(self._app).orphans(queue, limit)
        if len(found) < limit:
            # All there are: what is not among them, another process has taken.
            ids = {record.id for record in found}
            self._left = {id: left for id, left in self._left.items() if left.queue != queue or id in ids}
        for record in found:
            if self._is_closed():
                return False
            if taken < room and (record.id not in self._left or self._is_due(record.id)):
                taken += self._take_over(record)
        return taken >= room

    def _take_over(self, record: Record) -> bool:
        app, store = self._app, store_of_calls(self._app)
        backend, packer = state_of(app).backend, packer_of(app)
        try:
            message = packer.read_for(record.id, record.message)
            if message.queue not in backend.queues:
                raise MessageRefused(f"The queue {message.queue!r} is not in ASOK_QUEUES.")
            call, options, summary = packer.unpack(message)
        except Exception as error:
            # Of a message that is not ours, or of the application's code, which the message makes this import.
            return self._leave(record, error)
        claim = store.take_over(record, store.me)
        if not claim:
            return False
        key = record.key if message.unique_until == "start" else ""
        journal = DurableJournal(store, packer, message, key=key, claim=claim)
        was_running = record.state == "running"
        summary.attempts = record.attempts - was_running
        summary.error = record.error or None
        task = backend.adopt(call, dataclasses.replace(options, delay=0.0, when=None, durable=True), summary)
        attach(task, journal)
        why = _why_not(record, message)
        if record.stopping and record.state != "waiting":
            # Also where its process has handed it over. What waits for a retry has outlived the attempt that was asked.
            task.withdraw(ASKED_TO_STOP)
        elif why:
            journal.is_last = True
            backend.abandon(task, why)
        elif self._is_closed():
            backend.abandon(task, SHUTS_DOWN)
        else:
            backend.start(task, bounded=False)
        return True

    def _leave(self, record: Record, error: Exception) -> bool:
        """Leave a task that this process cannot run to others, and say so once; after a while it has failed."""
        if record.id not in self._left:
            self._left[record.id] = _Left(record.queue, self.now())
            log(
                logging.ERROR, "Background task %r (%r) of another process is left to others for %g min: %s",
                record.name, record.id, OTHERS_SECONDS / 60, error,
                app=self._app, extra=summary_of(record, time.time()).log_fields(),
            )  # fmt: skip
        elif self._is_due(record.id):
            store = durable_store(self._app)
            claim = store.take_over(record, store.me)
            if claim and store.settle(record.id, claim, "failed", error=f"No process could run it: {error}"):
                log(
                    logging.ERROR, "Background task %r (%r) failed: no process could run it: %s",
                    record.name, record.id, error,
                    app=self._app, extra=summary_of(record, time.time()).log_fields(),
                )  # fmt: skip
        return False

    def _is_due(self, id: str) -> bool:
        return self.now() - self._left[id].since >= OTHERS_SECONDS

    def _tidy(self) -> None:
        """Forget the processes that have ended, and leave what waits in queues that only others know."""
        backend, store = state_of(self._app).backend, durable_store(self._app)
        store.processes()
        store.tidy()
        if not self._queues:
            known = {queue.name for queue in store.queues()} | {left.queue for left in self._left.values()}
            for queue in known - backend.queues.keys():
                self._take(queue, BATCH)

    def _warn(self, error: AsokError) -> None:
        if self.now() - self._warned_at >= WARN_SECONDS:
            self._warned_at = self.now()
            log(logging.WARNING, "Background tasks that others have left must wait: %s", error, app=self._app)

    def _is_closed(self) -> bool:
        return self._thread.is_stopped or state_of(self._app).backend.is_closed


def _why_not(record: Record, message: Message) -> str:
    """Return why a task that was lost is not run again; "" if it is."""
    if record.state != "running":
        return ""
    if message.once:
        return "its process ended while it ran, and it runs at most once"
    if record.deaths + 1 >= MOST_DEATHS:
        return f"{MOST_DEATHS} processes ended while they ran it"
    return ""


def begin_sweeping(app: Flask) -> bool:
    """Sweep from now on in this process; False if there is no store yet that processes share."""
    if state_of(app).backend.distributed:
        return True
    store = existing_store(app)
    if store is None:
        return False
    if isinstance(store, DurableStore) and store.is_shared:
        sweeper_of(app).start()
    return True


def sweeper_of(app: Flask) -> Sweeper:
    """Return the sweeper of `app` in this process, which may not have begun."""
    return state_of(app).shared(SWEEPER, lambda: Sweeper(app))
