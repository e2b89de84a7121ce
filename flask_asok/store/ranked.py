"""Lists of tasks in sorted sets of Redis: a page of all, by the time of their calls, and those that ended lately."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .base import QueueSummary
from .counts import sum_by_queue
from .pages import MOST_COUNTED, Ended, EndedCounts, Mark, Page, Wanted
from .readable import counted_in, ended_in
from .record import Record

MOST_LOOKED_AT = 20_000
"""Tasks that are looked at for one page: where few match, a page is short."""

CHUNK = 200
"""Records that are read in one round trip."""

AT_ONCE = 500
"""Tasks that are looked at in one step of Redis, which does nothing else for that time: two or three milliseconds."""

Run = Callable[..., Any]
"""Run a script by its name, with these values."""

_OF_ENDED = ("name", "queue", "state", "started", "finished")


def page_of(
    redis: Any,
    key: str,
    run: Run,
    read: Callable[[list[str]], Iterable[Record]],
    limit: int,
    wanted: Wanted,
    before: Mark | None,
) -> Page:
    """Return a page of the tasks whose ids the sorted set `key` has, by the time of their calls, as `Store.page`."""
    found: list[Record] = []
    given = ["" if one is None else f"={one}" for one in (wanted.state, wanted.name, wanted.queue, wanted.error)]
    seen, size = 0, CHUNK
    while seen < MOST_LOOKED_AT:
        looked, id, enqueued, ids = run("matching", _place_after(redis, key, before), size, *given)
        if not looked or not limit:
            return Page(found)
        while ids:
            # No more whole records, messages and all, than the page has, and the one that tells that there is a rest.
            some, ids = ids[: limit - len(found) + 1], ids[limit - len(found) + 1 :]
            for record in wanted.keep(read(some)):
                if len(found) == limit:
                    return Page(found, Mark.of(found[-1]))
                found.append(record)
        before = Mark(float(enqueued), id)
        seen, size = seen + looked, AT_ONCE
    return Page(found, before)


def read_ended(redis: Any, key: str, prefix: str, since: float, limit: int) -> list[Ended]:
    """Return the latest tasks of the sorted set `key`, which has them by the time of their end, as `Store.ended`."""
    found: list[Ended] = []
    ids = redis.zrevrangebyscore(key, "+inf", f"({since!r}", 0, limit)
    for at in range(0, len(ids), CHUNK):
        with redis.pipeline(transaction=False) as pipe:
            for id in ids[at : at + CHUNK]:
                pipe.hmget(f"{prefix}{id}", _OF_ENDED)
            for name, queue, state, started, finished in pipe.execute():
                if state is not None:
                    found += ended_in(name, queue, state, started, finished)
    return found


def count_ended(redis: Any, key: str, run: Run, since: float, seconds: float) -> EndedCounts:
    """Count the latest tasks of such a sorted set, as `Store.count_ended`."""
    total = redis.zcard(key)
    first = redis.zcount(key, "-inf", repr(since))
    begin = max(first, total - MOST_COUNTED)
    rows, begun = [], since
    for at in range(begin, total, AT_ONCE):
        earliest, *counts = run("count_ended", repr(since), seconds, at, min(at + AT_ONCE, total) - 1)
        if at == begin > first and earliest:
            begun = float(earliest)
        rows += counts
    return counted_in(rows, begun)


def count_open(run: Run) -> list[QueueSummary]:
    """Return how many tasks of each queue are not settled, in the order of the names of the queues."""
    counts: dict[tuple[str, str], tuple[int, float]] = {}
    at, looked = 0, AT_ONCE
    while looked == AT_ONCE:
        looked, *found = run("count_open", at, at + AT_ONCE - 1)
        at += looked
        for told, count, due in zip(found[::3], found[1::3], found[2::3], strict=True):
            state, _, queue = told.partition(" ")
            before, oldest = counts.get((queue, state), (0, float(due)))
            counts[queue, state] = (before + count, min(oldest, float(due)))
    return sum_by_queue((queue, state, *rest) for (queue, state), rest in sorted(counts.items()))


def _place_after(redis: Any, key: str, before: Mark | None) -> int:
    if before is None:
        return 0
    rank = redis.zrevrank(key, before.id)
    # One that is gone meanwhile: after all that are as old.
    return int(redis.zcount(key, before.enqueued, "+inf") if rank is None else rank + 1)
