"""Collect what an application sends, for its tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import Flask

if TYPE_CHECKING:
    from flask_mail import Message


@contextmanager
def recorded(app: Flask) -> Iterator[list[Message]]:
    """
    Collect the emails that `app` sends meanwhile, from any thread, as Flask-Mail Messages.

    Does what Flask-Mail's `record_messages()` does, for one app and without a `flask_mail.Mail`. It does not wait: join
    the tasks before you leave.
    """
    from flask_mail import email_dispatched

    messages: list[Message] = []

    def record(sender: Flask, message: Message) -> None:
        messages.append(message)

    with email_dispatched.connected_to(record, sender=app):
        yield messages
