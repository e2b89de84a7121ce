"""The Celery application behind the celery backend, with settings under which nothing is lost."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured, WorkerLostError
from celery.worker.request import Request
from flask import Flask
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from ..errors import BackendUnavailable, NotConfigured
from .causes import address_of, at
from .intake import Intake
from .redis_server import urls_of

if TYPE_CHECKING:
    from .celery import CeleryBackend

RUN = "flask_asok.run"
RUN_ONCE = "flask_asok.run_once"

ONCE = "lost with its worker, and is to run at most once"
"""Why a task is given up that may have been done already."""

HOP_SECONDS = 600.0
"""
A message waits in a worker for no longer, then it is sent anew: Redis hands out a message again that nobody
acknowledged within `visibility_timeout` (3,600 s), RabbitMQ closes the channel after `consumer_timeout` (1,800 s).
"""

PUBLISH_SECONDS = 1.0
"""How long the broker has to take a connection, and to confirm a message: a request waits for it."""

CONNECTIONS = 10
"""How many threads of a process publish at once."""

REDIS_OPTIONS = {"socket_connect_timeout": PUBLISH_SECONDS, "socket_timeout": PUBLISH_SECONDS}
"""For publishing only: a worker blocks on reads for longer than that."""

AMQP_OPTIONS = {"confirm_publish": True}
"""Without confirmations a message written to a connection that the broker has left is lost, and nobody is told."""

RECONNECT: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.1}


def preset(app: Flask) -> dict[str, Any]:
    """Return the settings that `ASOK_CELERY` is laid over. Celery's own defaults lose a task with its worker."""
    return {
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # Of this application alone: one with a shorter visibility timeout would hand out its messages.
            "unacked_key": f"asok:{app.name}:unacked",
            "unacked_index_key": f"asok:{app.name}:unacked_index",
            "unacked_mutex_key": f"asok:{app.name}:unacked_mutex",
            # A worker that is killed while it looks for abandoned messages keeps the others from it for that long.
            "unacked_mutex_expire": 10,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "visibility_timeout": 3_600,
        },
        "result_serializer": "json",
        "task_default_queue": queue_name(app, "default"),
        "task_ignore_result": True,
        "task_serializer": "json",
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 10,
    }


def make_engine(app: Flask, settings: Mapping[str, Any]) -> Celery:
    """Return the application's own Celery, from `app.extensions["celery"]`, or one made of `ASOK_CELERY`."""
    own = app.extensions.get("celery")
    if own is not None:
        return _checked(own)
    if not (settings.keys() & {"broker_url", "broker_write_url"} or os.environ.get("CELERY_BROKER_URL")):
        raise NotConfigured("The celery backend needs a broker: set ASOK_CELERY['broker_url'] = 'redis://...'.")
    engine = Celery(app.name, set_as_current=False)
    merged = copy.deepcopy(preset(app))
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key].update(value)
        else:
            merged[key] = value
    engine.conf.update(merged)
    return _checked(engine)


def _checked(engine: Celery) -> Celery:
    """Return `engine`; NotConfigured where its result backend cannot be made: the first message would ask for it."""
    try:
        engine.backend  # noqa: B018
    except Exception as error:
        # Not the text of any error: it may quote the URL.
        known = isinstance(error, (ImportError, ImproperlyConfigured)) or "ssl_cert_reqs" in str(error)
        said = str(error) if known else type(error).__name__
        raise NotConfigured(f"ASOK_CELERY['result_backend'] cannot be used: {said}") from None
    return engine


def add_tasks(engine: Celery, backend: CeleryBackend) -> None:
    """
    Register the two generic tasks, which call `backend.worker.work(celery_task, message)`.

    They must be two: whether a message is acknowledged before or after the work is a matter of the task, not the call.
    """
    common: dict[str, Any] = {
        "bind": True,
        "ignore_result": True,
        "max_retries": None,
        "serializer": "json",
        "shared": False,
        # Logged by Flask-Asok, with the function's name and without its arguments.
        "throws": (Exception,),
        "Request": _WatchedRequest,
    }

    def run(self: Any, message: object = None) -> None:
        backend.worker.work(self, message)

    def run_once(self: Any, message: object = None) -> None:
        backend.worker.work(self, message)

    engine.task(run, name=RUN, acks_late=True, reject_on_worker_lost=True, **common)
    engine.task(run_once, name=RUN_ONCE, acks_late=False, **common)
    for name in (RUN, RUN_ONCE):
        engine.tasks[name].backend_of_asok = backend


def time_limits(timeout: float | None) -> list[float | None]:
    """Return Celery's hard and soft limit, in the order in which a message has them, for a task's timeout."""
    return [None, None] if timeout is None else [timeout + 5, timeout]


class Publisher:
    """
    The connections of one process on which messages are sent. Thread-safe; apart from Celery's own pool, which a fork
    would share with its parent, and which waits for a broker that is down for longer than a request may.
    """

    def __init__(self, engine: Celery) -> None:
        try:
            connection = engine.connection_for_write(connect_timeout=PUBLISH_SECONDS)
        except KeyError as error:
            raise NotConfigured(f"ASOK_CELERY['broker_url'] has an unknown scheme: {error.args[0]}") from None
        self._address = ", ".join(filter(None, map(address_of, urls_of(engine.conf.broker_write_url))))
        options = AMQP_OPTIONS if connection.transport.driver_type == "amqp" else REDIS_OPTIONS
        connection.transport_options = {**options, **RECONNECT, **connection.transport_options}
        self._connections = connection.Pool(limit=CONNECTIONS)
        self._producers: Any = ProducerPool(self._connections, limit=CONNECTIONS)  # type: ignore[no-untyped-call]
        # kombu raises a plain RuntimeError when its retries are used up.
        self._errors = (KombuError, OSError, RuntimeError, *connection.connection_errors, *connection.channel_errors)

    def send(self, task: Any, **options: Any) -> None:
        """Have the broker take one message, as `task.apply_async` would; BackendUnavailable when it does not."""
        started = time.monotonic()
        with self._reached():
            try:
                self._send(task, options)
            except self._errors:
                if time.monotonic() - started > PUBLISH_SECONDS / 2:
                    raise
                # A connection that was cut while it was idle says so at once; the broker may be there all the same.
                self._send(task, options, anew=True)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Lend a connection; BackendUnavailable when there is none, or it breaks meanwhile."""
        with self._reached(), self._connections.acquire(block=True, timeout=PUBLISH_SECONDS) as connection:
            connection.ensure_connection(**RECONNECT)
            yield connection

    def close(self) -> None:
        """Close the connections, also those in use."""
        self._producers.force_close_all()
        self._connections.force_close_all()

    def _send(self, task: Any, options: Mapping[str, Any], *, anew: bool = False) -> None:
        with self._producers.acquire(block=True, timeout=PUBLISH_SECONDS) as producer:
            try:
                if anew:
                    producer.connection.collect()
                with _limited(producer.channel.connection):
                    task.apply_async(producer=producer, retry=False, timeout=PUBLISH_SECONDS, **options)
            except self._errors:
                # Cut, not closed: a broker that hangs would have us wait for its goodbye.
                producer.connection.collect()
                raise

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise BackendUnavailable(f"The broker cannot be reached: {at(self._address, error)}") from None


def _limited(connection: Any) -> contextlib.AbstractContextManager[Any]:
    """Limit each wait on an AMQP connection; the one on Redis has its own limits."""
    limited = getattr(getattr(connection, "transport", None), "having_timeout", contextlib.nullcontext)
    return limited(PUBLISH_SECONDS)


def start_worker(engine: Celery, arguments: list[str]) -> None:
    """Run Celery's own worker in this process until it is told to stop."""
    pools = {argument.removeprefix("--pool=").removeprefix("-P") for argument in arguments}
    if pools & {"gevent", "eventlet"} and socket.socket.__module__ == "socket":
        # Too late to do it here: it would run no task, and say nothing.
        raise NotConfigured(
            "The gevent pool needs a patched Python: python -m gevent.monkey --module flask --app ... asok worker ..."
        )
    if not any(argument.startswith(("-n", "--hostname")) for argument in arguments):
        # Two workers of one name on one broker would take each other's orders.
        arguments = ["--hostname", f"{engine.main}-{os.getpid()}@%h", *arguments]
    engine.steps["consumer"].add(Intake)
    engine.worker_main(["worker", *arguments])


def queue_name(app: Flask, queue: str) -> str:
    """Return the Celery queue of one of `ASOK_QUEUES`: two applications on one broker never mix."""
    return f"{app.name}.{queue}"


class _WatchedRequest(Request):  # type: ignore[misc]
    """
    Tells the backend of what ends a task from outside: its time limit, the loss of its process.

    Lives in the worker's main process.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), (SystemExit, WorkerLostError)):
            worker = self.task.backend_of_asok.worker
            if self.task.acks_late:
                # Before the message goes back, so that whoever gets it need not wait for the lease to run out.
                worker.leave(self.id, self.worker_pid)
            else:
                self._stopped(ONCE)
        return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        if not soft:
            self._stopped(f"stopped at its time limit of {timeout:g} s")

    def _stopped(self, why: str) -> None:
        # In the loop that all of the worker hangs on: it must neither raise nor wait there for a Redis that is down.
        with contextlib.suppress(BackendUnavailable):
            self.task.backend_of_asok.worker.stopped(self.id, self.args[0] if self.args else None, why)


def trace_headers() -> dict[str, str]:
    """Return the headers of the current OpenTelemetry span, if the application uses OpenTelemetry."""
    headers: dict[str, str] = {}
    if "opentelemetry.propagate" in sys.modules:
        sys.modules["opentelemetry.propagate"].inject(headers)
    return headers
