"""An email as the caller gives it, and how it is checked and completed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any, TypeVar

from flask import current_app

from .addresses import one_address, some_addresses
from .attachments import attached_file
from .lengths import too_long
from .outgoing import Composed, OutgoingMail, Unsendable
from .safe_text import (
    checked_charset,
    checked_header,
    checked_headers,
    checked_line,
    checked_option,
    checked_text,
    checked_token,
    refuse_form,
)

if TYPE_CHECKING:
    from flask_mail import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Draft:
    """What the arguments of `send_mail` and a Flask-Mail Message have in common, not yet checked."""

    to: Any
    subject: Any
    body: Any
    cc: Any
    bcc: Any
    sender: Any
    reply_to: Any
    attachments: Iterable[Any]
    headers: Mapping[str, Any] | None
    alternatives: Mapping[str, Any] = field(default_factory=dict)
    charset: str | None = None
    date: float | None = None
    message_id: str | None = None
    mail_options: Iterable[str] = ()
    rcpt_options: Iterable[str] = ()
    finish: Callable[[], bytes] | None = None
    """Makes the bytes that are sent; None: they are made of all the rest."""


def draft_of(
    *,
    body: Any,
    html: Any,
    sender: Any,
    attachments: Any,
    template: str | None,
    context: Mapping[str, Any] | None,
    **others: Any,
) -> Draft:
    """Return the draft that the arguments of `send_mail` describe."""
    if template is not None:
        from .templates import rendered

        if body is not None or html is not None:
            raise TypeError("Pass either template= or body= and html=, not both.")
        refuse_form("context", context)
        body, html = rendered(template, context or {})
    elif context is not None:
        raise TypeError("context= belongs to template=.")
    return Draft(
        **others,
        body=body,
        alternatives={} if html is None else {"html": html},
        sender=sender or current_app.extensions["mail"].default_sender,
        attachments=[attachments] if isinstance(attachments, (str, os.PathLike)) else attachments or (),
    )


def draft_of_message(message: Message) -> Draft:
    """Return the draft that a Flask-Mail Message is, its Message-ID kept."""
    from flask_mail import Message

    return Draft(
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
        # A subclass may sign or encrypt: only it knows how, and it may need what this thread holds.
        finish=None if type(message) is Message else message.as_bytes,
    )


def composed(draft: Draft) -> Composed:
    """Return the checked, complete email; raise for a mistake of the caller."""
    if not draft.sender:
        raise ValueError("The mail has no sender. Pass sender= or set MAIL_DEFAULT_SENDER.")
    problems: list[str] = []
    copies = {name: some_addresses(name, getattr(draft, name), problems) for name in ("to", "cc", "bcc")}
    # A dict, because an address that is given twice gets one email.
    recipients = list({found.spec: None for group in copies.values() for found in group})
    if not recipients and not problems:
        raise ValueError("The mail has no recipient: to, cc and bcc are empty.")
    author = _or_problem(problems, one_address, "sender", draft.sender)
    extra = checked_headers(draft.headers or {})
    if draft.reply_to and any(name.lower() == "reply-to" for name in extra):
        raise ValueError("The header Reply-To would be there twice. Use reply_to=.")
    given_id = extra.pop("Message-ID", None) or checked_header("Message-ID", draft.message_id)
    message_id = given_id or make_msgid(domain=author.spec.rpartition("@")[2] if author else "localhost")
    answer_to = _or_problem(problems, one_address, "reply_to", draft.reply_to) if draft.reply_to else None
    title = _or_problem(problems, checked_line, "subject", draft.subject)
    charset = checked_charset(draft.charset)
    files = [attached_file(attachment, problems) for attachment in draft.attachments]
    refuse_form("alts", draft.alternatives)

    def encodable(name: str, text: Any) -> str | None:
        return _or_problem(problems, lambda name, text: checked_text(name, text, charset), name, text)

    parts = {
        checked_token("alts", subtype): encodable(subtype, text) or "" for subtype, text in draft.alternatives.items()
    }
    body = encodable("body", draft.body)
    date = time.time() if draft.date is None else _checked_date(draft.date)
    mail_options = [checked_option("mail_options", option) for option in draft.mail_options]
    rcpt_options = [checked_option("rcpt_options", option) for option in draft.rcpt_options]
    if problems or author is None or title is None:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        return Unsendable(message_id, "; ".join(problems[:5]) + more)
    mail = OutgoingMail(
        message_id=message_id,
        date=date,
        subject=title,
        sender=author,
        **copies,
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
        content=None,
    )
    if draft.finish is None:
        return mail
    if why := too_long(mail):
        return Unsendable(message_id, why)
    return replace(mail, content=draft.finish())


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
        raise ValueError(f"{date!r} is not the date of an email: pass seconds since the epoch.") from error
    return float(date)
