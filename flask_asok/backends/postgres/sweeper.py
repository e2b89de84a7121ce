"""The sweeper of a worker on PostgreSQL: it sends what is due, what was dropped, and what a lost process has left."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ...errors import AsokError
from ..distributed.sweeper import RARELY_SECONDS, WorkerSweeper
from .hub import PostgresHub
from .worker import PostgresWorker

BATCH = 1_000
MOST_BATCHES = 20
"""How many settled tasks are forgotten in one statement, and how many statements there are at a time."""

ORPHANS_SECONDS = 1.0
"""How often it looks for what lost processes have left."""


class PostgresSweeper(WorkerSweeper):
    """Looks for tasks that are to be sent. Several look at once: each task is one's, for it is locked meanwhile."""

    hub: PostgresHub

    def __init__(self, hub: PostgresHub, worker: PostgresWorker) -> None:
        super().__init__(hub)
        self._worker = worker
        self._beat_seconds: float = hub.settings["dead_after"] / 5
        self._about: tuple[str, Sequence[str]] | None = None
        self._steady_since = self._orphans_at = self._rarely_at = self._seen_at = float("-inf")

    def _expire(self) -> None:
        for _ in range(MOST_BATCHES):
            if self.hub.store.expire(BATCH) < BATCH:
                return

    def enters_as(self, kind: str, queues: Sequence[str]) -> None:
        """Let other processes know of this one, as soon as PostgreSQL can be reached."""
        self._about = kind, queues
        with contextlib.suppress(AsokError):
            self._enter()

    def _enter(self) -> None:
        if self._about is not None:
            self.hub.store.enter(*self._about)
            self._about = None

    def give_back(self) -> None:
        """Let other processes make the attempts that this one has claimed, and does not make; before it ends."""
        store = self.hub.store
        with contextlib.suppress(AsokError):
            for record in store.orphans():
                if record.owner == store.me:
                    self._worker.take_back(store, record)

    def missed(self) -> None:
        """Note that PostgreSQL is away."""
        self._seen_at = float("-inf")

    def look(self) -> None:
        """Send what is to be sent now."""
        store = self.hub.need_store()
        self._enter()
        if self.now() - self._seen_at > self._beat_seconds:
            # It was away: the leases of living processes may have run out meanwhile.
            self._steady_since = self.now()
        store.send_due()
        self._seen_at = self.now()
        is_steady = self.now() - self._steady_since >= 2 * self._beat_seconds
        if is_steady and self.now() - self._orphans_at >= ORPHANS_SECONDS:
            self._orphans_at = self.now()
            store.send_lost()
            for record in store.orphans():
                self._worker.take_back(store, record)
        if is_steady and self.now() - self._rarely_at >= RARELY_SECONDS:
            self._rarely_at = self.now()
            store.send_dropped()
            store.sweep()
            self._expire()
            store.processes()
            self.tell_unknown()
