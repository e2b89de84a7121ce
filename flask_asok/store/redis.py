"""A store in Redis: for processes of several machines."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .. import process
from ..errors import BackendUnavailable
from ..helper_thread import HelperThread
from ..progress import Progress
from ..summaries import State
from .base import (
    COMMAND,
    KEEP_SECONDS,
    LONGEST_TRACEBACK,
    LOST,
    ProcessSummary,
    QueueSummary,
    Record,
    Store,
    Tick,
)
from .causes import at
from .hashes import fields_of, packed, record_of
from .looking import LOOKS
from .pages import EVERY, Ended, EndedCounts, Mark, Page, Wanted
from .ranked import CHUNK, count_ended, count_open, page_of, read_ended
from .readable import process_in, tick_in
from .scripts import SCRIPTS

LEASE_SECONDS = 10
"""How long a process counts as alive that does not say so any more."""

BEAT_SECONDS = 3.0
"""How often it says so."""


class RedisStore(Store):
    """
    Lives as long as its application; `redis` is its client, made with `decode_responses=True`, which it closes.

    Processes that live renew a lease, so one that was lost counts as alive for up to ten seconds, and one that was
    stopped for longer than that as dead until it goes on.
    """

    def __init__(self, redis: Any, app_name: str, *, prefix: str = "", reached: Reached | None = None) -> None:
        super().__init__()
        self.redis = redis
        # Turns what Redis raises into BackendUnavailable.
        self.reached: Reached = reached or Reached()
        self._prefix = f"{prefix}asok:{app_name}:"
        self._scripts: dict[str, Any] = {}
        self.add_scripts(SCRIPTS | LOOKS)
        self.me = ""
        self._closing = threading.Event()
        self._heart = HelperThread("asok-lease", self._beat, lambda: False)
        process.after_fork(self._forget)

    def add_scripts(self, scripts: Mapping[str, str]) -> None:
        """Let `run` know these scripts too."""
        self._scripts |= {name: self.redis.register_script(script) for name, script in scripts.items()}

    def key(self, name: str) -> str:
        """Return the key in Redis for this name: those of two applications never mix."""
        return self._prefix + name

    # Records

    def add(self, record: Record) -> str:
        fields = [part for pair in fields_of(record).items() for part in pair]
        keep = int(KEEP_SECONDS)
        values = (record.due, self._stamp(), keep, LOST, record.enqueued, *fields)
        return str(self.run("add", record.id, record.key, *values))

    def read(self, id: str) -> Record | None:
        with self.reached:
            return record_of(id, self.redis.hgetall(self.key(f"task:{id}")))

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        with self.reached:
            return page_of(self.redis, self.key("newest"), self.run, self.read_all, limit, wanted, before)

    def ended(self, since: float, limit: int) -> list[Ended]:
        with self.reached:
            return read_ended(self.redis, self.key("settled"), self.key("task:"), since, limit)

    def count_ended(self, since: float, seconds: float) -> EndedCounts:
        with self.reached:
            return count_ended(self.redis, self.key("settled"), self.run, since, seconds)

    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        return int(self.run("claim", id, owner, self._stamp(), "" if after is None else after))

    def report(self, id: str, claim: int, progress: Progress) -> bool:
        return bool(self.run("report", id, claim, packed(progress)))

    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        rest = () if message is None else (message,)
        return str(self.run("release", id, due, key, self._stamp(), int(KEEP_SECONDS), LOST, *rest))

    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        return bool(
            self.run("postpone", id, claim, due, attempts, error, traceback[-LONGEST_TRACEBACK:], self._stamp())
        )

    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        rest = () if outcome is None else (outcome,)
        values = (state, self._stamp(), int(KEEP_SECONDS), error, traceback[-LONGEST_TRACEBACK:], *rest)
        return bool(self.run("settle", id, claim, *values))

    def cancel(self, id: str) -> bool:
        return bool(self.run("cancel", id, self._stamp(), int(KEEP_SECONDS)))

    def stop(self, id: str) -> bool:
        return bool(self.run("stop", id))

    def retry(self, id: str) -> Record | None:
        return self.read(id) if self.run("retry", id, self._stamp(), int(KEEP_SECONDS), LOST) else None

    def discard(self, id: str) -> bool:
        return bool(self.run("discard", id))

    def free(self, id: str) -> None:
        self.run("free", id)

    def expire(self, limit: int = 500) -> int:
        return int(self.run("expire", self._stamp(), KEEP_SECONDS, limit))

    def settle_lost(self) -> None:
        # What is not settled is read only once for each process that has ended: then that is forgotten.
        with self.reached:
            tokens = self.redis.smembers(self.key("processes"))
        dead = [token for token in tokens if not self.is_alive(token)]
        if dead:
            for record in self._unsettled():
                if record.owner in dead and not record.is_durable:
                    self.settle(record.id, record.claim, "abandoned", error=LOST)
            with self.reached:
                self.redis.srem(self.key("processes"), *dead)

    def queues(self) -> list[QueueSummary]:
        self.settle_lost()
        return count_open(self.run)

    def _unsettled(self) -> Iterator[Record]:
        with self.reached:
            ids = self.redis.zrange(self.key("open"), 0, -1)
        return chain.from_iterable(self.read_all(ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK))

    # Processes

    def enter(self, kind: str, queues: Iterable[str]) -> str:
        process.renew()
        token = self.me or secrets.token_hex(16)
        about = {
            "host": socket.gethostname(), "pid": os.getpid(), "kind": kind, "since": self.now(),
            "queues": json.dumps(list(queues)),
        }  # fmt: skip
        self._tell(token, about)
        self.me, self._about = token, about
        self._heart.need()
        return token

    def is_alive(self, token: str) -> bool:
        with self.reached:
            return bool(token) and bool(self.redis.exists(self.key(f"process:{token}")))

    def processes(self) -> list[ProcessSummary]:
        found = []
        with self.reached:
            for token in self.redis.smembers(self.key("processes")):
                about = self.redis.hgetall(self.key(f"process:{token}"))
                if about and about.get("kind") != COMMAND:
                    found.append(process_in(token, *map(about.get, ("host", "pid", "kind", "since", "queues"))))
        return sorted(found, key=lambda one: one.since)

    def _beat(self) -> bool:
        """Renew the lease after a while; False once the store is closed."""
        if self._closing.wait(BEAT_SECONDS):
            return False
        # Every call that needs the store tells when it is away; the next beat tries again.
        with contextlib.suppress(BackendUnavailable):
            # The fields too: the lease may have run out while Redis was away, or this process stopped.
            self._tell(self.me, self._about)
        return True

    def _tell(self, token: str, about: dict[str, Any]) -> None:
        key = self.key(f"process:{token}")
        with self.reached, self.redis.pipeline() as pipe:
            pipe.hset(key, mapping=about)
            pipe.expire(key, LEASE_SECONDS)
            pipe.sadd(self.key("processes"), token)
            pipe.execute()

    # Ticks

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        return bool(self.run("take_tick", name, repr(at), task_id))

    def tick(self, name: str) -> Tick | None:
        with self.reached:
            found = self.redis.hget(self.key("ticks"), name)
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            return None if found is None else tick_in(*json.loads(found))
        return None

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        expected = () if old is None else (repr(old.at), old.task_id)
        return bool(self.run("replace_tick", name, repr(new.at), new.task_id, *expected))

    def close(self) -> None:
        process.renew()
        self._closing.set()
        self._heart.join(5)
        if self.me:
            # Its name stays among the processes, until `settle_lost` has seen that it has ended.
            with self.reached:
                self.redis.delete(self.key(f"process:{self.me}"))
            self.me = ""
        self._closing = threading.Event()
        self.redis.close()

    def _forget(self) -> None:
        """Renew the connections in a forked child; redis-py's pool does so by itself."""
        self.me: str = ""
        self._closing = threading.Event()

    def _stamp(self) -> float | str:
        """Return the time for a script; "" for that of Redis itself, which all the machines share."""
        return "" if self.now is time.time else self.now()

    def run(self, script: str, *values: Any) -> Any:
        """Run a script, one atomic step inside of Redis, and return what it returns."""
        with self.reached:
            return self._scripts[script](keys=[self._prefix], args=values)

    def read_all(self, ids: Sequence[str]) -> list[Record]:
        """Return the records that there are of these."""
        with self.reached, self.redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(self.key(f"task:{id}"))
            found = map(record_of, ids, pipe.execute())
            return [record for record in found if record is not None]


class Reached:
    """In a with statement: makes what Redis raises BackendUnavailable, without its text, which may hold a password."""

    name: str = "The Redis of the store"

    def __init__(self, address: str = "") -> None:
        self._address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            return
        from redis.exceptions import RedisError

        if isinstance(error, (RedisError, OSError)):
            raise self.told(error) from None

    def told(self, error: Exception) -> BackendUnavailable:
        """Return what is raised in place of an error."""
        return BackendUnavailable(f"{self.name} cannot be used: {at(self._address, error)}")
