"""The sweeper of a worker: it sends what is due, what was dropped, and what a lost process has left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ...errors import AsokError, MessageRefused
from ...helper_thread import PausingThread
from ...logs import log, log_exception
from ...messages.message import Message
from ...store.away import WARN_SECONDS
from ...store.base import Record
from ...store.redis import BEAT_SECONDS
from .engine_store import EngineStore, Sending
from .hub import Hub
from .lengths import lengths_on
from .worker import ONCE, Worker

LOOK_SECONDS = 0.5
"""How often a sweeper looks."""

RARELY_SECONDS = 10.0
"""How often it looks for old records, and for processes that have ended."""

MOST_DEATHS = 3
"""The lost workers after which a task is not repeated."""


class Sweeper:
    """
    Looks, in a thread of a worker's main process, for tasks that are to be sent; one of all sweepers sends each.

    It sweeps every queue, also those that the worker does not take (it takes `taken`). A backlog is no loss: a task
    whose message may still be in the broker is not sent again.
    """

    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, hub: Hub, worker: Worker, taken: Sequence[str]) -> None:
        self._hub = hub
        self._worker = worker
        self._taken = taken
        self._queues = list(hub.config["ASOK_QUEUES"])
        self._has_entered = False
        self._steady_since = self._rarely_at = self._warned_at = float("-inf")
        self._seen_at = float("-inf")
        self._thread = PausingThread("asok-sweeper", self._turn, lambda: True, pause=LOOK_SECONDS)

    def start(self) -> None:
        """Look from now on; harmless where it does already."""
        self._thread.need()

    def close(self) -> None:
        """Look no more, and wait for the look that is under way."""
        self._thread.close(5)

    def _turn(self) -> float:
        try:
            self.look()
        except AsokError as error:
            self._seen_at = float("-inf")
            if self.now() - self._warned_at >= WARN_SECONDS:
                self._warned_at = self.now()
                log(logging.WARNING, "Background tasks that wait are not sent: %s", error, app=self._hub.app)
        except Exception as error:
            log_exception("Sweeping background tasks failed: %r", error, app=self._hub.app)
        return LOOK_SECONDS

    def look(self) -> None:
        """Send what is to be sent now."""
        store = self._hub.need_store()
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
                self._take_back(store, record)
        if self.now() - self._rarely_at >= RARELY_SECONDS:
            self._rarely_at = self.now()
            store.expire()
            store.processes()

    def _send(self, store: EngineStore, sendings: Sequence[Sending]) -> None:
        messages = store.messages_of([id for id, _ in sendings])
        for (id, sent), signed in zip(sendings, messages, strict=True):
            message = None if signed is None else self._message(id, signed)
            if message is not None:
                self._hub.publish(message, signed or "", sent=sent)

    def _message(self, id: str, signed: str) -> Message | None:
        try:
            return self._hub.packer.read_for(id, signed)
        except MessageRefused as error:
            # What this process cannot read, another one sends in its turn; or it fails in the end.
            self._worker.leave(id, str(error))
            return None

    def _is_empty(self, queue: str) -> bool:
        hub = self._hub
        with hub.publisher.connected() as connection:
            return lengths_on(connection, hub.app, [queue])[queue] == 0

    def _take_back(self, store: EngineStore, record: Record) -> None:
        signed = store.message_of(record.id)
        message = None if signed is None else self._message(record.id, signed)
        claim = store.take_back(record)
        if not claim or message is None:
            return
        if record.stopping:
            store.settle(record.id, claim, "cancelled", error="it was asked to stop")
        elif message.once:
            self._worker.give_up(message, claim, ONCE)
        elif record.deaths + 1 >= MOST_DEATHS:
            self._worker.give_up(message, claim, f"given up: {MOST_DEATHS} workers were lost with it")
        else:
            log(
                logging.WARNING, "Background task %s (%s) was lost with its process, and is sent again.",
                record.name, record.id, app=self._hub.app, extra=message.log_fields(),
            )  # fmt: skip
