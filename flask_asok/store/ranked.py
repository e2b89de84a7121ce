"""Lists of tasks in sorted sets of Redis: a page of all, by the time of their calls, and those that ended lately."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .pages import Ended, Mark, Page, Wanted
from .readable import ended_in
from .record import Record

MOST_LOOKED_AT = 10_000
"""Records that are looked at for one page: where few match, a page is short."""

CHUNK = 200
"""Records that are read in one round trip."""

_OF_ENDED = ("name", "queue", "state", "started", "finished")


def page_of(
    redis: Any,
    key: str,
    read: Callable[[list[str]], Iterable[Record]],
    limit: int,
    wanted: Wanted,
    before: Mark | None,
) -> Page:
    """Return a page of the tasks whose ids the sorted set `key` has, by the time of their calls, as `Store.page`."""
    found: list[Record] = []
    for _ in range(MOST_LOOKED_AT // CHUNK):
        marks = _marks_after(redis, key, before)
        if not marks or not limit:
            return Page(found)
        for record in wanted.keep(read([mark.id for mark in marks])):
            if len(found) == limit:
                return Page(found, Mark.of(found[-1]))
            found.append(record)
        before = marks[-1]
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


def _marks_after(redis: Any, key: str, before: Mark | None) -> list[Mark]:
    at = 0
    if before is not None:
        rank = redis.zrevrank(key, before.id)
        # One that is gone meanwhile: after all that are as old.
        at = redis.zcount(key, before.enqueued, "+inf") if rank is None else rank + 1
    return [Mark(enqueued, id) for id, enqueued in redis.zrevrange(key, at, at + CHUNK - 1, withscores=True)]
