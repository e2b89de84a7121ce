"""The store of the celery backend, in Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...store.base import KEEP_SECONDS, LONGEST_TRACEBACK, LOST, Record
from ...store.hashes import NAMES, fields_of, record_of
from ...store.redis import Reached, RedisStore
from ..distributed.engine_store import BATCH, OTHERS_SECONDS, SENDING_SECONDS, EngineStore, new_claim
from .engine_scripts import SCRIPTS

READ = tuple(name for name in NAMES if name != "message")


class Sending(NamedTuple):
    """A task that is to be sent, and when that was decided, by the clock of Redis."""

    id: str
    at: str


class RedisEngineStore(RedisStore, EngineStore):
    """The records of the tasks that Celery delivers. Redis has the time."""

    def __init__(self, redis: Any, app_name: str, *, prefix: str = "", reached: Reached | None = None) -> None:
        super().__init__(redis, app_name, prefix=prefix, reached=reached)
        self.add_scripts(SCRIPTS)

    def check(self) -> None:
        """Raise BackendUnavailable where Redis cannot be reached."""
        self.read("check")

    def accept(self, record: Record, message: str, delay: float) -> Sending:
        """
        Keep a new record with its message, due in `delay` seconds.

        Returns its id, and when it counts as sent; or the id of the task that holds its key: then nothing is kept.
        """
        fields = fields_of(record) | {"message": message, "kept": "1"}
        fields.pop("due", None)
        values = [part for pair in fields.items() for part in pair]
        keep, due_in = int(KEEP_SECONDS), repr(max(0.0, delay))
        found = self.run("accept", record.id, record.key, due_in, keep, LOST, record.enqueued, *values)
        return Sending(*found)

    def message_of(self, id: str) -> str | None:
        with self.reached:
            return self.redis.hget(self.key(f"task:{id}"), "message")  # type: ignore[no-any-return]

    def messages_of(self, ids: Sequence[str]) -> list[str | None]:
        """Return the signed messages of several records."""
        with self.reached, self.redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hget(self.key(f"task:{id}"), "message")
            return pipe.execute()  # type: ignore[no-any-return]

    def sent_at(self, queue: str, id: str) -> str:
        with self.reached:
            score = self.redis.zscore(self.key(f"sent:{queue}"), id)
        return "" if score is None else repr(score)

    # For workers

    def begin(self, id: str, owner: str, sent: str, *, claim: int = 0, once: bool = False) -> tuple[int, int]:
        found, attempt = self.run("begin", id, owner, sent, claim or new_claim())
        return int(found), int(attempt)

    def leave(self, id: str, error: str) -> int:
        return int(self.run("leave", id, error, OTHERS_SECONDS, int(KEEP_SECONDS)))

    def put_off(self, id: str, claim: int, seconds: float, *, attempts: int, error: str, traceback: str) -> bool:
        traceback = traceback[-LONGEST_TRACEBACK:]
        return bool(self.run("postpone", id, claim, f"+{max(0.0, seconds)!r}", attempts, error, traceback, ""))

    def release_in(self, id: str, delay: float, key: str, message: str) -> str:
        due = f"+{max(0.0, delay)!r}"
        return str(self.run("release", id, due, key, "", int(KEEP_SECONDS), LOST, message))

    def hand_over(self, id: str, claim: int) -> bool:
        return bool(self.run("take_back", id, claim, self.me, 0, ""))

    def end_process(self, token: str, pid: int) -> None:
        """Note that the process `token` has ended, if it is the process `pid` of this machine."""
        key = self.key(f"process:{token}")
        with self.reached:
            if self.redis.hmget(key, "host", "pid") == [socket.gethostname(), str(pid)]:
                self.redis.delete(key)

    # For sweepers

    def due(self) -> list[Sending]:
        """Make tasks queued whose time has come, and return them: the caller is the one that sends them."""
        return _sendings(self.run("due", BATCH))

    def stale(self, queues: Iterable[str]) -> list[str]:
        """Return those queues which have a task that was sent long enough ago to have been dropped."""
        return list(self.run("stale", SENDING_SECONDS, *queues))

    def dropped(self, queue: str, *, is_empty: bool) -> list[Sending]:
        """
        Return the tasks of a queue whose message was dropped: the caller is the one that sends them again.

        That is what is unclaimed some seconds after its last sending while the engine's queue is empty, or one that was
        sent as much later was delivered.
        """
        return _sendings(self.run("dropped", queue, int(is_empty), SENDING_SECONDS, BATCH))

    def orphans(self) -> list[Record]:
        found = map(self.read, self.run("orphans"))
        return [record for record in found if record is not None]

    def take_back(self, record: Record) -> int:
        return int(self.run("take_back", record.id, record.claim, record.owner, 1, ""))

    def take_over(self, record: Record) -> int:
        return int(self.run("take_back", record.id, record.claim, record.owner, 1, self.me))

    def probe(self, value: str, *, replaces: str = "") -> str:
        return str(self.run("probe", value, replaces))

    def read_probe(self) -> str | None:
        with self.reached:
            return self.redis.get(self.key("probe"))  # type: ignore[no-any-return]

    def unswept(self, queues: Iterable[str]) -> int:
        """Return how many tasks wait, if no sweeper has ever looked at them."""
        return int(self.run("unswept", *queues))

    # Reading

    def read(self, id: str) -> Record | None:
        found = self.read_all([id])
        return found[0] if found else None

    def read_all(self, ids: Sequence[str]) -> list[Record]:
        # A key that holds something else hides none.
        with self.reached, self.redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hmget(self.key(f"task:{id}"), *READ, "kept")
            found = pipe.execute(raise_on_error=False)
            for one in found:
                if isinstance(one, Exception) and "WRONGTYPE" not in str(one):
                    raise one
        pairs = zip(ids, found, strict=True)
        records = [_record(id, values) for id, values in pairs if not isinstance(values, Exception)]
        return [record for record in records if record is not None]


def _sendings(found: list[str]) -> list[Sending]:
    return [Sending(*pair) for pair in zip(found[::2], found[1::2], strict=True)]


def _record(id: str, values: Sequence[str | None]) -> Record | None:
    found = {name: value for name, value in zip((*READ, "message"), values, strict=True) if value is not None}
    if "message" in found:
        found["message"] = ""
    return record_of(id, found)
