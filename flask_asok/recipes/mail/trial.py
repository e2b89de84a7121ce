"""Try the mail settings by sending one mail: `flask asok send-test-mail`."""

from __future__ import annotations

import time

import click
from flask import Flask, current_app

from ...errors import MailError
from . import send_mail
from .connection import mail_state


def send_test_mail(address: str) -> None:
    """
    Send a mail to `address`, now and once, and tell what it went through.

    Raises click.UsageError for what the call refuses (a bad address, no sender), click.ClickException when it is not
    sent.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    mail = mail_state(app)
    if mail.suppress:
        raise click.ClickException("MAIL_SUPPRESS_SEND is on, or the app is in testing mode: no mail leaves it.")
    secured = "TLS" if mail.use_ssl else "STARTTLS" if mail.use_tls else "no encryption"
    login = f"login as {mail.username}" if mail.username and mail.password else "no login"
    click.echo(f"Server {mail.server}:{mail.port}, {secured}, {login}")
    started = time.perf_counter()
    try:
        receipt = send_mail(address, f"Test mail of {app.name}", "The mail settings work.\n")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except (MailError, OSError) as error:
        raise click.ClickException(str(error)) from error
    milliseconds = (time.perf_counter() - started) * 1000
    click.echo(f"The server took {receipt.message_id} for {address} in {milliseconds:.0f} ms")
