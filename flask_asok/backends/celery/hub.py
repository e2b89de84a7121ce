"""What tasks, worker and backend have in common: the Celery app, the records, and how a message is sent."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from celery import Celery
from flask import Flask

from ...errors import BackendUnavailable, NotConfigured
from ...messages.message import Message
from ...packing import Packer
from ...store.redis import RedisStore
from .app import make_celery_app, queue_name
from .publisher import Publisher
from .records import Records
from .redis_server import REDIS_URLS, RedisServer, find_server, urls_of

T = TypeVar("T")

RUN = "flask_asok.run"
RUN_ONCE = "flask_asok.run_once"

HOP_SECONDS = 600.0
"""
The longest that a message waits in a worker; then it is sent again. Redis hands out a message a second time that is not
acknowledged within `visibility_timeout` (3,600 s), RabbitMQ closes the channel after `consumer_timeout` (1,800 s).
"""

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between a worker's tries to reach Redis or the broker."""

NO_SERVER = RedisServer((), {}, {}, {}, "")
"""There is no Redis for the records. Unlike None, this was looked up."""


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
            self._prepare(celery_app)
            return self._celery_apps.setdefault("", celery_app)

    @property
    def publisher(self) -> Publisher:
        """This process's connections to the broker."""
        return self._shared("celery.publisher", lambda: Publisher(self.celery_app))

    @property
    def records(self) -> Records | None:
        """The records in Redis: `ASOK_STORE`, the result backend or the broker; None where none of them is a Redis."""
        server = self._servers.get("")
        if server is None:
            # Looked up once: Celery is slow to read its settings.
            url = self.config["ASOK_STORE"]
            found = RedisServer((url,), {}, {}, {}, "") if url else find_server(self.celery_app.conf)
            server = self._servers.setdefault("", found or NO_SERVER)
        if server is NO_SERVER:
            return None
        return self._shared("celery.records", lambda: Records(server, self.app.name))

    @property
    def ticks(self) -> RedisStore:
        """The ticks of periodic tasks, in the Redis of the records; NotConfigured if there is none."""
        self.need_records()
        server = self._servers[""]
        return self._shared("celery.ticks", lambda: RedisStore(server.client(), self.app.name, prefix=server.prefix))

    def need_records(self) -> Records:
        """Return the records; NotConfigured if there is no Redis for them."""
        if self.records is None:
            raise NotConfigured(
                "This needs a Redis for the records of tasks: ASOK_CELERY['result_backend'] = 'redis://...'."
            )
        return self.records

    def _shared(self, key: str, make: Callable[[], T]) -> T:
        return self.app.extensions["asok"].shared(key, make)  # type: ignore[no-any-return]

    # Messages

    def publish(self, message: Message, wait: float | None = None) -> None:
        """
        Hand a message to the broker, which delivers it in `wait` seconds; None: when it is due.

        It may come earlier, after the longest hop: the worker then sends it on.
        """
        if wait is None:
            wait = message.due - time.time()
        hard, soft = time_limits(message.timeout)
        self.publisher.send(
            self.celery_app.tasks[RUN_ONCE if message.once else RUN],
            args=(self.packer.sign(message),),
            task_id=message.id,
            queue=queue_name(self.app, message.queue),
            countdown=min(wait, self.longest_hop) if wait > 0 else None,
            soft_time_limit=soft,
            time_limit=hard,
            shadow=message.name,
            argsrepr="(...)",
            kwargsrepr="{}",
        )

    def check_timeout(self, timeout: float | None) -> None:
        """Raise ValueError for the timeout of a task that the broker would deliver a second time meanwhile."""
        limit = None if timeout is None else self.visibility_timeout
        if timeout is not None and limit is not None and timeout >= limit:
            raise ValueError(
                f"timeout must be below {limit} s, the broker's visibility_timeout: past that Redis hands the task to "
                "a second worker while the first one still runs it. Raise "
                "ASOK_CELERY['broker_transport_options']['visibility_timeout']."
            )

    @property
    def visibility_timeout(self) -> float | None:
        """The seconds after which the broker delivers a message again; None if it never does."""
        conf = self.celery_app.conf
        urls = urls_of(conf.broker_url or conf.broker_write_url)
        if not any(url.startswith((*REDIS_URLS, "sentinel://")) for url in urls):
            return None
        limit: float = (conf.broker_transport_options or {}).get("visibility_timeout", 3_600)
        return limit

    @property
    def longest_hop(self) -> float:
        """How many seconds a message may wait in a worker."""
        limit = self.visibility_timeout
        # Half of it, which leaves a message that is due enough time to be run.
        return HOP_SECONDS if limit is None else min(HOP_SECONDS, limit / 2)

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
    """Call `do`, retrying for about 15 seconds while Redis or the broker is unreachable: a worker has that time."""
    for pause in RETRY_PAUSES:
        try:
            return do()
        except BackendUnavailable:
            time.sleep(pause)
    return do()


def release(hub: Hub, id: str, pid: int | None = None) -> None:
    """End the lease of process `pid`, of this one by default; where that fails it runs out by itself."""
    with contextlib.suppress(BackendUnavailable):
        if hub.records is not None:
            hub.records.release(id, pid or os.getpid())
