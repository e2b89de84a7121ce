"""What the receivers of Flask-Mail's `email_dispatched` get of a letter."""

from __future__ import annotations

from flask_mail import Attachment, Message

from .letter import Letter


class SentMessage(Message):
    """A Flask-Mail Message like any other, whose bytes are those that were sent."""

    def __init__(self, letter: Letter, content: bytes) -> None:
        # Message() would look up the name of this machine for a Message-ID that this one has already; a test holds that
        # nothing is missing.
        self.subject: str = letter.subject
        self.sender: str | tuple[str, str] = letter.sender.value
        self.recipients: list[str | tuple[str, str]] = [each.value for each in letter.to]
        self.cc: list[str | tuple[str, str]] = [each.value for each in letter.cc]
        self.bcc: list[str | tuple[str, str]] = [each.value for each in letter.bcc]
        self.reply_to: str | tuple[str, str] | None = letter.reply_to.value if letter.reply_to else None
        self.body: str | None = letter.body
        self.alts: dict[str, str] = dict(letter.alternatives)
        self.attachments: list[Attachment] = [
            Attachment(file.filename, file.content_type, file.data, file.disposition, dict(file.headers))
            for file in letter.attachments
        ]
        self.date: float | None = letter.date
        self.msgId: str = letter.message_id
        self.charset: str | None = letter.charset
        self.extra_headers: dict[str, str] | None = dict(letter.headers)
        self.mail_options: list[str] = list(letter.mail_options)
        self.rcpt_options: list[str] = list(letter.rcpt_options)
        self._content = content

    def as_bytes(self) -> bytes:
        """Return the mail as it went over the wire."""
        return self._content

    def as_string(self) -> str:
        """Return the mail as it went over the wire."""
        return self._content.decode("utf-8", "replace")
