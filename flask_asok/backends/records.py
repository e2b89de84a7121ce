"""What is known of each task that runs elsewhere: one Redis hash a task, read and written by every process."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

from ..errors import BackendUnavailable
from ..logs import log
from ..summaries import SETTLED
from .causes import at
from .redis_server import RedisServer

KEEP_SECONDS = 86_400
"""How long a record outlives its last change."""

MOST_FAILED = 1_000
"""How many failed tasks `flask asok failed` remembers."""

LEASE_SECONDS = 10
"""How long an attempt belongs to a process that does not say any more that it is alive."""

BEAT_SECONDS = 3.0
"""How often it says so."""

CANCELLED = "cancelled"

STATES = frozenset({"queued", "running", "waiting", *SETTLED})

LATEST = 1e11
"""A Unix time beyond which there are no dates."""


class ForeignRecord(BackendUnavailable):
    """Raised where something else than a record is under its key."""


class Records:
    """
    The records of one application's tasks. Thread-safe; one per process, since it holds connections.

    An attempt belongs to who sets its claim first: the worker that got the message, a task that runs it in place while
    it waits for it, or `cancel()`. It stays theirs while they renew their lease; then whoever has its message next may
    take it over. So it is not the broker that decides whether a worker was lost.
    """

    def __init__(self, server: RedisServer, app_name: str) -> None:
        self._redis = server.client()
        self._prefix = f"{server.prefix}asok:{app_name}:"
        self._reached = _Reached(server.address, f"{self._prefix}*")
        self._failed = f"{self._prefix}failed"
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._leases: set[str] = set()
        self._renewer: threading.Thread | None = None
        self._closed = threading.Event()

    def check(self) -> None:
        """Raise BackendUnavailable where a record could not be read."""
        self.read("check")

    def add(self, id: str, fields: Mapping[str, Any], delay: float = 0.0) -> None:
        """Make the record of a new task, which starts in `delay` seconds."""
        state = "waiting" if delay > 0 else "queued"
        due = time.time() + delay
        self._write(id, {**fields, "state": state, "due": due}, KEEP_SECONDS + int(delay))

    def read(self, id: str) -> dict[str, str]:
        """
        Return the fields of a record, an empty dict where there is none; `state` is the one of this moment.

        `name`, `queue`, `enqueued` and `attempt` are there, and numbers are numbers, whoever has written it.
        """
        try:
            with self._reached:
                fields = _readable(self._redis.hgetall(self._prefix + id))
        except (UnicodeDecodeError, ForeignRecord):
            return {}
        if not fields:
            return {}
        if fields["state"] == "waiting" and float(fields.get("due", 0)) <= time.time():
            # So that a task which waits for it in the last free process runs it in place.
            fields["state"] = "queued"
        claim = fields.get(f"claim:{fields['attempt']}")
        if claim is not None and fields["state"] in ("queued", "waiting"):
            fields["state"] = CANCELLED if claim == CANCELLED else "running"
        return fields

    def claim(self, id: str, attempt: int, fields: Mapping[str, Any]) -> Literal["ours", "lost", "taken", "over"]:
        """
        Claim an attempt, and hold a lease on it until `wait`, `finish` or `release`.

        "ours"; "lost", ours too, its claimant having let the lease run out; "taken" by another, which is alive; or
        "over": settled, cancelled, or not the attempt whose turn it is. `fields` are those of `add`, for a task that
        waited for longer than its record was kept.
        """
        key, field = self._prefix + id, f"claim:{attempt}"
        try:
            with self._reached, self._redis.pipeline() as pipe:
                pipe.hsetnx(key, field, f"{self._me} {time.time()!r}")
                pipe.set(f"{key}:lease", self._me, ex=LEASE_SECONDS, nx=True)
                pipe.expire(key, KEEP_SECONDS)
                pipe.hmget(key, "state", "attempt", field)
                first, free, _, (state, current, claim) = pipe.execute()
        except ForeignRecord:
            self.remove(id)
            return self.claim(id, attempt, fields)
        if not first:
            if claim == CANCELLED or state not in ("queued", "waiting", None) or current not in (None, str(attempt)):
                return "over"
            if not free:
                return "taken"
            with self._reached:
                self._redis.hset(key, field, f"{self._me} {time.time()!r}")
        self._hold(id)
        if state is None:
            self._write(id, {**fields, "state": "queued"})
        return "ours" if first else "lost"

    def release(self, id: str, pid: int) -> None:
        """Let another process take over at once what process `pid` of this machine holds a lease on."""
        with self._lock:
            self._leases.discard(id)
        key = f"{self._prefix}{id}:lease"
        with self._reached:
            if self._redis.get(key) == f"{socket.gethostname()}:{pid}":
                self._redis.delete(key)

    def cancel(self, id: str) -> bool:
        """Claim the attempt that has not begun, for nobody; False when it has, or the task is settled or unknown."""
        fields = self.read(id)
        if fields.get("state") not in ("queued", "waiting"):
            return fields.get("state") == CANCELLED
        with self._reached:
            won = self._redis.hsetnx(self._prefix + id, f"claim:{fields['attempt']}", CANCELLED)
        if won:
            with self._reached:
                left = self._redis.ttl(self._prefix + id)
            # As long as the message may wait: without a record it would find nobody's claim, and run.
            self._write(id, {"state": CANCELLED, "finished": time.time()}, max(left, KEEP_SECONDS))
        return bool(won)

    def delivered_again(self, id: str, attempt: int) -> int:
        """Count one more delivery of an attempt whose worker was lost, and return how many there were."""
        with self._reached:
            return int(self._redis.hincrby(self._prefix + id, f"lost:{attempt}", 1))

    def wait(self, id: str, attempt: int, error: str, delay: float) -> None:
        """Note that attempt `attempt` is the next one, in `delay` seconds."""
        fields = {"state": "waiting", "attempt": attempt, "error": error, "due": time.time() + delay}
        self._write(id, fields, KEEP_SECONDS + int(delay), release=True)

    def finish(self, id: str, fields: Mapping[str, Any]) -> None:
        """Note the last state of a task, and what came out."""
        self._write(id, {"finished": time.time(), **fields}, release=True)

    def failed(self) -> list[str]:
        """Return the ids of failed tasks, the latest first."""
        with self._reached:
            ids: list[str] = self._redis.zrevrange(self._failed, 0, -1)
        return ids

    def remove(self, id: str) -> None:
        """Forget a task."""
        with self._reached, self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._prefix + id)
            pipe.zrem(self._failed, id)
            pipe.execute()

    def close(self) -> None:
        """Close the connections, and renew no lease any more."""
        self._closed.set()
        if self._renewer is not None:
            self._renewer.join(5)
        self._redis.close()

    def _write(self, id: str, fields: Mapping[str, Any], keep: int = KEEP_SECONDS, *, release: bool = False) -> None:
        key = self._prefix + id
        with self._reached, self._redis.pipeline(transaction=False) as pipe:
            if fields.get("state") == "failed":
                # First, so that who finds it failed finds it among the failed ones.
                pipe.zadd(self._failed, {id: time.time()})
                pipe.zremrangebyrank(self._failed, 0, -MOST_FAILED - 1)
            pipe.hset(key, mapping=dict(fields))
            pipe.expire(key, keep)
            if release:
                with self._lock:
                    self._leases.discard(id)
                pipe.delete(f"{key}:lease")
            pipe.execute()

    def _hold(self, id: str) -> None:
        with self._lock:
            self._leases.add(id)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, name="asok-leases", daemon=True)
                self._renewer.start()

    def _renew(self) -> None:
        """Renew the leases, in a thread that ends when there have been none for a while."""
        idle = False
        while not self._closed.wait(BEAT_SECONDS):
            with self._lock:
                held = list(self._leases)
                if not held and idle:
                    self._renewer = None
                    return
            idle = not held
            try:
                with self._reached, self._redis.pipeline(transaction=False) as pipe:
                    for id in held:
                        pipe.set(f"{self._prefix}{id}:lease", self._me, ex=LEASE_SECONDS)
                    pipe.execute()
            except BackendUnavailable as error:
                log(logging.WARNING, "Leases of background tasks could not be renewed: %s", error)


def _readable(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields without what nobody could have written that knows them, and with those that all need."""
    if fields.get("state") not in STATES:
        return {}
    found = {name: value for name, value in fields.items() if not _is_nonsense(name, value)}
    return {"name": "unknown", "queue": "unknown", "enqueued": "0", "attempt": "1", **found}


def _is_nonsense(name: str, value: str) -> bool:
    try:
        if name in ("attempt", "attempts"):
            return not 0 <= int(value) < 1_000_000
        if name in ("enqueued", "finished", "due"):
            return not 0 <= float(value) < LATEST
        if name.startswith("claim:") and value != CANCELLED:
            return not 0 <= float(value.split(" ")[1]) < LATEST
    except (ValueError, IndexError):
        return True
    return False


class _Reached:
    """Turns what Redis raises into BackendUnavailable, without its text, which may hold a password."""

    def __init__(self, address: str, keys: str) -> None:
        self._address = address
        self._keys = keys

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            return
        from redis.exceptions import NoPermissionError, RedisError, ResponseError

        if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
            raise ForeignRecord(f"Somebody else keeps something under one of the keys {self._keys}") from None
        if isinstance(error, (RedisError, OSError)):
            needed = f" It needs the keys {self._keys}" if isinstance(error, NoPermissionError) else ""
            raise BackendUnavailable(
                f"The Redis that keeps the tasks' records cannot be used: {at(self._address, error)}{needed}"
            ) from None
