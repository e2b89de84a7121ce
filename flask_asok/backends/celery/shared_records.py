"""The records as `asok.get`, `asok.tasks` and the status view see them, from any process."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain

from ...store.base import ProcessSummary, QueueSummary, Record
from ...store.counts import count_by_queue
from ...store.pages import EVERY, Ended, Mark, Page, Wanted, newest_of
from . import outcomes
from .app import queue_name
from .fields import record_of
from .hub import Hub
from .records import Records

CHUNK = 100
"""How many records are read at a time."""


class SharedRecords:
    """
    What a store answers, from the records and the workers; see `store.shared.Shared`.

    Of the tasks for which `is_local` is true the records say nothing: they run on threads of this process.
    """

    def __init__(self, hub: Hub, records: Records, is_local: Callable[[str], bool]) -> None:
        self._hub = hub
        self._records = records
        self._is_local = is_local

    def now(self) -> float:
        """Return the time."""
        return time.time()

    def read(self, id: str) -> Record | None:
        """Return the record, or None."""
        fields = {} if self._is_local(id) else self._records.read(id)
        return record_of(id, fields) if fields else None

    def get(self, id: str) -> Record | None:
        """Return the record, or None. One whose worker was lost stays: another worker sees to it."""
        return self.read(id)

    def listed(
        self, limit: int, *, state: str | None = None, name: str | None = None, queue: str | None = None
    ) -> list[Record]:
        """Return the newest `limit` records that match, the oldest of them first."""
        return newest_of(self.page, limit, Wanted(state=state, name=name, queue=queue))

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        """Return a page of the records that match, the newest first."""
        return self._records.listing.page(self._read_all, limit, wanted, before)

    def ended(self, since: float, limit: int) -> list[Ended]:
        """Return those of the newest `limit` tasks that were settled after `since`, the latest end first."""
        ids = self._records.listing.newest(0, limit)
        records = chain.from_iterable(self._read_all(ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK))
        found = [
            Ended(one.name, one.queue, one.state, one.started, one.finished)
            for one in records
            if one.is_settled and one.finished > since
        ]
        return sorted(found, key=lambda one: one.finished, reverse=True)

    def settle_lost(self) -> None:
        """Nothing: another worker sees to it."""

    def cancel(self, id: str) -> bool:
        """Cancel a task whose attempt has not begun; False for any other."""
        found = self.read(id)
        return found is not None and not found.is_settled and outcomes.cancel(self._hub, id)

    def stop(self, id: str) -> bool:
        """Ask a running task to stop; False if it does not run."""
        return self._records.stop(id)

    def queues(self) -> list[QueueSummary]:
        """Return how many tasks are queued, run and wait in each queue that has any."""
        ids = self._records.listing.unsettled()
        chunks = (self._read_all(ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK))
        return count_by_queue(chain.from_iterable(chunks))

    def processes(self) -> list[ProcessSummary]:
        """Return the workers that answer within a second: their main processes, with the queues that they take."""
        hub = self._hub
        names = {queue_name(hub.app, queue): queue for queue in hub.config["ASOK_QUEUES"]}
        with hub.publisher.connected() as connection:
            inspected = hub.celery_app.control.inspect(timeout=1, connection=connection)
            queues, stats = inspected.active_queues() or {}, inspected.stats() or {}
        found = []
        for worker, about in stats.items():
            taken = tuple(names[queue["name"]] for queue in queues.get(worker, ()) if queue["name"] in names)
            # Workers of other applications on this broker answer too.
            if taken:
                since = self.now() - about.get("uptime", 0)
                host = worker.rpartition("@")[2]
                found.append(
                    ProcessSummary(token=worker, host=host, pid=about["pid"], kind="worker", since=since, queues=taken)
                )
        return sorted(found, key=lambda one: one.since)

    def _read_all(self, ids: list[str]) -> list[Record]:
        found = self._records.listing.read([id for id in ids if not self._is_local(id)])
        return [record_of(id, fields) for id, fields in found.items()]
