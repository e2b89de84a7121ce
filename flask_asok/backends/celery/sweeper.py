"""The sweeper of a worker: it sends what is due, what was dropped, and what a lost process has left."""

from __future__ import annotations

from collections.abc import Sequence

from ...store.redis import BEAT_SECONDS
from ..distributed.sweeper import RARELY_SECONDS, WorkerSweeper
from .engine_store import RedisEngineStore, Sending
from .hub import CeleryHub
from .lengths import lengths_on
from .worker import Worker


class Sweeper(WorkerSweeper):
    """
    Looks, in a thread of a worker's main process, for tasks that are to be sent; one of all sweepers sends each.

    It sweeps every queue, also those that the worker does not take (it takes `taken`). A backlog is no loss: a task
    whose message may still be in the broker is not sent again.
    """

    hub: CeleryHub

    def __init__(self, hub: CeleryHub, worker: Worker, taken: Sequence[str]) -> None:
        super().__init__(hub)
        self._worker = worker
        self._taken = taken
        self._queues = list(hub.config["ASOK_QUEUES"])
        self._has_entered = False
        self._steady_since = self._rarely_at = self._seen_at = float("-inf")

    def missed(self) -> None:
        """Note that Redis or the broker is away."""
        self._seen_at = float("-inf")

    def look(self) -> None:
        """Send what is to be sent now."""
        store = self.hub.need_store()
        if not self._has_entered:
            store.enter("worker", self._taken)
            self._has_entered = True
        if self.now() - self._seen_at > BEAT_SECONDS:
            # Redis was away: the leases of living processes may have run out meanwhile.
            self._steady_since = self.now()
        self._send(store, store.due())
        self._seen_at = self.now()
        for queue in store.stale(self._queues):
            self._send(store, store.dropped(queue, is_empty=self._is_empty(queue)))
        if self.now() - self._steady_since >= 2 * BEAT_SECONDS:
            for record in store.orphans():
                self._worker.take_back(store, record)
        if self.now() - self._rarely_at >= RARELY_SECONDS:
            self._rarely_at = self.now()
            store.expire()
            store.processes()
            self.tell_unknown()

    def _send(self, store: RedisEngineStore, sendings: Sequence[Sending]) -> None:
        messages = store.messages_of([id for id, _ in sendings])
        for (id, sent), signed in zip(sendings, messages, strict=True):
            message = None if signed is None else self._worker.kept_message(id, signed)
            if message is not None:
                self.hub.publish(message, signed or "", sent=sent)

    def _is_empty(self, queue: str) -> bool:
        hub = self.hub
        with hub.publisher.connected() as connection:
            return lengths_on(connection, hub.app, [queue])[queue] == 0
