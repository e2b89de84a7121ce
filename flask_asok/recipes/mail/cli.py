"""`flask asok send-test-mail`."""

from __future__ import annotations

import click
from flask.cli import with_appcontext


@click.command("send-test-mail")
@click.argument("address")
@with_appcontext
def send_test_mail(address: str) -> None:
    """Send a mail to ADDRESS by the app's MAIL_* settings, now. Exits with 1 when the server does not take it."""
    from .trial import send_test_mail as send

    send(address)
