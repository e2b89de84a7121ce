"""`flask asok send-test-webhook`: does a webhook arrive, and what would its receiver verify?"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
from flask import current_app
from flask.cli import with_appcontext

from . import signing
from .delivery import Delivery
from .errors import WebhookError
from .recipe import deliver_once
from .webhook import compose


@click.command("send-test-webhook")
@click.argument("url")
@click.option("--secret", metavar="NAME", help='Sign with this entry of ASOK_WEBHOOK_SECRETS; "-" asks for a secret.')
@with_appcontext
def send_test_webhook(url: str, secret: str | None) -> None:
    """Deliver a test webhook to URL, once and now. Exits with 1 when it is not accepted."""
    if secret == "-":
        secret = click.prompt("Secret", hide_input=True)
    payload = {
        "type": "test",
        "timestamp": datetime.now(UTC),
        "data": {},
        "text": f"Test webhook of {current_app.name}",  # what Slack shows
    }
    delivery: Delivery | None
    error: WebhookError | None = None
    try:
        delivery = deliver_once(compose(url, payload, secret=secret), suppress=False)
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
    """Print what the receiver found in the request, and whether it verifies."""
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
