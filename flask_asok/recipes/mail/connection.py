"""Flask-Mail's Connection, made safe: bounded in time, TLS verified, refusals kept."""

from __future__ import annotations

import dataclasses
import functools
import smtplib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import flask_mail
from flask import Flask

from ...signals import emit
from ...state import state_of
from .addresses import one_address
from .message import LetterMessage
from .receipt import Refusal

if TYPE_CHECKING:
    from .letter import Letter

_CHUNK = 64 * 1024

_DATA_PATIENCE = 6
"""
How many times longer the answer to the mail itself may take than the answer to a command.

Servers scan before they answer, and who hangs up meanwhile sends the mail twice: RFC 5321, 4.5.3.2.6, asks for ten
minutes where it asks for five elsewhere.
"""


@functools.cache
def _own_name() -> str:
    """Return what this machine says to be: its full name, or its address. smtplib would ask for it every time."""
    return smtplib.SMTP().local_hostname


def mail_state(app: Flask) -> Any:
    """Return Flask-Mail's state on `app`, set up from its `MAIL_*` keys where the app has no `flask_mail.Mail(app)`."""
    if "mail" not in app.extensions:
        state = flask_mail.Mail().init_mail(app.config, app.debug, app.testing)
        # An app that sets up its own meanwhile keeps it.
        app.extensions.setdefault("mail", state)
    return app.extensions["mail"]


class _Replies:
    """Read what a server answers, by a deadline for the whole answer: one byte at a time does not renew it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.deadline = 0.0

    def readline(self, limit: int) -> bytes:
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < limit:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
            received = self._sock.recv(8192)
            if not received:
                break
            self._buffer += received
        end = min(end or len(self._buffer), limit)
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line

    def close(self) -> None:
        """Nothing of its own to close: the socket is smtplib's."""


class _Bounded(smtplib.SMTP):
    """smtplib's client, which knows a timeout for each read and none for an answer."""

    file: Any | None
    in_data: bool = False
    """Whether the server has asked for the mail itself (354) and not yet answered it."""

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock)
        if isinstance(self.file, _Replies):
            patience = _DATA_PATIENCE if self.in_data else 1
            self.file.deadline = time.monotonic() + self.timeout * patience
        answer = super().getreply()
        self.in_data = answer[0] == 354
        return answer

    def ehlo(self, name: str = "") -> tuple[int, bytes]:
        answer = super().ehlo(name)
        if 400 <= answer[0] < 500:
            # smtplib would take a server that is busy for one without TLS and login.
            raise smtplib.SMTPHeloError(*answer)
        return answer

    def send(self, s: Any) -> None:
        # In pieces, since sendall() counts its timeout for the whole: 20 MB would never get through a slow line.
        for start in range(0, len(s), _CHUNK):
            if self.sock is not None:
                self.sock.settimeout(self.timeout)
            super().send(s[start : start + _CHUNK])


class _BoundedSSL(_Bounded, smtplib.SMTP_SSL):
    """The same for `MAIL_USE_SSL`."""


class Connection(flask_mail.Connection):
    """
    One connection to the SMTP server of `app`, for one thread, used as a context manager.

    Entering and sending raise what smtplib and the socket raise; leaving raises nothing. With `MAIL_SUPPRESS_SEND` it
    connects to nothing, and sending only sends Flask-Mail's signal.
    """

    host: smtplib.SMTP | smtplib.SMTP_SSL | None
    num_emails: int

    def __init__(self, app: Flask) -> None:
        super().__init__(mail_state(app))
        self.app = app
        asok = state_of(app)
        self.timeout: float = asok.config["ASOK_MAIL_TIMEOUT"]
        self.tls: ssl.SSLContext | None = None
        if not self.mail.suppress and (self.mail.use_ssl or self.mail.use_tls):
            # Reading the system's certificates takes some 20 ms.
            self.tls = asok.shared("mail.tls", lambda: _tls(asok.config["ASOK_MAIL_CA_FILE"]))

    @property
    def is_unsure(self) -> bool:
        """Whether the server may have the last mail although its answer is missing."""
        return isinstance(self.host, _Bounded) and self.host.in_data

    def __exit__(self, *args: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Say goodbye. What goes wrong there changes nothing: the mail is sent or it is not."""
        is_unsure = self.is_unsure
        host, self.host = self.host, None
        if host is None:
            return
        try:
            if host.sock is not None and not is_unsure:
                host.quit()
        except (smtplib.SMTPException, OSError):
            pass
        finally:
            host.close()

    def reconnect(self) -> None:
        """Begin a new connection; the old one may be lost."""
        self.disconnect()
        self.__enter__()

    def configure_host(self) -> _Bounded:
        mail = self.mail
        options: dict[str, Any] = {"local_hostname": _own_name(), "timeout": self.timeout}
        host: _Bounded
        if mail.use_ssl:
            host = _BoundedSSL(mail.server, mail.port or 0, context=self.tls, **options)
        else:
            host = _Bounded(mail.server, mail.port or 0, **options)
        try:
            if mail.use_tls:
                host.set_debuglevel(int(mail.debug))
                host.starttls(context=self.tls)
            if mail.username and mail.password:
                # MAIL_DEBUG, which is on when the app is in debug mode, would print the password.
                host.set_debuglevel(0)
                _log_in(host, str(mail.username), str(mail.password))
            host.set_debuglevel(int(mail.debug))
        except BaseException:
            host.close()
            raise
        return host

    def send(self, message: flask_mail.Message, envelope_from: Any = None) -> None:
        """Send a Message as Flask-Mail's Connection does; SMTPRecipientsRefused when no recipient was accepted."""
        from .letter import letter_of_message

        letter = letter_of_message(message)
        if envelope_from is not None:
            sender = one_address("envelope_from", envelope_from).ascii
            letter = dataclasses.replace(letter, envelope_from=sender)
        refused = self.send_letter(letter)
        if len(refused) == len(letter.envelope_to):
            raise smtplib.SMTPRecipientsRefused({each.address: (each.code, each.text.encode()) for each in refused})

    def send_letter(self, letter: Letter) -> list[Refusal]:
        """
        Send a letter to the recipients of its envelope, and return those that the server refused, be it all of them.

        Raises when the connection is lost, which the answer 421 announces.
        """
        message = LetterMessage(letter)
        if self.mail.max_emails and self.num_emails >= self.mail.max_emails:
            self.reconnect()
        refused = self._submit(letter, message.as_bytes()) if self.host is not None else {}
        if len(refused) < len(letter.envelope_to):
            self.num_emails += 1
            emit(flask_mail.email_dispatched, self.app, message=message)
        return [Refusal(address, code, readable(text)) for address, (code, text) in refused.items()]

    def _submit(self, letter: Letter, content: bytes) -> dict[str, tuple[int, bytes]]:
        assert self.host is not None
        try:
            return self.host.sendmail(
                letter.envelope_from, letter.envelope_to, content, letter.mail_options, letter.rcpt_options
            )
        except smtplib.SMTPRecipientsRefused as error:
            for code, text in error.recipients.values():
                if code == 421:
                    raise smtplib.SMTPResponseException(code, text) from error
            return error.recipients
        except smtplib.SMTPNotSupportedError as error:
            # RFC 6531, 3.2: what a server without SMTPUTF8 would have answered.
            return dict.fromkeys(letter.envelope_to, (553, str(error).encode()))
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            if error.smtp_code == 421:
                raise
            text = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
            return dict.fromkeys(letter.envelope_to, (error.smtp_code, text))


def _log_in(host: smtplib.SMTP, username: str, password: str) -> None:
    if not (username + password).isascii():
        # smtplib would raise a UnicodeEncodeError, whose repr shows the password.
        raise smtplib.SMTPException("MAIL_USERNAME and MAIL_PASSWORD must be ASCII.")
    try:
        host.login(username, password)
    except ValueError as error:
        raise smtplib.SMTPException(f"the login is not understood ({type(error).__name__})") from None


def readable(text: bytes | str) -> str:
    """Return what a server said as one printable line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
