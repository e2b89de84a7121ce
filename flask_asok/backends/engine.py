"""The Celery application behind the celery backend, with settings under which nothing is lost."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from celery.exceptions import WorkerLostError
from celery.worker.request import Request
from flask import Flask

from ..errors import BackendUnavailable

RUN = "flask_asok.run"
RUN_ONCE = "flask_asok.run_once"

HOP_SECONDS = 600.0
"""
A message waits in a worker for no longer, then it is sent anew: Redis hands out a message again that nobody
acknowledged within `visibility_timeout` (3,600 s), RabbitMQ closes the channel after `consumer_timeout` (1,800 s).
"""

PUBLISHER_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 1, "max_retries": 1}
"""A request learns within about two seconds that the broker is down. A worker blocks on reads for longer than that."""


def preset(app: Flask) -> dict[str, Any]:
    """Return the settings that `ASOK_CELERY` is laid over. Celery's own defaults lose a task with its worker."""
    return {
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": 1,
        "broker_transport_options": {
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "visibility_timeout": 3_600,
            **PUBLISHER_OPTIONS,
        },
        "result_serializer": "json",
        "task_default_queue": queue_name(app, "default"),
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_serializer": "json",
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 10,
    }


def make_engine(app: Flask, settings: Mapping[str, Any]) -> Celery:
    """Return the application's own Celery, from `app.extensions["celery"]`, or one made of `ASOK_CELERY`."""
    own = app.extensions.get("celery")
    if own is not None:
        return own
    engine = Celery(app.name, set_as_current=False)
    merged = copy.deepcopy(preset(app))
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key].update(value)
        else:
            merged[key] = value
    engine.conf.update(merged)
    return engine


def add_tasks(engine: Celery, work: Callable[[Any, object], None]) -> None:
    """
    Register the two generic tasks, which call `work(celery_task, message)`.

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
        work(self, message)

    def run_once(self: Any, message: object = None) -> None:
        work(self, message)

    engine.task(run, name=RUN, acks_late=True, reject_on_worker_lost=True, **common)
    engine.task(run_once, name=RUN_ONCE, acks_late=False, **common)


def start_worker(engine: Celery, arguments: list[str]) -> None:
    """Run Celery's own worker in this process until it is told to stop."""
    options = dict(engine.conf.broker_transport_options or {})
    for name in PUBLISHER_OPTIONS:
        options.pop(name, None)
    engine.conf.broker_transport_options = options
    engine.conf.broker_connection_timeout = 4
    if not any(argument.startswith(("-n", "--hostname")) for argument in arguments):
        # Two workers of one name on one broker would take each other's orders.
        arguments = ["--hostname", f"{engine.main}-{os.getpid()}@%h", *arguments]
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
            backend = self.task.backend_of_asok
            if self.task.acks_late:
                # Before the message goes back, so that whoever gets it need not wait for the lease to run out.
                backend.leave(self.id, self.worker_pid)
            else:
                self._give_up("lost with its worker, and is to run at most once")
        return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        if not soft:
            self._give_up(f"stopped at its time limit of {timeout:g} s")

    def _give_up(self, why: str) -> None:
        # In the loop that all of the worker hangs on: it must neither raise nor wait there for a Redis that is down.
        with contextlib.suppress(BackendUnavailable):
            self.task.backend_of_asok.give_up(self.id, why, self.args[0])


def trace_headers() -> dict[str, str]:
    """Return the headers of the current OpenTelemetry span, if the application uses OpenTelemetry."""
    headers: dict[str, str] = {}
    if "opentelemetry.propagate" in sys.modules:
        sys.modules["opentelemetry.propagate"].inject(headers)
    return headers
