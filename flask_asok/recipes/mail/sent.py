"""The Message that receivers of Flask-Mail's `email_dispatched` get."""

from __future__ import annotations

from flask_mail import Attachment, Message

from .outgoing import OutgoingMail


class SentMessage(Message):
    """A Flask-Mail Message like any other; its bytes are those that were sent."""

    def __init__(self, mail: OutgoingMail, content: bytes) -> None:
        # Not by Message(), which would look up the name of this machine for a new Message-ID. A test compares the
        # attributes.
        self.subject: str = mail.subject
        self.sender: str | tuple[str, str] = mail.sender.value
        self.recipients: list[str | tuple[str, str]] = [each.value for each in mail.to]
        self.cc: list[str | tuple[str, str]] = [each.value for each in mail.cc]
        self.bcc: list[str | tuple[str, str]] = [each.value for each in mail.bcc]
        self.reply_to: str | tuple[str, str] | None = mail.reply_to.value if mail.reply_to else None
        self.body: str | None = mail.body
        self.alts: dict[str, str] = dict(mail.alternatives)
        self.attachments: list[Attachment] = [
            Attachment(file.filename, file.content_type, file.data, file.disposition, dict(file.headers))
            for file in mail.attachments
        ]
        self.date: float | None = mail.date
        self.msgId: str = mail.message_id
        self.charset: str | None = mail.charset
        self.extra_headers: dict[str, str] | None = dict(mail.headers)
        self.mail_options: list[str] = list(mail.mail_options)
        self.rcpt_options: list[str] = list(mail.rcpt_options)
        self._content = content

    def as_bytes(self) -> bytes:
        """Return the email as it went over the wire."""
        return self._content

    def as_string(self) -> str:
        """Return the email as it went over the wire."""
        return self._content.decode("utf-8", "replace")
