"""`flask asok send-test-mail`: try the mail settings by sending one email."""

from __future__ import annotations

import time

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from .errors import MailError, MailRefused


@click.command("send-test-mail")
@click.argument("address")
@with_appcontext
def send_test_mail(address: str) -> None:
    """Send an email to ADDRESS by the app's MAIL_* settings, now. Exits with 1 when the server does not accept it."""
    from .recipe import check_address, send_mail

    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        check_address(address)
        _show_server(app)
        started = time.perf_counter()
        receipt = send_mail(address, f"Test mail of {app.name}", "The mail settings work.\n")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except (MailError, OSError) as error:
        raise click.ClickException(str(error)) from error
    milliseconds = (time.perf_counter() - started) * 1000
    click.echo(f"The server took {receipt.message_id} for {address} in {milliseconds:.0f} ms")


def _show_server(app: Flask) -> None:
    from .server import Server, is_on

    if is_on("MAIL_SUPPRESS_SEND", app.extensions["mail"].suppress):
        raise MailRefused("MAIL_SUPPRESS_SEND is on, or the app is in testing mode: no mail leaves it.")
    server = Server.of(app)
    secured = "TLS" if server.use_ssl else "STARTTLS" if server.use_tls else "no encryption"
    login = f"login as {server.username}" if server.username and server.password else "no login"
    click.echo(f"Server {server}, {secured}, {login}")
