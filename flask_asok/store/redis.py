"""A store in Redis: for processes of several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
from .counts import count_by_queue
from .pages import EVERY, Ended, Mark, Page, Wanted
from .ranked import CHUNK, page_of, read_ended
from .scripts import SCRIPTS

LEASE_SECONDS = 10
"""How long a process counts as alive that does not say so any more."""

BEAT_SECONDS = 3.0
"""How often it says so."""

_NAMES = tuple(field.name for field in dataclasses.fields(Record))
_NUMBERS = {"enqueued", "due", "scheduled", "started", "finished"}
_COUNTS = {"attempts", "claim", "deaths"}


class RedisStore(Store):
    """
    Lives as long as its application; `redis` is its client, made with `decode_responses=True`, which it closes.

    Processes that live renew a lease, so one that was lost counts as alive for up to ten seconds, and one that was
    stopped for longer than that as dead until it goes on.
    """

    def __init__(self, redis: Any, app_name: str, *, prefix: str = "", now: Callable[[], float] = time.time) -> None:
        super().__init__(now=now)
        self._redis = redis
        self._prefix = f"{prefix}asok:{app_name}:"
        self._scripts = {name: redis.register_script(script) for name, script in SCRIPTS.items()}
        self.me = ""
        self._closing = threading.Event()
        self._heart = HelperThread("asok-lease", self._beat, lambda: False)
        process.after_fork(self._forget)

    # Records

    def add(self, record: Record) -> str:
        fields = [part for pair in _fields(record).items() for part in pair]
        keep = int(KEEP_SECONDS)
        return str(
            self._run("add", record.id, record.key, record.due, self.now(), keep, LOST, record.enqueued, *fields)
        )

    def read(self, id: str) -> Record | None:
        with reached():
            return _record(self._redis.hgetall(f"{self._prefix}task:{id}"))

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        with reached():
            return page_of(self._redis, f"{self._prefix}newest", self._read_all, limit, wanted, before)

    def ended(self, since: float, limit: int) -> list[Ended]:
        with reached():
            return read_ended(self._redis, f"{self._prefix}settled", f"{self._prefix}task:", since, limit)

    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        return int(self._run("claim", id, owner, self.now(), "" if after is None else after))

    def report(self, id: str, claim: int, progress: Progress) -> bool:
        return bool(self._run("report", id, claim, _packed(progress)))

    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        rest = () if message is None else (message,)
        return str(self._run("release", id, due, key, self.now(), int(KEEP_SECONDS), LOST, *rest))

    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        return bool(self._run("postpone", id, claim, due, attempts, error, traceback[-LONGEST_TRACEBACK:]))

    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        rest = () if outcome is None else (outcome,)
        values = (state, self.now(), int(KEEP_SECONDS), error, traceback[-LONGEST_TRACEBACK:], *rest)
        return bool(self._run("settle", id, claim, *values))

    def cancel(self, id: str) -> bool:
        return bool(self._run("cancel", id, self.now(), int(KEEP_SECONDS)))

    def stop(self, id: str) -> bool:
        return bool(self._run("stop", id))

    def retry(self, id: str) -> Record | None:
        return self.read(id) if self._run("retry", id, self.now(), int(KEEP_SECONDS), LOST) else None

    def discard(self, id: str) -> bool:
        return bool(self._run("discard", id))

    def free(self, id: str) -> None:
        self._run("free", id)

    def expire(self, limit: int = 500) -> int:
        return int(self._run("expire", self.now() - KEEP_SECONDS, limit))

    def settle_lost(self) -> None:
        # What is not settled is read only once for each process that has ended: then that is forgotten.
        with reached():
            tokens = self._redis.smembers(f"{self._prefix}processes")
        dead = [token for token in tokens if not self.is_alive(token)]
        if dead:
            for record in self._unsettled():
                if record.owner in dead and not record.is_durable:
                    self.settle(record.id, record.claim, "abandoned", error=LOST)
            with reached():
                self._redis.srem(f"{self._prefix}processes", *dead)

    def queues(self) -> list[QueueSummary]:
        self.settle_lost()
        return count_by_queue(self._unsettled())

    def _unsettled(self) -> Iterator[Record]:
        with reached():
            ids = self._redis.zrange(f"{self._prefix}open", 0, -1)
        return chain.from_iterable(self._read_all(ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK))

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
        with reached():
            return bool(token) and bool(self._redis.exists(f"{self._prefix}process:{token}"))

    def processes(self) -> list[ProcessSummary]:
        found = []
        with reached():
            for token in self._redis.smembers(f"{self._prefix}processes"):
                about = self._redis.hgetall(f"{self._prefix}process:{token}")
                if about and about["kind"] != COMMAND:
                    found.append(_process(token, about))
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
        key = f"{self._prefix}process:{token}"
        with reached(), self._redis.pipeline() as pipe:
            pipe.hset(key, mapping=about)
            pipe.expire(key, LEASE_SECONDS)
            pipe.sadd(f"{self._prefix}processes", token)
            pipe.execute()

    # Ticks

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        return bool(self._run("take_tick", name, repr(at), task_id))

    def tick(self, name: str) -> Tick | None:
        with reached():
            found = self._redis.hget(f"{self._prefix}ticks", name)
        return None if found is None else Tick(*json.loads(found))

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        expected = () if old is None else (repr(old.at), old.task_id)
        return bool(self._run("replace_tick", name, repr(new.at), new.task_id, *expected))

    def close(self) -> None:
        process.renew()
        self._closing.set()
        self._heart.join(5)
        if self.me:
            # Its name stays among the processes, until `settle_lost` has seen that it has ended.
            with reached():
                self._redis.delete(f"{self._prefix}process:{self.me}")
            self.me = ""
        self._closing = threading.Event()
        self._redis.close()

    def _forget(self) -> None:
        """Renew the connections in a forked child; redis-py's pool does so by itself."""
        self.me: str = ""
        self._closing = threading.Event()

    def _run(self, script: str, *values: Any) -> Any:
        with reached():
            return self._scripts[script](keys=[self._prefix], args=values)

    def _read_all(self, ids: list[str]) -> list[Record]:
        with reached(), self._redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(f"{self._prefix}task:{id}")
            return [record for record in map(_record, pipe.execute()) if record is not None]


class reached:  # noqa: N801 - used as a statement
    """Turn what Redis raises into BackendUnavailable, without the URL, which may hold a password."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            return
        from redis.exceptions import RedisError

        if issubclass(kind, (RedisError, OSError)):
            raise BackendUnavailable(f"The Redis of the store cannot be used: {kind.__name__}.") from None


def _packed(progress: Progress) -> str:
    return json.dumps([progress.done, progress.total, progress.text, progress.at])


def _fields(record: Record) -> dict[str, Any]:
    """Return what is written of a record: no None, which Redis does not have."""
    fields = {name: getattr(record, name) for name in _NAMES}
    fields["stopping"] = "1" if record.stopping else ""
    fields["progress"] = None if record.progress is None else _packed(record.progress)
    return {
        name: repr(value) if isinstance(value, float) else value for name, value in fields.items() if value is not None
    }


def _record(found: dict[str, str]) -> Record | None:
    if "state" not in found:
        return None
    fields: dict[str, Any] = {name: found[name] for name in _NAMES if name in found}
    for name in fields.keys() & _NUMBERS:
        fields[name] = float(fields[name])
    for name in fields.keys() & _COUNTS:
        fields[name] = int(fields[name])
    fields["stopping"] = fields.get("stopping") == "1"
    if "progress" in fields:
        fields["progress"] = Progress(*json.loads(fields["progress"]))
    return Record(**fields)


def _process(token: str, about: dict[str, str]) -> ProcessSummary:
    return ProcessSummary(
        token=token,
        host=about["host"],
        pid=int(about["pid"]),
        kind=about["kind"],
        since=float(about["since"]),
        queues=tuple(json.loads(about["queues"])),
    )
