"""An email as it is queued: checked, complete, plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from .addresses import Address
from .attachments import AttachedFile


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OutgoingMail:
    """
    Everything of one email: what its headers say, its parts, and its envelope.

    Plain data: no open file, no password, no Flask-Mail object. Its id and its date are set once, so that every attempt
    sends the same email.
    """

    message_id: str
    date: float
    """Seconds since the epoch."""
    subject: str
    sender: Address
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: Address | None
    body: str | None
    alternatives: dict[str, str]
    """Further forms of the body by subtype: `{"html": ...}`."""
    attachments: list[AttachedFile]
    headers: dict[str, str]
    envelope_from: str
    envelope_to: list[str]
    """The recipients still to be served, bare addresses in ASCII."""
    charset: str | None = None
    mail_options: list[str] = field(default_factory=list)
    rcpt_options: list[str] = field(default_factory=list)
    content: bytes | None = None
    """The finished bytes, of a subclass of Flask-Mail's Message, which may sign them; None: they are made when sent."""

    def __repr__(self) -> str:
        # Bodies hold password links: they stay out of logs and tracebacks.
        return f"<OutgoingMail {self.message_id} to {len(self.envelope_to)} recipients>"


@dataclass(frozen=True, slots=True)
class Unsendable:
    """
    An email that cannot be sent because of its text, such as an address that a visitor mistyped: its task fails.

    An error at the call would be an error page for that visitor.
    """

    message_id: str
    why: str


Composed = OutgoingMail | Unsendable
"""What becomes of the caller's arguments: the record that the task gets."""
