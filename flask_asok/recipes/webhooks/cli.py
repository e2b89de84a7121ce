"""`flask asok send-test-webhook`."""

from __future__ import annotations

import click
from flask.cli import with_appcontext


@click.command("send-test-webhook")
@click.argument("url")
@click.option("--secret", metavar="NAME", help='Sign with this entry of ASOK_WEBHOOK_SECRETS; "-" asks for a secret.')
@with_appcontext
def send_test_webhook(url: str, secret: str | None) -> None:
    """Deliver a test webhook to URL, once and now. Exits with 1 when it is not accepted."""
    from .trial import send_test_webhook as send

    send(url, click.prompt("Secret", hide_input=True) if secret == "-" else secret)
