"""What a worker does with what is in its queue and is no task's message: it logs that, and drops it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.worker.consumer import Tasks
from kombu.exceptions import KombuError

from ..logs import log

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, KombuError)
"""What the libraries raise at text that is no message, or no message of theirs; none of it is a lost connection."""


class Intake(bootsteps.StartStopStep):  # type: ignore[misc]
    """
    Stands between the broker and Celery, whose main loop ends with an error that a message causes.

    Made anew with each connection.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Guard what reads messages, and what takes them."""
        channel = consumer.task_consumer.channel
        # Only on Redis does the library read them itself.
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
            # Taken from the queue already, so it is dropped.
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
    """Raise for headers which Celery uses later on, where nobody could tell any more whose they were."""
    headers = message.headers
    if not isinstance(headers, dict) or "task" not in headers:
        # An older kind of message, or none: that Celery can tell.
        return
    if not (isinstance(headers["task"], str) and isinstance(headers.get("id"), str)):
        raise TypeError("its task or id is no text")
    limits = headers.get("timelimit") or (None, None)
    for limit in limits:
        if limit is not None and (type(limit) not in (int, float) or not 0 <= limit < float("inf")):
            raise TypeError("its time limit is no number")
    if len(limits) != 2:
        raise TypeError("it has no two time limits")


def _refuse(error: Exception) -> None:
    # Not its text, which may be long, and anything.
    log(logging.ERROR, "Refused a message for background tasks: it is not of Flask-Asok (%s).", type(error).__name__)
