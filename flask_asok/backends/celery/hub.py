"""What tasks, worker and backend have in common: the Celery app, the store, and how a message is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from celery import Celery
from flask import Flask

from ...errors import BackendUnavailable, NotConfigured
from ...messages.message import Message
from ...packing import Packer
from ...store.base import COMMAND
from .app import make_celery_app, queue_name
from .causes import ForeignRecord, Reached
from .engine_store import EngineStore
from .publisher import Publisher
from .redis_server import RedisServer, find_server

T = TypeVar("T")

RUN = "flask_asok.run"
RUN_ONCE = "flask_asok.run_once"

HOP_SECONDS = 600.0
"""
The longest that a message waits in a worker where no store keeps it; then it is sent again. RabbitMQ closes the channel
of one that is not acknowledged within its `consumer_timeout` (1,800 s).
"""

SENT = "asok_sent"
"""The header of a message that says when it was sent, by the clock of the store."""

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between a worker's tries to reach Redis or the broker."""

NO_SERVER = RedisServer((), {}, {}, {}, "")
"""There is no Redis for the store. Unlike None, this was looked up."""


class Hub:
    """
    What the rooms of one application's celery backend share; each part is made when it is first used.

    Lives as long as the application, and is safe to use from several threads and in forked children.
    """

    def __init__(self, app: Flask, config: Mapping[str, Any], prepare: Callable[[Celery], None]) -> None:
        self.app: Flask = app
        self.config: Mapping[str, Any] = config
        # Adds the two generic tasks to the Celery app.
        self._prepare = prepare
        # Filled by setdefault: another thread could hold a lock when the process forks.
        self._celery_apps: dict[str, Celery] = {}
        self._servers: dict[str, RedisServer] = {}
        self.packer: Packer = Packer(app, config)

    @property
    def celery_app(self) -> Celery:
        """The Celery application."""
        try:
            return self._celery_apps[""]
        except KeyError:
            celery_app = make_celery_app(self.app, self.config["ASOK_CELERY"])
            # Looked up once: Celery is slow to read its settings.
            url = self.config["ASOK_STORE"]
            found = RedisServer((url,), {}, {}, {}, "") if url else find_server(celery_app.conf)
            self._servers.setdefault("", found or NO_SERVER)
            self._prepare(celery_app)
            return self._celery_apps.setdefault("", celery_app)

    @property
    def publisher(self) -> Publisher:
        """This process's connections to the broker."""
        return self.shared("celery.publisher", lambda: Publisher(self.celery_app))

    @property
    def store(self) -> EngineStore | None:
        """The store in Redis: `ASOK_STORE`, the result backend or the broker; None where none of them is a Redis."""
        if not self._servers:
            self.celery_app  # noqa: B018
        server = self._servers[""]
        return None if server is NO_SERVER else self.shared("celery.store", lambda: self._opened(server))

    def _opened(self, server: RedisServer) -> EngineStore:
        name = self.app.name
        reached = Reached(server.address, f"{server.prefix}asok:{name}:*")
        return EngineStore(server.client(), name, prefix=server.prefix, reached=reached)

    def need_store(self) -> EngineStore:
        """Return the store; NotConfigured if there is no Redis for it."""
        if self.store is None:
            raise NotConfigured(
                "This needs a Redis for the records of tasks: ASOK_CELERY['result_backend'] = 'redis://...'."
            )
        return self.store

    def enter(self) -> EngineStore:
        """Return the store, which knows from now on that this process lives: it has tasks."""
        store = self.need_store()
        if not store.me:
            store.enter("web" if self.is_serving else COMMAND, self.config["ASOK_QUEUES"])
        return store

    @property
    def is_serving(self) -> bool:
        """Does this process answer requests?"""
        return bool(self.app.extensions["asok"].serving.is_serving)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """Return what this process has under `key`, made when first asked for: see `AppState.shared`."""
        return self.app.extensions["asok"].shared(key, make)  # type: ignore[no-any-return]

    # Messages

    def publish(self, message: Message, signed: str = "", *, wait: float = 0.0, sent: str = "") -> None:
        """
        Hand a message to the broker; `signed` is what `packer.sign` has made of it, if it is at hand.

        Where no store keeps it, the broker delivers it in `wait` seconds, or after the longest hop: the worker then
        sends it on.
        """
        hard, soft = time_limits(message.timeout)
        self.publisher.send(
            self.celery_app.tasks[RUN_ONCE if message.once else RUN],
            args=(signed or self.packer.sign(message),),
            task_id=message.id,
            queue=queue_name(self.app, message.queue),
            countdown=min(wait, HOP_SECONDS) if wait > 0 else None,
            headers={SENT: sent} if sent else None,
            soft_time_limit=soft,
            time_limit=hard,
            shadow=message.name,
            argsrepr="(...)",
            kwargsrepr="{}",
        )

    # Outcomes

    def sign_outcome(self, id: str, outcome: Mapping[str, Any]) -> str:
        """Return an outcome for the record of this task, and of no other: `value` or `error`, encoded."""
        return self.packer.signer.sign(outcome, f"outcome:{id}")

    def read_outcome(self, id: str, signed: object) -> tuple[Any, BaseException | None]:
        """Return the value and the error that `sign_outcome` was given; MessageRefused for anything else."""
        outcome = self.packer.signer.verify(signed, f"outcome:{id}")
        if "error" in outcome:
            return None, self.packer.serializer.decode_error(outcome["error"])
        return self.packer.serializer.decode(outcome["value"]), None


def time_limits(timeout: float | None) -> list[float | None]:
    """Return Celery's hard and soft limit for a task's timeout, in the order in which a message has them."""
    return [None, None] if timeout is None else [timeout + 5, timeout]


def keep_trying(do: Callable[[], T]) -> T:
    """Call `do`, retrying for about 8 seconds while Redis or the broker is unreachable: a worker has that time."""
    for pause in RETRY_PAUSES:
        try:
            return do()
        except ForeignRecord:
            raise
        except BackendUnavailable:
            time.sleep(pause)
    return do()
