"""How long the texts may be that Flask-Mail itself writes, for a Message of a class of the application's own."""

from __future__ import annotations

from .outgoing import OutgoingMail
from .safe_text import shown

_LONGEST_NAME = 300
"""
Characters of the name in an address.

The standard library needs a third of a millisecond for each, and Flask-Mail two nested calls for each parenthesis.
"""
_LONGEST_TEXT = 20_000
"""Characters of a subject, a file name or a further header, for half a second."""


def too_long(mail: OutgoingMail) -> str | None:
    """Return what is too long, as a visitor may have typed it; None if nothing is."""
    people = [mail.sender, *mail.to, *mail.cc, *mail.bcc, *([mail.reply_to] if mail.reply_to else [])]
    texts = [("a name", person.name, _LONGEST_NAME) for person in people]
    texts.append(("the subject", mail.subject, _LONGEST_TEXT))
    texts += [(f"the header {name}", text, _LONGEST_TEXT) for name, text in mail.headers.items()]
    for file in mail.attachments:
        texts.append(("the name of an attachment", file.filename or "", _LONGEST_TEXT))
        texts += [(f"the header {name}", text, _LONGEST_TEXT) for name, text in file.headers.items()]
    for what, text, longest in texts:
        if len(text) > longest:
            return f"{what}, {shown(text)}, has more than {longest:,} characters, which take Flask-Mail too long."
    return None
