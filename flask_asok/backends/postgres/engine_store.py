"""The store of the postgres backend: the records, and the engine's rows that carry the tasks to workers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg.errors import UniqueViolation

from ...store.base import KEEP_SECONDS, Record
from ...store.postgres.connections import Connections
from ...store.postgres.store import COLUMNS, LEASE_SECONDS, PostgresStore
from ...summaries import State
from ..base import KEY_TAKEN
from ..distributed.engine_store import BATCH, OTHERS_SECONDS, SENDING_SECONDS, EngineStore, new_claim
from . import engine_statements as statements

LONGEST_LINE = 40
"""Bytes that the engine's name of a queue may have: with its own prefix it is the name of a channel."""

KEY_WAS_TAKEN = -1
"""The number of an attempt that is not made: another task has the unique key by the time of the first one."""


class PostgresEngineStore(PostgresStore, EngineStore):
    """The records of the tasks that Procrastinate delivers. PostgreSQL has the time."""

    shown: str = ", ".join(
        "CASE WHEN message IS NOT NULL THEN '' END" if name == "message" else name for name in COLUMNS
    )

    settling: str = statements.SETTLE
    postponing: str = statements.POSTPONE

    def __init__(
        self,
        connections: Connections,
        app_name: str,
        queues: Iterable[str],
        *,
        lease: float = LEASE_SECONDS,
        keep: float = KEEP_SECONDS,
    ) -> None:
        super().__init__(connections, app_name, lease=lease, keep=keep)
        self._queues = list(queues)
        self.lines: dict[str, str] = {queue: line_of(app_name, queue) for queue in self._queues}
        """The engine's names of the queues."""
        self.claims: set[int] = set()
        """
        The claims of the attempts that this process makes, or is just asking for. Of any other one that it seems to
        have, by an answer that was lost, it makes no attempt.
        """

    def check(self) -> None:
        """Raise BackendUnavailable where PostgreSQL cannot be reached, NotConfigured where it lacks the tables."""
        self.rows(statements.CHECK)

    def acceptance(self, record: Record, message: str, delay: float) -> dict[str, Any]:
        """Return the values of ENQUEUE and ENQUEUE_UNIQUE, for a record that is due in `delay` seconds."""
        return {
            "app": self.app_name, "id": record.id, "name": record.name, "queue": record.queue,
            "function": record.function, "origin": record.origin, "enqueued": record.enqueued, "delay": float(delay),
            "scheduled": record.scheduled, "key": record.key, "message": message, "line": self.lines[record.queue],
            "now": self.time_of_test(),
        }  # fmt: skip

    def accept(self, record: Record, message: str, delay: float) -> str:
        """
        Keep a new record with its message, due in `delay` seconds, and let a worker have it then.

        Returns its id, or the id of the task that holds its key: then nothing is kept.
        """
        if record.key:
            return self._accept_unique(record, message, delay)
        self.connections.change(statements.ENQUEUE, self.acceptance(record, message, delay))
        return record.id

    def _accept_unique(self, record: Record, message: str, delay: float) -> str:
        # The key is taken here, by a transaction of our own that is over at once: others wait for no longer.
        record = dataclasses.replace(record, state="waiting" if delay else "queued", message=message)
        holder = self.added(record, float(delay))
        if holder == record.id and not delay:
            self.send(record.id)
        return holder

    def send(self, id: str) -> None:
        """Let a worker have a queued task."""
        self.change(statements.SEND, id=id)

    def message_of(self, id: str) -> str | None:
        found = self.rows("SELECT message FROM asok_tasks WHERE app = %(app)s AND id = %(id)s", id=id)
        return found[0][0] if found else None

    def sent_at(self, queue: str, id: str) -> str:
        return ""

    def read_all(self, ids: Sequence[str]) -> list[Record]:
        return self.records("id = ANY(%(ids)s)", ids=list(ids))

    def release_in(self, id: str, delay: float, key: str, message: str) -> str:
        holder = self.released(id, key, message, due=None, delay=max(0.0, delay))
        if holder == id and not delay:
            self.send(id)
        return holder

    # For workers

    def begin(self, id: str, owner: str, sent: str, *, claim: int = 0, once: bool = False) -> tuple[int, int]:
        claim = claim or new_claim()
        attempt, _ = self.take(id, owner, claim)
        if attempt > 0:
            return claim, attempt
        if attempt == KEY_WAS_TAKEN:
            self.refuse(id)
            return 0, 0
        return (0 if self.read(id) is not None else -1), 0

    def take(self, id: str, owner: str, claim: int) -> tuple[int, str]:
        """
        Begin the attempt of a task that is due, with a new claim, and return its number and the message.

        Asked again with the same claim, it answers the same. The number is 0 where no attempt is due, and KEY_WAS_TAKEN
        where the task is to be refused.
        """
        self.claims.add(claim)
        try:
            found = self.rows(statements.BEGIN, id=id, owner=owner, claim=claim)
        except UniqueViolation:
            found = [(KEY_WAS_TAKEN, "")]
        if not found or found[0][0] <= 0:
            self.claims.discard(claim)
        return found[0] if found else (0, "")

    def refuse(self, id: str) -> str | None:
        """Cancel a task whose key was taken before it began, and return its message; None if it is not so any more."""
        found = self.rows(statements.REFUSE, id=id, error=KEY_TAKEN)
        return found[0][0] if found else None

    def put_back(self, id: str, claim: int) -> None:
        """Let a task be queued again whose attempt was not made."""
        self.change(statements.PUT_BACK, id=id, claim=claim)
        self.claims.discard(claim)

    def leave(self, id: str, error: str) -> int:
        found = self.rows(statements.LEAVE, id=id, error=error, seconds=OTHERS_SECONDS)
        return int(found[0][0]) if found else 0

    def put_off(self, id: str, claim: int, seconds: float, *, attempts: int, error: str, traceback: str) -> bool:
        return self.postponed(
            id, claim, due=None, delay=max(0.0, seconds), attempts=attempts, error=error, traceback=traceback
        )

    def postponed(self, id: str, claim: int, **values: Any) -> bool:
        is_postponed = super().postponed(id, claim, **values)
        self.claims.discard(claim)
        return is_postponed

    def settle(self, id: str, claim: int, state: State, **values: Any) -> bool:
        is_settled = super().settle(id, claim, state, **values)
        self.claims.discard(claim)
        return is_settled

    def hand_over(self, id: str, claim: int) -> bool:
        is_queued = bool(self.rows(statements.TAKE_BACK, id=id, claim=claim, owner=self.me, deaths=0))
        self.claims.discard(claim)
        return is_queued

    # For sweepers

    def send_due(self) -> int:
        """Make tasks queued whose time has come, and let workers have them; return how many there were."""
        return self.change(statements.DUE, limit=BATCH)

    def send_lost(self) -> int:
        """Let workers have what a lost one had taken and not begun."""
        return self.change(statements.LOST, limit=BATCH)

    def send_dropped(self) -> int:
        """Let workers have what waits and which the engine does not know any more."""
        return self.change(statements.DROPPED, limit=BATCH, seconds=SENDING_SECONDS)

    def orphans(self) -> list[Record]:
        known = {"me": self.me, "claims": list(self.claims)}
        rows = self.rows(f"SELECT {self.shown} FROM asok_tasks t WHERE {statements.ORPHANS}", limit=BATCH, **known)
        return [self.record_of(row) for row in rows]

    def take_back(self, record: Record) -> int:
        found = self.rows(statements.TAKE_BACK, id=record.id, claim=record.claim, owner=record.owner, deaths=1)
        return int(found[0][0]) if found else 0

    def take_over(self, record: Record) -> int:
        found = self.rows(statements.TAKE_OVER, id=record.id, claim=record.claim, owner=record.owner, me=self.me)
        if not found:
            return 0
        claim = int(found[0][0])
        self.claims.add(claim)
        return claim

    def sweep(self) -> None:
        """Delete what lost workers have left in the engine's tables."""
        self.change(statements.SWEEP)

    def probe(self, value: str, *, replaces: str = "") -> str:
        self.change(statements.PROBE, value=value, replaces=replaces)
        return str(self.read_probe())

    def read_probe(self) -> str | None:
        found = self.rows(statements.READ_PROBE)
        return found[0][0] if found else None

    def counts(self) -> dict[str, tuple[int, int, float]]:
        """
        Return, for each queue, how many tasks are queued, how many wait, and for how long the oldest one is due.

        One that the application has no more is among them, if it has tasks.
        """
        found = {queue: (queued, waiting, age) for queue, queued, waiting, age in self.rows(statements.COUNTS)}
        return {**dict.fromkeys(self._queues, (0, 0, 0.0)), **found}

    def bound(self, values: Mapping[str, Any]) -> dict[str, Any]:
        queues = {"queues": list(self.lines), "lines": list(self.lines.values())}
        return {**super().bound(values), **queues, **values}


def line_of(app_name: str, queue: str) -> str:
    """Return the engine's name of a queue: those of two applications never mix."""
    line = f"asok:{app_name}:{queue}"
    if len(line.encode()) <= LONGEST_LINE:
        return line
    return f"asok:{hashlib.blake2b(line.encode(), digest_size=16).hexdigest()}"
