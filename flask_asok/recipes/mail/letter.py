"""A mail as it is queued: checked, complete, plain data."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any, TypeVar

from .addresses import Address, one_address, some_addresses
from .attachments import AttachedFile, attached_file
from .checks import (
    checked_charset,
    checked_header,
    checked_headers,
    checked_line,
    checked_option,
    checked_text,
    checked_token,
)

if TYPE_CHECKING:
    from flask_mail import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Letter:
    """
    Everything of one mail: what its headers say, its parts, and its envelope.

    Plain data: no open file, no password, no Flask-Mail object. Its id and its date are set once, so that every attempt
    sends the same mail.
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
    """The finished mail of a subclass of Flask-Mail's Message, which may sign it; any other is made when it is sent."""

    def __repr__(self) -> str:
        # Bodies hold password links: they stay out of logs and tracebacks.
        return f"<Letter {self.message_id} to {len(self.envelope_to)} recipients>"


@dataclass(frozen=True, slots=True)
class Unsendable:
    """
    A mail that cannot be sent because of its text, such as an address that a visitor mistyped: its task fails.

    An error at the call would be an error page for that visitor.
    """

    message_id: str
    why: str


def letter_of(
    to: Any,
    subject: Any = "",
    body: Any = None,
    *,
    html: Any = None,
    cc: Any = None,
    bcc: Any = None,
    sender: Any = None,
    reply_to: Any = None,
    attachments: Iterable[Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    default_sender: Any = None,
) -> Letter | Unsendable:
    """Return the letter that these arguments of `send_mail` describe; raise for a mistake of the caller."""
    if template is not None:
        from .templates import rendered

        if body is not None or html is not None:
            raise TypeError("Pass either template= or body= and html=, not both.")
        body, html = rendered(template, context or {})
    elif context is not None:
        raise TypeError("context= belongs to template=.")
    return _checked(
        subject=subject,
        sender=sender or default_sender,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        body=body,
        alternatives={} if html is None else {"html": html},
        attachments=[attachments] if isinstance(attachments, (str, os.PathLike)) else attachments or (),
        headers=headers,
    )


def letter_of_message(message: Message) -> Letter | Unsendable:
    """Return the letter that a Flask-Mail Message describes, its Message-ID kept; raise for a mistake of the caller."""
    from flask_mail import Message

    letter = _checked(
        subject=message.subject,
        sender=message.sender,
        to=message.recipients,
        cc=message.cc,
        bcc=message.bcc,
        reply_to=message.reply_to,
        body=message.body,
        alternatives=message.alts,
        attachments=message.attachments or (),
        headers=message.extra_headers,
        charset=message.charset,
        date=message.date,
        message_id=message.msgId,
        mail_options=message.mail_options,
        rcpt_options=message.rcpt_options,
    )
    if type(message) is Message or isinstance(letter, Unsendable):
        return letter
    # A subclass may sign or encrypt: only it knows how, and it may need what this thread holds.
    return dataclasses.replace(letter, content=message.as_bytes())


def _checked(
    *,
    subject: Any,
    sender: Any,
    to: Any,
    cc: Any,
    bcc: Any,
    reply_to: Any,
    body: Any,
    alternatives: Mapping[str, Any],
    attachments: Iterable[Any],
    headers: Mapping[str, Any] | None,
    charset: str | None = None,
    date: float | None = None,
    message_id: str | None = None,
    mail_options: Iterable[str] = (),
    rcpt_options: Iterable[str] = (),
) -> Letter | Unsendable:
    if not sender:
        raise ValueError("The mail has no sender. Pass sender= or set MAIL_DEFAULT_SENDER.")
    problems: list[str] = []
    copies = {name: some_addresses(name, value, problems) for name, value in (("to", to), ("cc", cc), ("bcc", bcc))}
    # A dict, because an address that is given twice gets one mail.
    recipients = list({found.spec: None for group in copies.values() for found in group})
    if not recipients and not problems:
        raise ValueError("The mail has no recipient: to, cc and bcc are empty.")
    author = _or_problem(problems, one_address, "sender", sender)
    extra = checked_headers(headers or {})
    if reply_to and any(name.lower() == "reply-to" for name in extra):
        raise ValueError("The header Reply-To would be there twice. Use reply_to=.")
    given_id = extra.pop("Message-ID", None) or checked_header("Message-ID", message_id)
    message_id = given_id or make_msgid(domain=author.spec.rpartition("@")[2] if author else "localhost")
    answer_to = _or_problem(problems, one_address, "reply_to", reply_to) if reply_to else None
    title = _or_problem(problems, checked_line, "subject", subject)
    charset = checked_charset(charset)
    files = [attached_file(attachment, problems) for attachment in attachments]
    parts = {
        checked_token("alts", subtype): checked_text(subtype, text, charset) or ""
        for subtype, text in alternatives.items()
    }
    body = checked_text("body", body, charset)
    date = time.time() if date is None else _checked_date(date)
    mail_options = [checked_option("mail_options", option) for option in mail_options]
    rcpt_options = [checked_option("rcpt_options", option) for option in rcpt_options]
    if problems or author is None or title is None:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        return Unsendable(message_id, "; ".join(problems[:5]) + more)
    return Letter(
        message_id=message_id,
        date=date,
        subject=title,
        sender=author,
        to=copies["to"],
        cc=copies["cc"],
        bcc=copies["bcc"],
        reply_to=answer_to,
        body=body,
        alternatives=parts,
        attachments=files,
        headers=extra,
        envelope_from=author.spec,
        envelope_to=recipients,
        charset=charset,
        mail_options=mail_options,
        rcpt_options=rcpt_options,
    )


def _or_problem(problems: list[str], check: Callable[[str, Any], T], name: str, value: Any) -> T | None:
    """Return what `check` makes of a text; where it raises ValueError, add the reason to `problems` and return None."""
    try:
        return check(name, value)
    except ValueError as error:
        problems.append(str(error))
        return None


def _checked_date(date: Any) -> float:
    try:
        formatdate(date)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{date!r} is no date of a mail: seconds since the epoch.") from error
    return float(date)
