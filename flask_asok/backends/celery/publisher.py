"""The connections on which messages are sent to the broker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from ...errors import BackendUnavailable, NotConfigured
from ...store.causes import address_of, at
from .channels import keep_client
from .redis_server import urls_of

PUBLISH_SECONDS = 1.0
"""How long the broker has to accept a connection, and to confirm a message: a request waits for it."""

CONNECTIONS = 10
"""How many threads of a process publish at the same time."""

REDIS_OPTIONS = {"socket_connect_timeout": PUBLISH_SECONDS, "socket_timeout": PUBLISH_SECONDS}
"""For publishing only: a worker blocks on reads for longer than that."""

AMQP_OPTIONS = {"confirm_publish": True}
"""Without confirmations a message that is written to a dead connection is lost silently."""

RECONNECT: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.1}


class Publisher:
    """
    The connections of one process on which messages are sent. Thread-safe.

    They are not those of Celery's own pool, which a forked child would share with its parent, and which waits for a
    broker that is down for longer than a request may.
    """

    def __init__(self, celery_app: Celery) -> None:
        try:
            connection = celery_app.connection_for_write(connect_timeout=PUBLISH_SECONDS)
        except KeyError as error:
            raise NotConfigured(f"ASOK_CELERY['broker_url'] has an unknown scheme: {error.args[0]}") from None
        self._address = ", ".join(filter(None, map(address_of, urls_of(celery_app.conf.broker_write_url))))
        options = AMQP_OPTIONS if connection.transport.driver_type == "amqp" else REDIS_OPTIONS
        connection.transport_options = {**options, **RECONNECT, **connection.transport_options}
        self._connections = connection.Pool(limit=CONNECTIONS)
        self._producers: Any = ProducerPool(self._connections, limit=CONNECTIONS)  # type: ignore[no-untyped-call]
        # kombu raises a plain RuntimeError when its retries are used up.
        self._errors = (KombuError, OSError, RuntimeError, *connection.connection_errors, *connection.channel_errors)

    def send(self, task: Any, **options: Any) -> None:
        """
        Publish one message, as `task.apply_async()` of this Celery task does.

        Raises BackendUnavailable if the broker does not confirm it.
        """
        started = time.monotonic()
        with self._reached():
            try:
                self._send(task, options)
            except self._errors:
                if time.monotonic() - started > PUBLISH_SECONDS / 2:
                    raise
                # An idle connection that was cut fails at once, although the broker may be up.
                self._send(task, options, anew=True)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Lend a connection; BackendUnavailable if none can be made, or if it breaks."""
        with self._reached(), self._connections.acquire(block=True, timeout=PUBLISH_SECONDS) as connection:
            connection.ensure_connection(**RECONNECT)
            yield connection

    def close(self) -> None:
        """Close all connections, also those in use."""
        self._producers.force_close_all()
        self._connections.force_close_all()

    def _send(self, task: Any, options: Mapping[str, Any], *, anew: bool = False) -> None:
        with self._producers.acquire(block=True, timeout=PUBLISH_SECONDS) as producer:
            try:
                if anew:
                    producer.connection.collect()
                # Redis has a list from its first message on; to declare it each time costs more than to send.
                declared = {"declare": ()} if keep_client(producer.channel) else {}
                with _limited(producer.channel.connection):
                    task.apply_async(producer=producer, retry=False, timeout=PUBLISH_SECONDS, **declared, **options)
            except self._errors:
                # Abort rather than close: a hung broker would block the closing handshake.
                producer.connection.collect()
                raise

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise BackendUnavailable(f"The broker cannot be reached: {at(self._address, error)}") from None


def _limited(connection: Any) -> contextlib.AbstractContextManager[Any]:
    """Limit each wait on an AMQP connection; one to Redis has its own limits."""
    limited = getattr(getattr(connection, "transport", None), "having_timeout", contextlib.nullcontext)
    return limited(PUBLISH_SECONDS)
