"""What an application has delivered meanwhile, for its tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blinker import NamedSignal
from flask import Flask

if TYPE_CHECKING:
    from .delivery import Delivery

delivered: NamedSignal = NamedSignal("webhook-delivered")
"""Sent for the application after each webhook that was delivered or suppressed, with its `delivery`."""


@contextmanager
def recorded(app: Flask) -> Iterator[list[Delivery]]:
    """
    Collect the webhooks that `app` delivers meanwhile, from any thread of this process, those suppressed among them.

    They have their `full_url` and `headers`. It does not wait: join the tasks before you leave.
    """
    deliveries: list[Delivery] = []

    def record(sender: Flask, delivery: Delivery) -> None:
        deliveries.append(delivery)

    with delivered.connected_to(record, sender=app):
        yield deliveries
