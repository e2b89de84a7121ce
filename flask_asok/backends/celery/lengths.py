"""How many messages wait in the broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Flask

from .app import queue_name


def lengths_on(connection: Any, app: Flask, queues: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in each queue of `app`, asked on this connection to the broker."""
    channel = connection.default_channel
    return {queue: _length(channel, queue_name(app, queue)) for queue in queues}


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except Exception as error:
        if type(error).__name__ not in ("ChannelError", "NotFound"):
            # The broker is away.
            raise
        # It is not declared yet: no worker has started, and nothing was sent.
        return 0
