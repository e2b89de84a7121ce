"""Email addresses: what a caller may pass, and what goes into a header and into an SMTP command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

from .domains import LONGEST_DOMAIN, ascii_domain
from .safe_text import checked_line, shown

# No two parts match the same characters: text from a form may be long, and built to make the pattern backtrack.
_NAMED = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"\s*|(?P<name>[^"<>]*))<(?P<spec>[^<>]*)>')
_LOOKS_LIKE_ONE = re.compile(r"[^\s@]+@[^\s@]+")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")

_LONGEST_TEXT = 256


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address."""

    name: str
    """The display name, "" if there is none."""
    spec: str
    """The bare address, its domain in ASCII: for headers and SMTP commands."""
    value: str | tuple[str, str]
    """For Flask-Mail's Message: as given, in a form that Flask-Mail parses to the same name and address."""


def some_addresses(name: str, value: Any, problems: list[str]) -> list[Address]:
    """
    Return the addresses in `value`: None, one address, or several in any iterable, in their order.

    Adds a reason to `problems` for each text that is not an address. Raises TypeError for a value of another type.
    """
    if value is None:
        return []
    if isinstance(value, str) or _is_pair(value):
        value = [value]
    elif isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an address or a list of them, not {type(value).__name__}.")
    found = []
    for item in value:
        try:
            found.append(_address(name, item))
        except ValueError as error:
            problems.append(str(error))
    return found


def one_address(name: str, value: Any) -> Address:
    """Return the single address in `value`. Raises ValueError for text that is not an address, or is several."""
    return _address(name, value, only=True)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(item, str) for item in value)


def _address(name: str, value: Any, *, only: bool = False) -> Address:
    if isinstance(value, str):
        display, spec = _split(name, _line(name, value), only=only)
    elif isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(item, str) for item in value):
        display, spec = (_line(name, item).strip() for item in value)
        # In to, cc and bcc a tuple is a name and an address, whatever the name looks like, as in Flask-Mail.
        if (only or isinstance(value, list)) and _is_another(display, spec):
            raise ValueError(f"{name}: {shown(display)} and {shown(spec)} are two addresses where one is wanted.")
    else:
        raise TypeError(
            f'{name} takes "user@example.com", "Name <user@example.com>" or ("Name", "user@example.com"), '
            f"not {type(value).__name__}."
        )
    ascii_spec = _ascii(name, spec)
    if not display:
        return Address("", ascii_spec, spec)
    if not isinstance(value, str) and not only:
        return Address(display, ascii_spec, (display, spec))
    # Flask-Mail parses a str with parseaddr(), which reads `Doe, John <...>` as the address "Doe", and recurses for
    # each parenthesis.
    text = value if isinstance(value, str) else f"{display} <{spec}>"
    is_read_well = len(text) < _LONGEST_TEXT and parseaddr(text) == (display, spec)
    return Address(display, ascii_spec, "".join(text) if is_read_well else (display, spec))


def _line(name: str, value: str) -> str:
    return checked_line(f"{name}: {shown(value)}", value)


def _split(name: str, text: str, *, only: bool) -> tuple[str, str]:
    found = _NAMED.fullmatch(text.strip())
    if not found:
        if "," in text or ";" in text:
            raise ValueError(f"{name}: {shown(text)} is no single address. {_instead(only)}")
        return "", text.strip()
    if found["quoted"] is not None:
        return re.sub(r"\\(.)", r"\1", found["quoted"]).strip(), found["spec"].strip()
    display, spec = found["name"].strip(), found["spec"].strip()
    # A comma is part of the name only if the text cannot mean a second address.
    if re.search("[,;]", display) and (not only or "@" in display):
        raise ValueError(
            f'{name}: {shown(text)} may be several addresses. {_instead(only)} Quote a name: "Doe, John" <...>.'
        )
    # Flask-Mail's Message turns a pair of two addresses into such a text.
    if only and _is_another(display, spec):
        raise ValueError(f"{name}: {shown(display)} and {shown(spec)} are two addresses where one is wanted.")
    return display, spec


def _instead(only: bool) -> str:
    return "Only one is wanted." if only else "Pass a list."


def _is_another(display: str, spec: str) -> bool:
    """Return True if the display name is itself an address, other than the one it belongs to."""
    return _LOOKS_LIKE_ONE.fullmatch(display) is not None and display.casefold() != spec.casefold()


def _ascii(name: str, spec: str) -> str:
    local, at, given = spec.rpartition("@")
    if not at:
        raise ValueError(f"{name}: {shown(spec)} is no mail address.")
    if not local.isascii():
        raise ValueError(f"{name}: {shown(spec)} is not ASCII before the @: such addresses are not supported.")
    domain = ascii_domain(given)
    if not domain and not given.isascii() and len(given) <= LONGEST_DOMAIN:
        raise ValueError(
            f"{name}: the domain of {shown(spec)} has letters that mail servers read in different ways, or not at "
            "all. Write the domain in its xn-- form."
        )
    # RFC 5321, 4.5.3.1: 64 octets before the @, and a path of 256 with its brackets.
    fits = len(local) <= 64 and len(local) + len(domain) < 254
    if not (domain and fits and _LOCAL.fullmatch(local)):
        raise ValueError(f"{name}: {shown(spec)} is no mail address.")
    return f"{local}@{domain}"
