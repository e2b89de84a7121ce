"""What the dashboard sees: the tasks of all processes, from the store, and those that only this process knows."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from flask import Flask

from ..handles import summary_of
from ..sharing import shared_by
from ..state import state_of
from ..store.base import ProcessSummary, QueueSummary
from ..store.pages import Ended, EndedCounts, Mark, Wanted, count_ended
from ..store.record import Record
from ..summaries import SETTLED, TaskSummary

HOUR = 3_600.0
MINUTES = 60
MOST_ENDED = 5_000
"""Of the last hour, that many tasks are told of by name: the latest ones."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One task: a summary, and its record where the store has one."""

    summary: TaskSummary
    record: Record | None = None

    @property
    def is_here_only(self) -> bool:
        """Return True if no other process knows of it."""
        return self.record is None

    @property
    def is_settled(self) -> bool:
        """Return True if nothing more will happen to it."""
        return self.summary.state in SETTLED


@dataclass(frozen=True, slots=True)
class SeenPage:
    """A part of the list, the newest first, and where its rest begins."""

    tasks: list[Seen]
    rest: Mark | None


@dataclass(slots=True, kw_only=True)
class SeenQueue:
    """A queue: what waits in it, in all processes and in this one, and who works."""

    name: str
    threads: int
    stored: QueueSummary
    queued_here: int = 0
    running_here: int = 0
    waiting_here: int = 0
    oldest: float | None = None
    """Since when the oldest task of it could begin."""

    @property
    def queued(self) -> int:
        """How many are queued, as far as this process knows."""
        return self.stored.queued + self.queued_here

    @property
    def running(self) -> int:
        """How many run."""
        return self.stored.running + self.running_here

    @property
    def waiting(self) -> int:
        """How many wait for a delay, a retry, a response or a commit."""
        return self.stored.waiting + self.waiting_here


@dataclass(frozen=True, slots=True)
class LastHour:
    """What has ended within the last hour, or, of very much, `since` a later moment."""

    states: Counter[str]
    minutes: list[tuple[int, int]]
    """How many succeeded, and how many failed or were abandoned, in each minute."""
    since: float | None

    @property
    def most(self) -> int:
        """How many ended in the minute with the most."""
        return max(sum(minute) for minute in self.minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What the last hour tells of tasks with one name."""

    name: str
    runs: int
    failed: int
    abandoned: int
    p50: float
    longest: float
    last: float


def find(app: Flask, id: str) -> Seen | None:
    """Return the task with this id; None if it is unknown."""
    store = shared_by(app)
    record = None if store is None else store.get(id)
    if store is not None and record is not None:
        return Seen(summary_of(record, store.now()), record)
    return next((Seen(one) for one in _only_here(app) if one.id == id), None)


def page_of(app: Flask, wanted: Wanted, before: Mark | None, limit: int) -> SeenPage:
    """Return the newest tasks that match and stand after `before`."""
    store = shared_by(app)
    found = [
        Seen(one)
        for one in _only_here(app)
        if wanted.matches(one.state, one.name, one.queue, one.error)
        and (before is None or Mark(one.enqueued, one.id) < before)
    ]
    rest: Mark | None = None
    if store is not None:
        store.settle_lost()
        part, now = store.page(limit, wanted, before), store.now()
        rest = part.rest
        if rest is not None:
            # What is older than the rest of the store comes with that.
            found = [one for one in found if _mark(one) > rest]
        found += [Seen(summary_of(record, now), record) for record in part.records]
    found.sort(key=_mark, reverse=True)
    if len(found) > limit:
        found = found[:limit]
        rest = _mark(found[-1])
    return SeenPage(found, rest)


def queues_of(app: Flask) -> list[SeenQueue]:
    """Return all queues, with what is in them."""
    store, threads = shared_by(app), state_of(app).backend.queues
    stored = {queue.name: queue for queue in store.queues()} if store is not None else {}
    found = {
        name: SeenQueue(name=name, threads=threads.get(name, 0), stored=stored.get(name) or QueueSummary(name=name))
        for name in {**threads, **stored}
    }
    for queue in found.values():
        queue.oldest = queue.stored.oldest_due_at
    for one in _only_here(app):
        if (of := found.get(one.queue)) is not None and one.state not in SETTLED:
            setattr(of, f"{one.state}_here", getattr(of, f"{one.state}_here") + 1)
            if one.state == "queued":
                of.oldest = min(one.due, of.oldest or one.due)
    return list(found.values())


def ended_of(app: Flask, now: float) -> list[Ended]:
    """Return what has ended within the last hour, the latest first: at most the latest 5,000 of the store."""
    store = shared_by(app)
    found = store.ended(now - HOUR, MOST_ENDED) if store is not None else []
    return sorted([*found, *_ended_here(app, now - HOUR)], key=lambda one: one.finished, reverse=True)


def last_hour(app: Flask, now: float) -> LastHour:
    """Return what has ended within the last hour."""
    store, since = shared_by(app), now - HOUR
    counted = store.count_ended(since, 60) if store is not None else EndedCounts([], since)
    here = count_ended(_ended_here(app, since), since, 60)
    states: Counter[str] = Counter()
    good, bad = [0] * MINUTES, [0] * MINUTES
    for one in counted.counts + here.counts:
        states[one.state] += one.count
        if one.state != "cancelled":
            # The clock of the store may be a little ahead.
            (good if one.state == "succeeded" else bad)[min(one.period, MINUTES - 1)] += one.count
    return LastHour(states, list(zip(good, bad, strict=True)), counted.since if counted.since > since else None)


def functions_of(ended: Iterable[Ended]) -> list[Function]:
    """Return what has ended by the name of the task: the one that took the most time in all comes first."""
    groups: dict[str, list[Ended]] = {}
    for one in ended:
        groups.setdefault(one.name, []).append(one)
    found = []
    for name, runs in groups.items():
        times = [one.finished - one.started for one in runs if one.started] or [0.0]
        states = Counter(one.state for one in runs)
        last = max(one.finished for one in runs)
        found.append(
            Function(
                name=name, runs=len(runs), failed=states["failed"], abandoned=states["abandoned"], p50=median(times),
                longest=max(times), last=last,
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (-one.runs * one.p50, one.name))


def processes_of(app: Flask) -> list[ProcessSummary]:
    """Return the processes that live and share the store."""
    store = shared_by(app)
    return [] if store is None else store.processes()


def is_this_process(one: ProcessSummary) -> bool:
    """Return True for the process that answers."""
    return (one.host, one.pid) == (socket.gethostname(), os.getpid())


def _only_here(app: Flask) -> list[TaskSummary]:
    """Return what this process remembers of tasks that have no record."""
    backend, store = state_of(app).backend, shared_by(app)
    here = [one for one in backend.tasks() if not one.is_stored]
    if backend.distributed and store is not None:
        here = [one for one in here if store.read(one.id) is None]
    return here


def _ended_here(app: Flask, since: float) -> list[Ended]:
    return [
        Ended(one.name, one.queue, one.state, one.started, one.finished)
        for one in _only_here(app)
        if one.state in SETTLED and one.finished > since
    ]


def _mark(seen: Seen) -> Mark:
    return Mark(seen.summary.enqueued, seen.summary.id)
