"""The lists of tasks: the newest ones, and those that are not settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...store.base import Record
from ...store.pages import Mark, Page, Wanted
from ...store.ranked import page_of
from .causes import ForeignRecord, Reached
from .fields import SUMMARY_FIELDS, as_of_now, claims_of, given, readable

Read = Callable[[list[str]], Iterable[Record]]

MOST_LISTED = 10_000
"""How many tasks `asok.tasks()` finds: the newest ones."""


class Listing:
    """
    The ids of one application's tasks in two sorted sets, by the time of their call.

    `add`, `settle` and `remove` add commands to a pipeline of `Records`; the others ask Redis, and raise
    BackendUnavailable where that cannot be reached.
    """

    def __init__(self, redis: Any, reached: Reached, prefix: str) -> None:
        self._redis = redis
        self._reached = reached
        self._prefix = prefix
        self._newest = f"{prefix}celery:newest"
        self._unsettled = f"{prefix}celery:unsettled"

    def add(self, pipe: Any, id: str, enqueued: float) -> None:
        """List a new task."""
        pipe.zadd(self._newest, {id: enqueued})
        pipe.zremrangebyrank(self._newest, 0, -MOST_LISTED - 1)
        pipe.zadd(self._unsettled, {id: enqueued})

    def settle(self, pipe: Any, id: str) -> None:
        """Note that a task is settled."""
        pipe.zrem(self._unsettled, id)

    def remove(self, pipe: Any, *ids: str) -> None:
        """Forget tasks."""
        pipe.zrem(self._newest, *ids)
        pipe.zrem(self._unsettled, *ids)

    def newest(self, start: int, count: int) -> list[str]:
        """Return the ids of `count` tasks after the `start` newest ones, the newest first."""
        with self._reached:
            ids: list[str] = self._redis.zrevrange(self._newest, start, start + count - 1)
        return ids

    def page(self, read: Read, limit: int, wanted: Wanted, before: Mark | None) -> Page:
        """Return a page of the tasks; `read` reads the records of ids."""
        with self._reached:
            return page_of(self._redis, self._newest, read, limit, wanted, before)

    def unsettled(self) -> list[str]:
        """Return the ids of the tasks that are not settled, and of some that are."""
        with self._reached:
            ids: list[str] = self._redis.zrange(self._unsettled, 0, -1)
        return ids

    def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the fields of several records by id, as `Records.read` does, without outcomes and messages."""
        try:
            found = self._read_all(ids)
        except (UnicodeDecodeError, ForeignRecord):
            found = {}
            for id in ids:
                # That one has nothing to tell, and hides no other.
                found[id] = self._read_one(id)
        gone = [id for id, fields in found.items() if not fields]
        if gone:
            # They have expired, which their ids in the lists do not.
            with self._reached, self._redis.pipeline(transaction=False) as pipe:
                self.remove(pipe, *gone)
                pipe.execute()
        return {id: fields for id, fields in found.items() if fields}

    def _read_one(self, id: str) -> dict[str, str]:
        try:
            return self._read_all([id])[id]
        except (UnicodeDecodeError, ForeignRecord):
            return {}

    def _read_all(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        with self._reached, self._redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hmget(self._prefix + id, SUMMARY_FIELDS)
            values = [readable(given(SUMMARY_FIELDS, one)) for one in pipe.execute()]
            found = dict(zip(ids, values, strict=True))
            for id, fields in found.items():
                pipe.hmget(self._prefix + id, claims_of(fields))
            for fields, claims in zip(found.values(), pipe.execute(), strict=True):
                fields.update(given(claims_of(fields), claims))
        return {id: as_of_now(readable(fields)) for id, fields in found.items()}
