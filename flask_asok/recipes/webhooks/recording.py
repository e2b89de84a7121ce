"""The webhooks that an application delivers, recorded for its tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from .delivery import Delivery
from .signals import delivered


@contextmanager
def recorded(app: Flask) -> Iterator[list[Delivery]]:
    """
    Collect the webhooks that `app` delivers in the block, on any thread of this process, suppressed ones included.

    They have their `full_url` and `headers`. Leaving the block does not wait: join the tasks before.
    """
    deliveries: list[Delivery] = []

    def record(sender: Flask, delivery: Delivery) -> None:
        deliveries.append(delivery)

    with delivered.connected_to(record, sender=app):
        yield deliveries
