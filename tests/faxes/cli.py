"""`flask asok send-test-fax`: try the line."""

import click
from flask.cli import with_appcontext


@click.command("send-test-fax")
@click.argument("number")
@with_appcontext
def send_test_fax(number):
    """Send a fax to NUMBER, now."""
    from .recipe import send_fax

    click.echo(send_fax(number, "Test"))
