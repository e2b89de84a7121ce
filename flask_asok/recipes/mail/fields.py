"""The header fields of an email: encoded, quoted, and folded into lines that every server accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.policy import Policy
from urllib.parse import quote

from .addresses import Address
from .safe_text import BREAKABLE, LONGEST_LINE, encoded_words

_WIDTH = 76

_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$&'*+/^_`{|}~-]+)*")
_LONGEST_NAME = 200

# Some clients, and Python's older parser, misread backslash escapes.
_QUOTABLE = re.compile(r"[!#-\[\]-~](?:[ !#-\[\]-~]*[!#-\[\]-~])?")


class Field(str):
    """A header in its final form: EmailMessage keeps a value that has a `name`, and calls its `fold()`."""

    name: str

    def __new__(cls, name: str, text: str) -> Field:
        field = super().__new__(cls, text)
        field.name = name
        return field

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


def unstructured(name: str, text: str) -> Field:
    """Return a header of free text, such as the subject."""
    words = BREAKABLE.findall(text)
    is_plain = text.isascii() and "=?" not in text and text == text.strip() and max(map(len, words), default=0) < _WIDTH
    return Field(name, _folded(name, words) if is_plain else encoded_words(text))


def verbatim(name: str, text: str) -> Field:
    """Return a header for programs to read: folded between words, never encoded if it is ASCII."""
    if "\r\n" in text:
        return Field(name, text)
    if not text.isascii():
        return Field(name, encoded_words(text))
    return Field(name, _folded(name, BREAKABLE.findall(text.strip())))


def addresses(name: str, values: Iterable[Address]) -> Field:
    """Return a header of addresses, in their order."""
    pieces = [_mailbox(value) for value in values]
    return Field(name, _folded(name, [f" {piece}," for piece in pieces[:-1]] + [f" {piece}" for piece in pieces[-1:]]))


def disposition(value: str, filename: str | None) -> Field:
    """Return a Content-Disposition; a name that is not plain ASCII is encoded by RFC 2231."""
    if not filename:
        return Field("Content-Disposition", value)
    if _QUOTABLE.fullmatch(filename) and "=?" not in filename and len(filename) < LONGEST_LINE:
        parameters = [f'filename="{filename}"']
    else:
        parameters = _extended("filename", filename)
    return Field("Content-Disposition", _folded("Content-Disposition", _parameters(value, parameters)))


def _parameters(value: str, parameters: list[str]) -> list[str]:
    return [f" {piece};" for piece in (value, *parameters[:-1])] + [f" {parameters[-1]}"]


def _extended(name: str, text: str) -> list[str]:
    whole = "utf-8''" + quote(text, safe="")
    if len(whole) < LONGEST_LINE:
        # In one piece if a line can hold it, since not every client joins pieces.
        return [f"{name}*={whole}"]
    # Only the first piece names the character set.
    pieces = [quote(text[start : start + 60], safe="") for start in range(0, len(text), 60)]
    return [f"{name}*{number}*={piece if number else whole[:7] + piece}" for number, piece in enumerate(pieces)]


def _mailbox(address: Address) -> str:
    if not address.name:
        return address.spec
    shown = address.name
    is_short = len(shown) <= _LONGEST_NAME and shown.isascii() and shown.isprintable() and "=?" not in shown
    if is_short and not _PLAIN_NAME.fullmatch(shown):
        shown = '"' + re.sub(r'(["\\])', r"\\\1", shown) + '"'
    elif not is_short:
        shown = encoded_words(shown)
    return f"{shown} <{address.spec}>"


def _folded(name: str, pieces: Iterable[str]) -> str:
    """Join pieces into lines of about 76 characters; each piece but the first starts with its leading space."""
    lines, line = [], f"{name}: "
    for number, piece in enumerate(pieces):
        if number == 0:
            line += piece.lstrip()
        elif len(line) + len(piece) <= _WIDTH:
            line += piece
        else:
            lines.append(line)
            line = piece
        # A piece may itself contain line breaks.
        *whole, line = line.split("\r\n")
        lines += whole
    return "\r\n".join([*lines, line])[len(name) + 2 :]
