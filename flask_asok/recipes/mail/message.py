"""The Flask-Mail Message that a letter becomes when it is sent."""

from __future__ import annotations

from email.charset import QP, Charset
from email.mime.base import MIMEBase
from email.mime.text import MIMEText
from email.policy import compat32
from typing import Any
from urllib.parse import quote

from flask_mail import Attachment, Message

from .checks import LONGEST_LINE, encoded_header, is_unbreakable
from .letter import Letter

_POLICY = compat32.clone(linesep="\r\n")
"""Flask-Mail's own, `policy.SMTP`, puts a space into a long name or header that is part ASCII and part not."""


class LetterMessage(Message):
    """What the receivers of Flask-Mail's `email_dispatched` (`record_messages()`) get: a Message like any other."""

    def __init__(self, letter: Letter) -> None:
        super().__init__(
            subject=letter.subject,
            recipients=list(letter.to),
            body=letter.body,
            sender="set below",
            cc=list(letter.cc),
            bcc=list(letter.bcc),
            attachments=[
                Attachment(file.filename, file.content_type, file.data, file.disposition, dict(file.headers))
                for file in letter.attachments
            ],
            reply_to=letter.reply_to,
            date=letter.date,
            charset=letter.charset,
            extra_headers=dict(letter.headers),
            mail_options=list(letter.mail_options),
            rcpt_options=list(letter.rcpt_options),
        )
        # Message() drops the "html" of its alts when it is given no html=.
        self.alts: dict[str, str] = dict(letter.alternatives)
        # Message() makes a str of a pair, in which a comma in the name would end the address.
        self.sender: Any = letter.sender
        self.msgId: str = letter.message_id
        self.letter = letter

    def as_bytes(self) -> bytes:
        """Return the mail as it goes over the wire."""
        if self.letter.content is not None:
            return self.letter.content
        return self._message().as_bytes()

    def _message(self) -> MIMEBase:
        """Write the headers so that every line of them is short enough, and none is empty."""
        message = super()._message()
        message.policy = _POLICY
        if not message["To"]:
            # RFC 5322, 3.6.3: a mail for blind copies only has no such field.
            del message["To"]
        if is_unbreakable(message.get("Subject", "")):
            message.replace_header("Subject", encoded_header("Subject", str(self.subject)))
        for part in message.walk():
            filename = part.get_filename()
            if filename is not None and len(part["Content-Disposition"]) > LONGEST_LINE:
                part.replace_header("Content-Disposition", _in_pieces(part.get_content_disposition(), filename))
        return message

    def _mimetext(self, text: str | None, subtype: str = "plain") -> MIMEText:
        """
        Write text as quoted-printable unless every server can take it as it is.

        Flask-Mail writes raw UTF-8 and lines of any length: an old server garbles the one, and refuses the other.
        """
        text = text or ""
        charset = Charset(self.charset or "utf-8")
        if not text.isascii() or any(len(line) > LONGEST_LINE for line in text.splitlines()):
            charset.body_encoding = QP
        return MIMEText(text, subtype, charset)  # type: ignore[arg-type]


def _in_pieces(disposition: str | None, filename: str) -> str:
    """Return the Content-Disposition of a long name, which RFC 2231, 3, divides."""
    # Only the first piece names the character set.
    pieces = ["utf-8''" + quote(filename[:60], safe="")]
    pieces += [quote(filename[start : start + 60], safe="") for start in range(60, len(filename), 60)]
    return ";\r\n ".join([disposition or "attachment", *(f"filename*{n}*={piece}" for n, piece in enumerate(pieces))])
