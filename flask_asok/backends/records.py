"""What is known of each task that runs elsewhere: one Redis hash a task, read and written by every process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import BackendUnavailable

KEEP_SECONDS = 86_400
"""How long a record outlives its last change."""

MOST_FAILED = 1_000
"""How many failed tasks `flask asok failed` remembers."""

CANCELLED = "cancelled"


class Records:
    """
    The records of one application's tasks. Thread-safe; one per process, since it holds connections.

    An attempt belongs to who sets its claim first: the worker that got the message, a task that runs it in place while
    it waits for it, or `cancel()`.
    """

    def __init__(self, url: str, app_name: str) -> None:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # redis-py tries for seconds by default; a request must not wait that long to learn that Redis is down.
        self._redis: Any = Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        self._prefix = f"asok:{app_name}:"
        self._failed = f"{self._prefix}failed"
        self._me = f"{socket.gethostname()}:{os.getpid()}"

    def add(self, id: str, fields: Mapping[str, Any], delay: float = 0.0) -> None:
        """Make the record of a new task, which starts in `delay` seconds."""
        state = "waiting" if delay > 0 else "queued"
        self._write(id, {**fields, "attempt": 1, "state": state}, KEEP_SECONDS + int(delay))

    def read(self, id: str) -> dict[str, str]:
        """Return the fields of a record, an empty dict where there is none; `state` is the one of this moment."""
        with _Reached():
            fields: dict[str, str] = self._redis.hgetall(self._prefix + id)
        claim = fields.get(f"claim:{fields.get('attempt')}")
        if claim is not None and fields.get("state") in ("queued", "waiting"):
            fields["state"] = CANCELLED if claim == CANCELLED else "running"
        return fields

    def claim(self, id: str, attempt: int, *, again: bool = False) -> Literal["ours", "taken", "over"]:
        """
        Claim an attempt: "ours", or "taken" by another process, or "over", as the task is settled or cancelled.

        `again`: the message was delivered before, to a worker that was lost; its claim is taken over.
        """
        key, field = self._prefix + id, f"claim:{attempt}"
        mine = f"{self._me} {time.time()!r}"
        with _Reached():
            if self._redis.hsetnx(key, field, mine):
                return "ours"
            state, current, claimed = self._redis.hmget(key, "state", "attempt", field)
            if claimed == CANCELLED or state not in ("queued", "waiting", None) or int(current or 1) != attempt:
                return "over"
            if not again:
                return "taken"
            self._redis.hset(key, field, mine)
            return "ours"

    def cancel(self, id: str) -> bool:
        """Claim the attempt that has not begun, for nobody; False when it has, or the task is settled or unknown."""
        fields = self.read(id)
        if fields.get("state") not in ("queued", "waiting"):
            return fields.get("state") == CANCELLED
        with _Reached():
            won = self._redis.hsetnx(self._prefix + id, f"claim:{fields['attempt']}", CANCELLED)
        if won:
            self._write(id, {"state": CANCELLED, "finished": time.time()})
        return bool(won)

    def delivered_again(self, id: str, attempt: int) -> int:
        """Count one more delivery of an attempt whose worker was lost, and return how many there were."""
        with _Reached():
            return int(self._redis.hincrby(self._prefix + id, f"lost:{attempt}", 1))

    def wait(self, id: str, attempt: int, error: str, delay: float) -> None:
        """Note that attempt `attempt` is the next one, in `delay` seconds."""
        self._write(id, {"state": "waiting", "attempt": attempt, "error": error}, KEEP_SECONDS + int(delay))

    def finish(self, id: str, fields: Mapping[str, Any]) -> None:
        """Note the last state of a task, and what came out."""
        self._write(id, {**fields, "finished": time.time()})
        if fields["state"] == "failed":
            with _Reached(), self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(self._failed, {id: time.time()})
                pipe.zremrangebyrank(self._failed, 0, -MOST_FAILED - 1)
                pipe.execute()

    def failed(self) -> list[str]:
        """Return the ids of failed tasks, the latest first."""
        with _Reached():
            ids: list[str] = self._redis.zrevrange(self._failed, 0, -1)
        return ids

    def remove(self, id: str) -> None:
        """Forget a task."""
        with _Reached(), self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._prefix + id)
            pipe.zrem(self._failed, id)
            pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _write(self, id: str, fields: Mapping[str, Any], keep: int = KEEP_SECONDS) -> None:
        key = self._prefix + id
        with _Reached(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping=dict(fields))
            pipe.expire(key, keep)
            pipe.execute()


class _Reached:
    """Turns what Redis raises into BackendUnavailable, without the URL, which may hold a password."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            return
        from redis.exceptions import RedisError

        if issubclass(kind, (RedisError, OSError)):
            raise BackendUnavailable(
                f"The Redis that keeps the tasks' records cannot be used: {kind.__name__}."
            ) from None
