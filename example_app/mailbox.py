"""A mail server that keeps what it gets for the page to show."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
from collections.abc import Awaitable
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from flask import Flask

from .db import get_db


class Mailbox(Controller):
    """An SMTP server on 127.0.0.1, in a thread of its own from `start()` to `stop()`; `port` 0 is any free one."""

    def __init__(self, app: Flask, port: int) -> None:
        # Bound here, since aiosmtpd's own `port=0` would never learn which port it got.
        self._socket = socket.create_server(("127.0.0.1", port))
        super().__init__(Keeper(app), hostname="127.0.0.1", port=self._socket.getsockname()[1])

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)


class Keeper:
    """Put each mail into the database of `app`."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self._app.config["EXAMPLE_PAUSE"])
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        with self._app.app_context():
            get_db().execute(
                "INSERT INTO mails (sign_up, recipient, subject, text, html) VALUES (?, ?, ?, ?, ?)",
                (
                    mail["X-Sign-Up"], ", ".join(envelope.rcpt_tos), mail["Subject"],
                    text.get_content() if text else None, html.get_content() if html else None,
                ),
            )  # fmt: skip
        return "250 OK"
