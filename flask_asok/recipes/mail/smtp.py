"""Flask-Mail's Connection with time limits and verified TLS; it returns refusals instead of raising them."""

from __future__ import annotations

import dataclasses
import functools
import smtplib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Self

import flask_mail
from flask import Flask

from ...process import LateLock
from ...signals import emit
from ...state import state_of
from .addresses import one_address
from .errors import MailRefused
from .mime import as_bytes
from .receipt import Refusal
from .sent import SentMessage
from .server import Server, is_on

if TYPE_CHECKING:
    from .outgoing import OutgoingMail

_CHUNK = 64 * 1024

_DATA_FACTOR = 6
"""
How many times longer the answer to the email itself may take than the answer to a command.

Servers scan before they answer, and a client that hangs up meanwhile sends the email twice: RFC 5321, 4.5.3.2.6, asks
for ten minutes there and for five elsewhere.
"""

_naming = LateLock()
"""Held during the look-up of this machine's name, which may take seconds, once per process."""


@functools.cache
def _own_name() -> str:
    """Return this machine's full name, or its address. smtplib would look it up for each connection."""
    return smtplib.SMTP().local_hostname


def _hello(asked_for: str | None) -> str:
    """Return the name to greet the server with: `ASOK_MAIL_HELLO`, which needs no look-up, or this machine's."""
    if asked_for is not None:
        return asked_for
    with _naming.of_process():
        return _own_name()


class NoMailServer(smtplib.SMTPException):
    """Raised if the server's greeting is not SMTP."""


class _Replies:
    """Reads an answer of the server within one deadline, which single bytes do not extend."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.deadline = 0.0
        self.last = b""
        """The last line."""

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
        self.last = line
        return line

    def close(self) -> None:
        """Do nothing: the socket belongs to smtplib."""


class _Bounded(smtplib.SMTP):
    """smtplib's client with a deadline for each answer; its own timeout is per read."""

    file: Any | None
    in_data: bool = False
    """Has the server asked for the email itself (354) and not yet answered it?"""
    is_greeted: bool = False

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock)
        if isinstance(self.file, _Replies):
            factor = _DATA_FACTOR if self.in_data else 1
            self.file.deadline = time.monotonic() + self.timeout * factor
        answer = super().getreply()
        if answer[0] == -1:
            said = readable(self.file.last.strip()) if isinstance(self.file, _Replies) else ""
            self.close()
            if not self.is_greeted:
                raise NoMailServer(f"what answers there is no mail server: it says {said!r}")
            raise smtplib.SMTPServerDisconnected(f"the server's answer is no SMTP: {said!r}")
        self.is_greeted = True
        self.in_data = answer[0] == 354
        return answer

    def ehlo(self, name: str = "") -> tuple[int, bytes]:
        answer = super().ehlo(name)
        if 400 <= answer[0] < 500:
            # smtplib would treat a busy server as one without TLS and login.
            raise smtplib.SMTPHeloError(*answer)
        return answer

    def send(self, s: Any) -> None:
        # In pieces, since the timeout of sendall() covers all of it: 20 MB would never pass a slow line.
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
    does not connect, and sending only emits Flask-Mail's signal.
    """

    host: smtplib.SMTP | smtplib.SMTP_SSL | None
    num_emails: int

    def __init__(self, app: Flask) -> None:
        super().__init__(app.extensions["mail"])
        self.app = app
        self.server: Server | None = None if is_on("MAIL_SUPPRESS_SEND", self.mail.suppress) else Server.of(app)
        asok = state_of(app)
        self.timeout: float = asok.config["ASOK_MAIL_TIMEOUT"]
        self.hello: str | None = asok.config["ASOK_MAIL_HELLO"]
        self.tls: ssl.SSLContext | None = None
        if self.server is not None and (self.server.use_ssl or self.server.use_tls):
            # Reading the system's certificates takes about 20 ms.
            self.tls = asok.shared("mail.tls", lambda: _tls(asok.config["ASOK_MAIL_CA_FILE"]))

    @property
    def is_unsure(self) -> bool:
        """May the server have the last email although its answer is missing?"""
        return isinstance(self.host, _Bounded) and self.host.in_data

    def __enter__(self) -> Self:
        self.host = None if self.server is None else self._connected(self.server)
        self.num_emails = 0
        return self

    def __exit__(self, *args: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Quit. Errors are ignored: by now each email is sent, or it is not."""
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
        """Open a new connection; the old one may be lost."""
        self.disconnect()
        self.__enter__()

    def _connected(self, server: Server) -> _Bounded:
        options: dict[str, Any] = {"local_hostname": _hello(self.hello), "timeout": self.timeout}
        host: _Bounded
        if server.use_ssl:
            host = _BoundedSSL(server.host, server.port, context=self.tls, **options)
        else:
            host = _Bounded(server.host, server.port, **options)
        try:
            if server.use_tls:
                host.set_debuglevel(server.debug)
                host.starttls(context=self.tls)
            if server.username and server.password:
                # MAIL_DEBUG would print the password.
                host.set_debuglevel(0)
                _log_in(host, server.username, server.password)
            host.set_debuglevel(server.debug)
        except BaseException:
            host.close()
            raise
        return host

    def send(self, message: flask_mail.Message, envelope_from: Any = None) -> None:
        """Send a Message as Flask-Mail's Connection does; SMTPRecipientsRefused if no recipient was accepted."""
        from .draft import composed, draft_of_message
        from .outgoing import Unsendable

        mail = composed(draft_of_message(message))
        if isinstance(mail, Unsendable):
            raise MailRefused(mail.why)
        if envelope_from is not None:
            sender = one_address("envelope_from", envelope_from).spec
            mail = dataclasses.replace(mail, envelope_from=sender)
        refused = self.transmit(mail)
        if len(refused) == len(mail.envelope_to):
            raise smtplib.SMTPRecipientsRefused({each.address: (each.code, each.text.encode()) for each in refused})

    def transmit(self, mail: OutgoingMail) -> list[Refusal]:
        """
        Send an email to the recipients of its envelope, and return those that the server refused, possibly all.

        Raises if the connection is lost; the answer 421 announces that.
        """
        if self.server is not None and 0 < self.server.max_emails <= self.num_emails:
            self.reconnect()
        content = as_bytes(mail, ascii_names=is_on("MAIL_ASCII_ATTACHMENTS", self.mail.ascii_attachments))
        refused = self._submit(mail, content) if self.host is not None else {}
        if len(refused) < len(mail.envelope_to):
            self.num_emails += 1
            if flask_mail.email_dispatched.receivers:
                emit(flask_mail.email_dispatched, self.app, message=SentMessage(mail, content))
        return [Refusal(address, code, readable(text)) for address, (code, text) in refused.items()]

    def _submit(self, mail: OutgoingMail, content: bytes) -> dict[str, tuple[int, bytes]]:
        assert self.host is not None
        try:
            return self.host.sendmail(
                mail.envelope_from, mail.envelope_to, content, mail.mail_options, mail.rcpt_options
            )
        except smtplib.SMTPRecipientsRefused as error:
            for code, text in error.recipients.values():
                if code == 421:
                    raise smtplib.SMTPResponseException(code, text) from error
            return error.recipients
        except smtplib.SMTPNotSupportedError as error:
            # RFC 6531, 3.2: the answer of a server without SMTPUTF8.
            return dict.fromkeys(mail.envelope_to, (553, str(error).encode()))
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            if error.smtp_code == 421:
                raise
            text = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
            return dict.fromkeys(mail.envelope_to, (error.smtp_code, text))


def _log_in(host: smtplib.SMTP, username: str, password: str) -> None:
    if not (username + password).isascii():
        # smtplib would raise a UnicodeEncodeError, whose repr shows the password.
        raise smtplib.SMTPException("MAIL_USERNAME and MAIL_PASSWORD must be ASCII.")
    try:
        host.login(username, password)
    except ValueError as error:
        raise smtplib.SMTPException(f"the login is not understood ({type(error).__name__})") from None


def readable(text: bytes | str) -> str:
    """Return text from a server as one printable line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise MailRefused(f"ASOK_MAIL_CA_FILE: {ca_file} can no longer be read: {error.strerror}.") from error
    return context
