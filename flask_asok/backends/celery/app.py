"""The Celery application, with settings under which nothing is lost, and Celery's own worker."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from flask import Flask

from ...errors import NotConfigured
from .intake import guard_intake


def preset(app: Flask) -> dict[str, Any]:
    """Return the settings that `ASOK_CELERY` is laid over. Celery's own defaults lose a task with its worker."""
    return {
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # Of this application alone: another one with a shorter visibility timeout would hand out its messages.
            "unacked_key": f"asok:{app.name}:unacked",
            "unacked_index_key": f"asok:{app.name}:unacked_index",
            "unacked_mutex_key": f"asok:{app.name}:unacked_mutex",
            # A worker that is killed while it restores messages keeps the others from it for that long.
            "unacked_mutex_expire": 10,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # What a busy worker that is killed has taken and not begun comes back after that; a sweeper is quicker.
            "visibility_timeout": 30,
        },
        "result_serializer": "json",
        "task_default_queue": queue_name(app, "default"),
        "task_ignore_result": True,
        "task_serializer": "json",
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 10,
    }


def make_celery_app(app: Flask, settings: Mapping[str, Any]) -> Celery:
    """Return the application's own Celery, from `app.extensions["celery"]`, or one made of `ASOK_CELERY`."""
    own = app.extensions.get("celery")
    if own is not None:
        return _checked(own)
    if not (settings.keys() & {"broker_url", "broker_write_url"} or os.environ.get("CELERY_BROKER_URL")):
        raise NotConfigured("The celery backend needs a broker: set ASOK_CELERY['broker_url'] = 'redis://...'.")
    celery_app = Celery(app.name, set_as_current=False)
    merged = copy.deepcopy(preset(app))
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key].update(value)
        else:
            merged[key] = value
    celery_app.conf.update(merged)
    return _checked(celery_app)


def _checked(celery_app: Celery) -> Celery:
    """Return `celery_app`; NotConfigured where its result backend cannot be made, which the first message needs."""
    try:
        celery_app.backend  # noqa: B018
    except Exception as error:
        # Not the text of any other error: it may quote the URL.
        is_safe = isinstance(error, (ImportError, ImproperlyConfigured)) or "ssl_cert_reqs" in str(error)
        cause = str(error) if is_safe else type(error).__name__
        raise NotConfigured(f"ASOK_CELERY['result_backend'] cannot be used: {cause}") from None
    return celery_app


def queue_name(app: Flask, queue: str) -> str:
    """Return the name in the broker of one of `ASOK_QUEUES`: the queues of two applications never mix."""
    return f"{app.name}.{queue}"


def run_celery_worker(celery_app: Celery, arguments: Sequence[str]) -> None:
    """Run Celery's own worker in this process until it is told to stop."""
    pools = {argument.removeprefix("--pool=").removeprefix("-P") for argument in arguments}
    if pools & {"gevent", "eventlet"} and socket.socket.__module__ == "socket":
        # It is too late to patch here: the worker would run no task, and log nothing.
        raise NotConfigured(
            "The gevent pool needs a patched Python: python -m gevent.monkey --module flask --app ... asok worker ..."
        )
    if not any(argument.startswith(("-n", "--hostname")) for argument in arguments):
        # Two workers of the same name on one broker would take each other's orders.
        arguments = ["--hostname", f"{celery_app.main}-{os.getpid()}@%h", *arguments]
    guard_intake(celery_app)
    celery_app.worker_main(["worker", *arguments])
