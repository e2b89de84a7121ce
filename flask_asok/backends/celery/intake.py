"""The worker's guard against foreign and malformed messages in its queue: it logs and drops them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.worker.consumer import Tasks
from kombu.exceptions import KombuError

from ...logs import log
from .channels import keep_client

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, KombuError)
"""What the libraries raise for text that is not a message of theirs; none of these means a lost connection."""


def guard_intake(celery_app: Any) -> None:
    """Make the workers of `celery_app` drop what is not a message."""
    celery_app.steps["consumer"].add(_Intake)


class _Intake(bootsteps.StartStopStep):  # type: ignore[misc]
    """
    Stands between the broker and Celery, whose main loop would end with an error that a message causes.

    Celery makes one for each connection.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Guard what reads messages, and what handles them."""
        channel = consumer.task_consumer.channel
        keep_client(channel)
        # kombu reads them itself on Redis only.
        handlers = getattr(channel, "handlers", {})
        if "BRPOP" in handlers:
            handlers["BRPOP"] = _guarded_read(channel, handlers["BRPOP"])
        create = consumer.create_task_handler
        if not hasattr(create, "guarded"):
            consumer.create_task_handler = _guarded_handlers(create)


def _guarded_read(channel: Any, read: Callable[[], Any]) -> Callable[[], Any]:
    from redis.exceptions import DataError

    def guarded_read() -> Any:
        try:
            return read()
        except (*MALFORMED, DataError) as error:
            # It has left the queue already, so it is dropped.
            _refuse(error)
            return True

    return guarded_read


def _guarded_handlers(create: Callable[[], Callable[[Any], Any]]) -> Callable[[], Callable[[Any], Any]]:
    def create_guarded() -> Callable[[Any], Any]:
        handle = create()

        def guarded(message: Any) -> Any:
            try:
                _check(message)
                return handle(message)
            except MALFORMED as error:
                _refuse(error)
                if not message.acknowledged:
                    message.ack()

        return guarded

    create_guarded.guarded = True  # type: ignore[attr-defined]
    return create_guarded


def _check(message: Any) -> None:
    """Raise for invalid headers, which Celery would use later, where the message is not at hand any more."""
    headers = message.headers
    if not isinstance(headers, dict) or "task" not in headers:
        # An older kind of message, or none at all: Celery itself can tell.
        return
    if not (isinstance(headers["task"], str) and isinstance(headers.get("id"), str)):
        raise TypeError("its task or id is not text")
    limits = headers.get("timelimit") or (None, None)
    for limit in limits:
        if limit is not None and (type(limit) not in (int, float) or not 0 <= limit < float("inf")):
            raise TypeError("its time limit is not a number")
    if len(limits) != 2:
        raise TypeError("it does not have two time limits")


def _refuse(error: Exception) -> None:
    # Not its text, which may be long and hold anything.
    log(logging.ERROR, "Refused a message for background tasks: it is not of Flask-Asok (%s).", type(error).__name__)
