"""A store in the memory of this process: for tests, where nothing may be left behind."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

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
    Tick,
)
from .counts import count_by_queue
from .durable import DurableStore
from .history import LONGEST, line_of
from .pages import EVERY, Ended, Mark, Page, Wanted

_OPEN = ("queued", "waiting")


class MemoryStore(DurableStore):
    """Lives as long as its application, and is seen by no other process."""

    is_shared = False

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(now=now)
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._ticks: dict[str, Tick] = {}
        self._processes: dict[str, ProcessSummary] = {}
        self._probe = ""

    def add(self, record: Record) -> str:
        with self._lock:
            holder = self._holder(record.key)
            if holder is not None:
                return holder.id
            self._records[record.id] = dataclasses.replace(record)
            return record.id

    def read(self, id: str) -> Record | None:
        with self._lock:
            found = self._records.get(id)
            return None if found is None else dataclasses.replace(found)

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        with self._lock:
            found = [
                dataclasses.replace(record)
                for record in wanted.keep(self._records.values())
                if before is None or Mark.of(record) < before
            ]
        found.sort(key=Mark.of, reverse=True)
        return Page(found[:limit], Mark.of(found[limit - 1]) if 0 < limit < len(found) else None)

    def ended(self, since: float, limit: int) -> list[Ended]:
        with self._lock:
            found = [
                Ended(one.name, one.queue, one.state, one.started, one.finished)
                for one in self._records.values()
                if one.is_settled and one.finished > since
            ]
        return sorted(found, key=lambda one: one.finished, reverse=True)[:limit]

    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        with self._lock:
            record = self._records.get(id)
            if record is None or record.state not in _OPEN or after not in (None, record.claim):
                return 0
            record.state, record.owner, record.started = "running", owner, self.now()
            record.attempts += 1
            record.claim += 1
            record.progress, record.stopping = None, False
            return record.claim

    def report(self, id: str, claim: int, progress: Progress) -> bool:
        with self._lock:
            record = self._claimed(id, claim)
            if record is None:
                return False
            record.progress = progress
            return record.stopping

    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        with self._lock:
            record = self._records.get(id)
            if record is None or record.state != "waiting":
                return ""
            holder = self._holder(key)
            if holder is not None:
                return holder.id
            record.state, record.due, record.key = "waiting" if due > self.now() else "queued", due, key
            record.unique_key, record.message = key, message
            return id

    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        with self._lock:
            record = self._claimed(id, claim)
            if record is None:
                return False
            record.state, record.due, record.attempts, record.error = "waiting", due, attempts, error
            record.traceback = traceback[-LONGEST_TRACEBACK:]
            record.history = (record.history + line_of(record.started, self.now(), error))[-LONGEST:]
            return True

    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        with self._lock:
            record = self._records.get(id)
            if record is None or record.is_settled or record.claim != claim:
                return False
            self._settle(record, state, error=error, traceback=traceback[-LONGEST_TRACEBACK:], outcome=outcome)
            return True

    def cancel(self, id: str) -> bool:
        with self._lock:
            record = self._records.get(id)
            if record is None or record.state not in _OPEN:
                return False
            self._settle(record, "cancelled")
            return True

    def stop(self, id: str) -> bool:
        with self._lock:
            record = self._records.get(id)
            if record is None or record.state != "running":
                return False
            record.stopping = True
            return True

    def retry(self, id: str) -> Record | None:
        with self._lock:
            record = self._records.get(id)
            if record is None or not record.can_be_retried or self._holder(record.unique_key) is not None:
                return None
            record.state, record.attempts, record.deaths, record.finished = "queued", 0, 0, 0.0
            record.due, record.owner, record.error, record.traceback, record.outcome = self.now(), "", "", "", None
            record.history, record.stopping = "", False
            record.claim += 1
            record.key = record.unique_key
            return dataclasses.replace(record)

    def discard(self, id: str) -> bool:
        with self._lock:
            record = self._records.get(id)
            if record is None or not record.is_settled:
                return False
            del self._records[id]
            return True

    def free(self, id: str) -> None:
        with self._lock:
            if id in self._records:
                self._records[id].key = ""

    def expire(self, limit: int = 500) -> int:
        before = self.now() - KEEP_SECONDS
        with self._lock:
            old = [id for id, record in self._records.items() if record.is_settled and record.finished < before]
            for id in old[:limit]:
                del self._records[id]
        return len(old[:limit])

    def settle_lost(self) -> None:
        with self._lock:
            for record in self._records.values():
                if not record.is_settled and not record.is_durable and record.owner not in self._processes:
                    self._settle(record, "abandoned", error=LOST)

    def queues(self) -> list[QueueSummary]:
        self.settle_lost()
        with self._lock:
            return count_by_queue(self._records.values())

    def orphans(self, queue: str, limit: int) -> list[Record]:
        with self._lock:
            found = [
                dataclasses.replace(record)
                for record in self._records.values()
                if record.queue == queue and record.is_durable and not record.is_settled and record.due <= self.now()
                and record.owner not in self._processes
            ]  # fmt: skip
        return sorted(found, key=lambda record: record.due)[:limit]

    def take_over(self, record: Record, owner: str) -> int:
        with self._lock:
            found = self._records.get(record.id)
            if found is None or found.is_settled or (found.claim, found.owner) != (record.claim, record.owner):
                return 0
            if found.state == "running":
                found.deaths += 1
                found.attempts -= 1
            found.state, found.owner, found.stopping = "queued", owner, False
            found.claim += 1
            return found.claim

    def hand_over(self, id: str, claim: int) -> bool:
        with self._lock:
            record = self._claimed(id, claim)
            if record is None:
                return False
            record.state, record.attempts = "queued", record.attempts - 1
            record.claim += 1
            return True

    def probe(self, value: str, *, replaces: str = "") -> str:
        if self._probe == replaces:
            self._probe = value
        return self._probe

    def enter(self, kind: str, queues: Iterable[str]) -> str:
        with self._lock:
            self.me: str = self.me or secrets.token_hex(16)
            self._processes[self.me] = ProcessSummary(
                token=self.me,
                host=socket.gethostname(),
                pid=os.getpid(),
                kind=kind,
                since=self.now(),
                queues=tuple(queues),
            )
        return self.me

    def is_alive(self, token: str) -> bool:
        return token in self._processes

    def processes(self) -> list[ProcessSummary]:
        with self._lock:
            return [process for process in self._processes.values() if process.kind != COMMAND]

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        with self._lock:
            latest = self._ticks.get(name)
            if latest is not None and latest.at >= at:
                return False
            self._ticks[name] = Tick(at, task_id)
            return True

    def tick(self, name: str) -> Tick | None:
        return self._ticks.get(name)

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        with self._lock:
            if self._ticks.get(name) != old:
                return False
            self._ticks[name] = new
            return True

    def close(self) -> None:
        with self._lock:
            self._processes.clear()
            self.me = ""

    def _holder(self, key: str) -> Record | None:
        """Return the task that lives and holds the key."""
        holder = next((other for other in self._records.values() if key and other.key == key), None)
        if holder is None or holder.is_durable or holder.owner in self._processes:
            return holder
        self._settle(holder, "abandoned", error=LOST)
        return None

    def _claimed(self, id: str, claim: int) -> Record | None:
        record = self._records.get(id)
        return record if record is not None and record.state == "running" and record.claim == claim else None

    def _settle(self, record: Record, state: State, **fields: Any) -> None:
        record.state, record.finished, record.key = state, self.now(), ""
        for name, value in fields.items():
            setattr(record, name, value)
        if state in ("succeeded", "cancelled"):
            record.message = None
