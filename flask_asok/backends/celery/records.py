"""
The records of tasks: one Redis hash for each task, read and written by every process.

A store will replace them. The rest of this folder uses only the public methods of `Records`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

from ...errors import BackendUnavailable
from ...helper_thread import HelperThread
from ...logs import log
from ...messages.message import Message
from ...progress import Progress
from ...summaries import SETTLED
from .causes import ForeignRecord, Reached
from .fields import CANCELLED, as_of_now, packed, readable
from .listing import Listing
from .lua import KEEP, REPORT, TAKE
from .redis_server import RedisServer

KEEP_SECONDS = 86_400
"""How long a record is kept after its last change."""

MOST_FAILED = 1_000
"""How many failed and abandoned tasks `flask asok failed` lists."""

LEASE_SECONDS = 10
"""How long a process keeps an attempt without renewing its lease."""

BEAT_SECONDS = 3.0
"""How often a process renews its leases."""

KEEPS_MESSAGE = frozenset({"failed", "abandoned"})
"""The states in which `flask asok failed` lists a task, and `flask asok retry` runs it again."""


class Records:
    """
    The records of one application's tasks. Thread-safe; one for each process, since it holds connections.

    An attempt belongs to the first that claims it: the worker that got its message, a task that runs it in place while
    it waits for it, or `cancel()`. The claimant keeps it while it renews its lease; after that the next process with
    its message may take it over. So the leases decide whether a worker was lost, not the broker.

    Every method that asks Redis raises BackendUnavailable where that cannot be reached.
    """

    def __init__(self, server: RedisServer, app_name: str) -> None:
        self._redis = server.client()
        self._prefix = f"{server.prefix}asok:{app_name}:"
        self._reached = Reached(server.address, f"{self._prefix}*")
        self._failed = f"{self._prefix}failed"
        self._unique = f"{self._prefix}celery:unique:"
        self.listing: Listing = Listing(self._redis, self._reached, self._prefix)
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._leases: dict[str, str | None] = {}
        """The tasks of which this process has an attempt, and the keys in Redis of their unique keys."""
        self._renewer = HelperThread("asok-leases", self._renew, lambda: bool(self._leases))
        self._closed = threading.Event()

    def check(self) -> None:
        """Raise BackendUnavailable where Redis cannot be reached."""
        self.read("check")

    def add(self, message: Message, key: str = "", key_until: str = "end") -> str:
        """
        Make the record of a new task, which waits until its message is due, and return its id.

        With a unique `key` that another task has, nothing is made, and the id of that task is returned.
        """
        delay = max(0.0, message.due - time.time())
        keep = KEEP_SECONDS + int(delay)
        fields = {**_facts(message), "state": "waiting" if delay else "queued", "due": time.time() + delay}
        if key and (holder := self._take(key, key_until, message.id, fields, keep)) != message.id:
            return holder
        self._write(message.id, fields, keep, enqueued=message.enqueued)
        return message.id

    def read(self, id: str) -> dict[str, str]:
        """
        Return the fields of a record, or an empty dict; `state` is the current one.

        `name`, `queue`, `enqueued` and `attempt` are always there, and numbers can be read as such, whatever is stored.
        """
        try:
            with self._reached:
                fields = readable(self._redis.hgetall(self._prefix + id))
        except (UnicodeDecodeError, ForeignRecord):
            return {}
        return as_of_now(fields)

    def claim(self, message: Message) -> Literal["ours", "lost", "taken", "over"]:
        """
        Claim the attempt that a message asks for, and keep a lease on it until `wait`, `finish` or `release`.

        "ours"; "lost", ours too, since the lease of its claimant has run out; "taken" by another process, which is
        alive; or "over": settled, cancelled, or not the attempt whose turn it is. A record that has expired, or was
        lost, is made again.
        """
        id, attempt = message.id, message.attempt
        key, field = self._prefix + id, f"claim:{attempt}"
        try:
            with self._reached, self._redis.pipeline() as pipe:
                pipe.hsetnx(key, field, f"{self._me} {time.time()!r}")
                pipe.set(f"{key}:lease", self._me, ex=LEASE_SECONDS, nx=True)
                pipe.expire(key, KEEP_SECONDS)
                pipe.hmget(key, "state", "attempt", field, "unique")
                first, free, _, (state, current, claim, unique) = pipe.execute()
        except ForeignRecord:
            self.remove(id)
            return self.claim(message)
        if not first:
            if claim == CANCELLED or state not in ("queued", "waiting", None) or current not in (None, str(attempt)):
                return "over"
            if not free:
                return "taken"
            with self._reached:
                self._redis.hset(key, field, f"{self._me} {time.time()!r}")
                self._redis.hdel(key, "progress")
        self._keep_lease(id, unique)
        if unique is not None:
            with self._reached:
                self._redis.eval(KEEP, 1, unique, id, KEEP_SECONDS)
        if state is None:
            self._write(id, {**_facts(message), "state": "queued"}, enqueued=message.enqueued)
        return "ours" if first else "lost"

    def release(self, id: str, pid: int) -> None:
        """End the lease of process `pid` of this machine, so that another process can take the attempt over at once."""
        with self._lock:
            self._leases.pop(id, None)
        key = f"{self._prefix}{id}:lease"
        with self._reached:
            if self._redis.get(key) == f"{socket.gethostname()}:{pid}":
                self._redis.delete(key)

    def cancel(self, id: str) -> bool:
        """Cancel a task; False where its attempt has begun, or where it is settled or unknown."""
        fields = self.read(id)
        if fields.get("state") not in ("queued", "waiting"):
            return fields.get("state") == CANCELLED
        with self._reached:
            won = self._redis.hsetnx(self._prefix + id, f"claim:{fields['attempt']}", CANCELLED)
        if won:
            with self._reached:
                left = self._redis.ttl(self._prefix + id)
            # Kept for as long as the message may wait: without a record it would run.
            self._write(id, {"state": CANCELLED, "finished": time.time()}, max(left, KEEP_SECONDS))
        return bool(won)

    def stop(self, id: str) -> bool:
        """Ask the attempt that runs to stop when it reports its progress next; False where none runs."""
        fields = self.read(id)
        if fields.get("state") != "running":
            return False
        with self._reached:
            self._redis.hset(self._prefix + id, "stop", fields["attempt"])
        return True

    def report(self, id: str, attempt: int, progress: Progress) -> bool:
        """Write the progress of an attempt, unless another process has taken it over; True if it is to stop."""
        with self._reached:
            return bool(self._redis.eval(REPORT, 1, self._prefix + id, attempt, self._me, packed(attempt, progress)))

    def delivered_again(self, id: str, attempt: int) -> int:
        """Count one more lost worker of an attempt, and return how many there were."""
        with self._reached:
            return int(self._redis.hincrby(self._prefix + id, f"lost:{attempt}", 1))

    def wait(self, message: Message, error: str) -> None:
        """Write down that the task waits for the attempt of this message, since the one before raised `error`."""
        fields = {"state": "waiting", "attempt": message.attempt, "error": error, "due": message.due}
        delay = max(0.0, message.due - time.time())
        self._write(message.id, fields, KEEP_SECONDS + int(delay), release=True)

    def finish(self, message: Message, fields: Mapping[str, Any]) -> None:
        """Write down the last state of a task and its outcome: `fields`, among them `state`."""
        # With the facts, for a record that was lost meanwhile.
        self._write(message.id, {"finished": time.time(), **_facts(message), **fields}, release=True)

    def failed(self) -> list[str]:
        """Return the ids of the failed and abandoned tasks, the latest first."""
        with self._reached:
            ids: list[str] = self._redis.zrevrange(self._failed, 0, -1)
        return ids

    def renew(self, message: Message, fields: Mapping[str, str]) -> bool:
        """
        Make the record of a task anew that has failed, `fields` being its old one, and list it as failed no more.

        False if another task has its unique key by now: then it stays as it is.
        """
        unique = fields.get("unique", "").removeprefix(self._unique)
        if not unique:
            self.remove(message.id)
        if self.add(message, unique, fields.get("unique_until", "end")) != message.id:
            return False
        with self._reached:
            self._redis.zrem(self._failed, message.id)
        return True

    def remove(self, id: str) -> None:
        """Forget a task."""
        with self._reached, self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._prefix + id)
            pipe.zrem(self._failed, id)
            self.listing.remove(pipe, id)
            pipe.execute()

    def close(self) -> None:
        """Close the connections, and stop renewing leases."""
        self._renewer.stop()
        self._closed.set()
        self._renewer.join(5)
        self._redis.close()

    def _write(
        self,
        id: str,
        fields: Mapping[str, Any],
        keep: int = KEEP_SECONDS,
        *,
        release: bool = False,
        enqueued: float | None = None,
    ) -> None:
        """Write fields; with `enqueued` also list the task, and with `release` end its lease."""
        key = self._prefix + id
        with self._reached, self._redis.pipeline(transaction=False) as pipe:
            if fields.get("state") in KEEPS_MESSAGE:
                # First: a caller that sees the state must find the task in the list.
                pipe.zadd(self._failed, {id: time.time()})
                pipe.zremrangebyrank(self._failed, 0, -MOST_FAILED - 1)
            pipe.hset(key, mapping=dict(fields))
            pipe.expire(key, keep)
            if enqueued is not None:
                self.listing.add(pipe, id, enqueued)
            elif fields.get("state") in SETTLED:
                self.listing.settle(pipe, id)
            if release:
                with self._lock:
                    unique = self._leases.pop(id, None)
                pipe.delete(f"{key}:lease")
                if unique is not None:
                    pipe.eval(KEEP, 1, unique, id, 0 if fields["state"] in SETTLED else keep)
            pipe.execute()

    def _take(self, key: str, until: str, id: str, fields: Mapping[str, Any], keep: int) -> str:
        """Take a unique key and make the record in one step; return the id of the task that has the key."""
        key = self._unique + key
        pairs = [part for pair in {**fields, "unique": key, "unique_until": until}.items() for part in pair]
        with self._reached:
            return str(self._redis.eval(TAKE, 2, key, self._prefix + id, self._prefix, id, keep, *pairs))

    def _keep_lease(self, id: str, unique: str | None) -> None:
        with self._lock:
            self._leases[id] = unique
        self._renewer.need()

    def _renew(self) -> bool:
        """Renew the leases after a while; False once there are none."""
        if self._closed.wait(BEAT_SECONDS):
            return False
        with self._lock:
            leases = list(self._leases)
        if not leases:
            return False
        try:
            with self._reached, self._redis.pipeline(transaction=False) as pipe:
                for id in leases:
                    pipe.set(f"{self._prefix}{id}:lease", self._me, ex=LEASE_SECONDS)
                pipe.execute()
        except BackendUnavailable as error:
            log(logging.WARNING, "Leases of background tasks could not be renewed: %s", error)
        return True


def _facts(message: Message) -> dict[str, Any]:
    facts = {"name": message.name, "queue": message.queue, "enqueued": message.enqueued, "attempt": message.attempt}
    return {**facts, "scheduled": message.scheduled} if message.scheduled else facts
