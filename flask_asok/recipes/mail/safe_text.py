"""Check text, so that nothing in it ends a header or an SMTP command early."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.charset import Charset
from typing import Any

from flask_mail import BadHeaderError

from ...validate import single_values

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
"""RFC 5322, 3.6.8: printable ASCII except the colon; at most as long as a line of an encoded header."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]+")

LONGEST_LINE = 900
"""Octets. Past the 998 of RFC 5322, 2.1.1, servers refuse the email or cut the line."""

_LONGEST_SHOWN = 200

_UTF_8 = Charset("utf-8")
_LONGEST_CHUNK = 39
"""Octets of text in an encoded word, which may have 75 characters."""

BREAKABLE: re.Pattern[str] = re.compile(r"(?<![ \t])[ \t]*[^ \t]+")
"""
The smallest piece of a header that can be a line: a word and the space before it.

It begins in no other place: space at the end, which no word follows, would be read again from each of its characters.
"""

_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")

_OWN_HEADERS = {
    "from": "sender=",
    "to": "to=",
    "cc": "cc=",
    "bcc": "bcc=",
    "subject": "subject=",
    "date": "nothing, it is set",
    "mime-version": "nothing, it is set",
    "content-type": "body=, html= and attachments=",
    "content-transfer-encoding": "nothing, it is set",
    "content-disposition": "the attachment's disposition",
}
"""Headers that would appear twice, and what to use instead."""


class HeaderInjectionError(ValueError, BadHeaderError):
    """Raised for a control character, such as a line break, that would turn text into a header or a command."""


def shown(text: str) -> str:
    """Return text that a visitor may have typed, for an error and the log: on one line, cut at 200 characters."""
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def checked_line(name: str, value: Any) -> str:
    """Return `value` as one line of text. A lazy string, such as a translation, is evaluated in this thread."""
    text = checked_text(name, value) or ""
    if found := _CONTROL.search(text):
        raise HeaderInjectionError(f"{name} holds the control character {found[0]!r}: it must be one line of text.")
    return text


def checked_text(name: str, value: Any, charset: str | None = None) -> str | None:
    """Return `value` as a plain str that `charset` (UTF-8 when None) can encode, or None for None."""
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be text, not {type(value).__name__}: decode it first.")
    text = "".join(str(value))
    try:
        text.encode(charset or "utf-8")
    except (UnicodeEncodeError, LookupError) as error:
        raise ValueError(f"{name} cannot be encoded: {error}") from error
    return text


def checked_charset(value: Any) -> str | None:
    """Return a character set that a text part may use; None, which means UTF-8, for None."""
    if value is None:
        return None
    if not isinstance(value, str) or not _CHARSET.fullmatch(value):
        raise HeaderInjectionError(f"{value!r} is no character set.")
    try:
        # UTF-16 encodes line ends differently from SMTP.
        return value if "\r\n".encode(value) == b"\r\n" else None
    except LookupError as error:
        raise ValueError(f"The body cannot be encoded: {error}") from error


def encoded_words(text: str) -> str:
    """Return `text` as encoded words (RFC 2047), one per line. Python's Header drops U+2028 and similar."""
    chunks, size = [""], 0
    for char in text:
        size += len(char.encode())
        if size > _LONGEST_CHUNK:
            chunks.append("")
            size = len(char.encode())
        chunks[-1] += char
    return "\r\n ".join(_UTF_8.header_encode(chunk) for chunk in chunks)


def checked_token(name: str, value: Any) -> str:
    """Return a MIME subtype."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise HeaderInjectionError(f"{name}: {value!r} is no MIME subtype.")
    return value


def checked_option(name: str, value: Any) -> str:
    """Return an option of the MAIL or RCPT command: one word, since more could start another command."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise HeaderInjectionError(f"{name}: {value!r} is no SMTP parameter.")
    return value


def checked_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return further headers, ready to be written; the Message-ID in this spelling."""
    refuse_form("headers", headers)
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
            raise HeaderInjectionError(f"{name!r} is no name of a header.")
        if instead := _OWN_HEADERS.get(name.lower()):
            raise ValueError(f"The header {name} would be there twice. Use {instead}.")
        if any(name.lower() == other.lower() for other in checked):
            raise ValueError(f"The header {name} is there twice.")
        name = "Message-ID" if name.lower() == "message-id" else name
        text = checked_header(name, value)
        checked[name] = text if text.isascii() else encoded_words(text)
    return checked


def refuse_form(name: str, value: object) -> None:
    """Raise TypeError for a dict with several values per key. `Headers` is not a dict: iteration shows every value."""
    if isinstance(value, Mapping):
        single_values(f"The {name} of an email", value, takes_lists=False)


def checked_header(name: str, value: Any) -> str:
    """Return the text of a header that is written unchanged."""
    text = checked_line(f"The header {name}", value)
    # With a character at the end: trailing space alone would become a line of its own, which is empty.
    longest = max(map(len, BREAKABLE.findall(text + ".")))
    if text.isascii() and longest > LONGEST_LINE:
        raise ValueError(
            f"The header {name} has a word of {LONGEST_LINE} letters or more: no line of an email holds it."
        )
    return text
