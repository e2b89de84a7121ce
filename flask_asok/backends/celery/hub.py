"""What tasks, worker and backend have in common on Celery: the Celery app, the store, and how a message is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from flask import Flask

from ...errors import NotConfigured
from ...messages.message import Message
from ..distributed.hub import Hub
from .app import make_celery_app, queue_name
from .engine_store import RedisEngineStore
from .publisher import Publisher
from .reached import RecordsReached
from .redis_server import RedisServer, find_server

RUN = "flask_asok.run"
RUN_ONCE = "flask_asok.run_once"

HOP_SECONDS = 600.0
"""
The longest that a message waits in a worker where no store keeps it; then it is sent again. RabbitMQ closes the channel
of one that is not acknowledged within its `consumer_timeout` (1,800 s).
"""

SENT = "asok_sent"
"""The header of a message that says when it was sent, by the clock of the store."""

NO_SERVER = RedisServer((), {}, {}, {}, "")
"""There is no Redis for the store. Unlike None, this was looked up."""


class CeleryHub(Hub):
    """The hub of the celery backend, with its Celery app and the connections to its broker."""

    def __init__(self, app: Flask, config: Mapping[str, Any], prepare: Callable[[Celery], None]) -> None:
        super().__init__(app, config)
        # Adds the two generic tasks to the Celery app.
        self._prepare = prepare
        # Filled by setdefault: another thread could hold a lock when the process forks.
        self._celery_apps: dict[str, Celery] = {}
        self._servers: dict[str, RedisServer] = {}

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
    def store(self) -> RedisEngineStore | None:
        """The store in Redis: `ASOK_STORE`, the result backend or the broker; None where none of them is a Redis."""
        if not self._servers:
            self.celery_app  # noqa: B018
        server = self._servers[""]
        return None if server is NO_SERVER else self.shared("celery.store", lambda: self._opened(server))

    def _opened(self, server: RedisServer) -> RedisEngineStore:
        name = self.app.name
        reached = RecordsReached(server.address, f"{server.prefix}asok:{name}:*")
        return RedisEngineStore(server.client(), name, prefix=server.prefix, reached=reached)

    def need_store(self) -> RedisEngineStore:
        """Return the store; NotConfigured if there is no Redis for it."""
        if self.store is None:
            raise NotConfigured(
                "This needs a Redis for the records of tasks: ASOK_CELERY['result_backend'] = 'redis://...'."
            )
        return self.store

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


def time_limits(timeout: float | None) -> list[float | None]:
    """Return Celery's hard and soft limit for a task's timeout, in the order in which a message has them."""
    return [None, None] if timeout is None else [timeout + 5, timeout]
