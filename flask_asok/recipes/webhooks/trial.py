"""`flask asok send-test-webhook`: does a webhook arrive, and what would its receiver verify?"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
from flask import current_app

from ...errors import WebhookError
from . import signing
from .delivery import Delivery
from .recipe import send_anyway


def send_test_webhook(url: str, secret: str | None) -> None:
    """Deliver a test to `url`, once and now, and print what became of it. Exits with 1 when it was not accepted."""
    payload = {
        "type": "test",
        "timestamp": datetime.now(UTC),
        "data": {},
        "text": f"Test webhook of {current_app.name}",  # what Slack shows
    }
    delivery: Delivery | None
    error: WebhookError | None = None
    try:
        delivery = send_anyway(url, payload, secret)
    except WebhookError as failure:
        delivery, error = failure.delivery, failure
    except ValueError as mistake:
        raise click.UsageError(str(mistake)) from None
    if error is not None:
        click.echo(f"Failed: {error}", err=True)
    if delivery is not None and delivery.status is not None:
        click.echo(f"{delivery.url} answered {delivery.status} in {delivery.duration * 1000:.0f} ms.")
        click.echo(f"Answer: {delivery.excerpt or '(empty)'}")
        _show_headers(delivery, secret)
    if error is not None:
        sys.exit(1)


def _show_headers(delivery: Delivery, secret: str | None) -> None:
    """Print what a receiver finds in the request, and whether it verifies."""
    headers = {"webhook-id": delivery.id, "webhook-timestamp": str(delivery.timestamp)}
    if secret is not None:
        keys = signing.keys([secret])
        headers["webhook-signature"] = signing.sign(keys, delivery.id, delivery.timestamp, delivery.body)
    click.echo("\nThe receiver was given")
    for name, value in headers.items():
        click.echo(f"  {name}: {value}")
    click.echo(f"  {delivery.body.decode()}")
    if secret is None:
        click.echo("\nUnsigned: pass --secret to sign.")
        return
    signing.verify_webhook(headers, delivery.body, secret)
    click.echo(
        f'\nSigned is "{delivery.id}.{delivery.timestamp}." and the body; a receiver with that secret verifies it.'
    )
