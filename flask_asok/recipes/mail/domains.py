"""Names of email domains and of this machine, in ASCII."""

from __future__ import annotations

import re
import unicodedata

# RFC 1035, 2.3.4: 63 octets at most, and Python looks up no longer one.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f.:]+\]|\[IPv6:[0-9A-Fa-f.:]+\]")

LONGEST_DOMAIN = 255
"""Octets: RFC 5321, 4.5.3.1.2."""
_MOST_CHARACTERS = 4
"""A letter with its accents may be given as so many characters for one."""

_LETTERS = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
"""General categories of the characters that IDNA 2008 allows; 2003 allows symbols as well."""

_RETIRED = re.compile(
    "[\u0640\u07fa\u1100-\u11ff\u17b4\u17b5\u180b-\u180f\u20d0-\u20ff\u302e\u302f\u3031-\u3035\u303b"
    "\ua960-\ua97f\ud7b0-\ud7ff\U0001d100-\U0001d24f]"
)
"""Letters that IDNA 2008 disallows again (RFC 5892, 2.6 and 2.9)."""


def ascii_domain(domain: str) -> str:
    """
    Return a domain, or an address in brackets, in ASCII; "" for an invalid one.

    Also "" for a name that IDNA 2003 and IDNA 2008 read differently, such as one with ß or full-width letters: it may
    stand for two domains of two owners.
    """
    if len(domain) > LONGEST_DOMAIN * _MOST_CHARACTERS:
        # Before each character is looked at: a visitor may have typed thousands.
        return ""
    if not domain.isascii():
        domain = _encoded(domain)
    return domain if len(domain) <= LONGEST_DOMAIN and _DOMAIN.fullmatch(domain) else ""


def _encoded(domain: str) -> str:
    plain = unicodedata.normalize("NFC", domain.lower())
    if not all(label.isascii() or _is_agreed(label) for label in plain.split(".")):
        return ""
    try:
        # Python's codec is IDNA 2003. If decoding gives another name, IDNA 2008 reads it differently, or not at all.
        encoded = plain.encode("idna")
        return encoded.decode("ascii") if encoded.decode("idna") == plain else ""
    except UnicodeError:
        return ""


def _is_agreed(label: str) -> bool:
    """Return True if IDNA 2008, too, allows every character of the label unchanged (RFC 5891, 4.2.3)."""
    return (
        all(re.fullmatch("[a-z0-9-]", char) if char.isascii() else _is_letter(char) for char in label)
        and not label.startswith("-")
        and not label.endswith("-")
        and label[2:4] != "--"
        and not unicodedata.category(label[0]).startswith("M")
        and _reads_one_way(label)
    )


def _is_letter(char: str) -> bool:
    stable = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold())
    return stable == char and unicodedata.category(char) in _LETTERS and not _RETIRED.fullmatch(char)


def _reads_one_way(label: str) -> bool:
    """Return True if the label does not mix writing directions (RFC 5893, 2)."""
    directions = [unicodedata.bidirectional(char) for char in label]
    if {"R", "AL", "AN"}.isdisjoint(directions):
        return True
    return directions[0] in ("R", "AL") and "L" not in directions
