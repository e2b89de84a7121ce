"""Mail addresses: what a caller may pass, and what goes into a header and into an SMTP command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parseaddr
from typing import Any, NamedTuple

from .checks import checked_line

Address = str | tuple[str, str]
"""As Flask-Mail takes it: `"user@example.com"`, `"Name <user@example.com>"` or `("Name", "user@example.com")`."""

# No two parts of it match the same letters: texts from a form may be long, and made to be tried in every way.
_NAMED = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"\s*|(?P<name>[^"<>]*))<(?P<spec>[^<>]*)>')
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f.:]+\]|\[IPv6:[0-9A-Fa-f.:]+\]")

_LONGEST_TEXT = 256


class Found(NamedTuple):
    """A checked address."""

    value: Address
    """For the headers, in the form that Flask-Mail writes correctly."""
    ascii: str
    """For the SMTP command: the bare address, its domain in ASCII."""


def some_addresses(name: str, value: Any) -> list[Found]:
    """Return the addresses in `value`: None, one address, or several in any iterable."""
    if value is None:
        return []
    if isinstance(value, str) or _is_pair(value):
        return [_address(name, value)]
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an address or a list of them, not {type(value).__name__}.")
    return [_address(name, item) for item in value]


def one_address(name: str, value: Any) -> Found:
    """Return the one address `value`."""
    return _address(name, value, only=True)


def _is_pair(value: Any) -> bool:
    """Whether a tuple is (name, address) and not two addresses."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(item, str) for item in value)
        and "@" not in value[0]
    )


def _address(name: str, value: Any, *, only: bool = False) -> Found:
    if isinstance(value, str):
        display, spec = _split(name, checked_line(name, value), only=only)
    elif isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(item, str) for item in value):
        display, spec = (checked_line(name, item).strip() for item in value)
    else:
        raise TypeError(
            f'{name} takes "user@example.com", "Name <user@example.com>" or ("Name", "user@example.com"), '
            f"not {type(value).__name__}."
        )
    ascii_spec = _ascii(name, spec)
    if not display:
        return Found(spec, ascii_spec)
    if not isinstance(value, str) and not only:
        return Found((display, spec), ascii_spec)
    # Flask-Mail reads a str with parseaddr(), which takes `Doe, John <...>` for the address "Doe", and calls itself for
    # each parenthesis.
    text = value if isinstance(value, str) else f"{display} <{spec}>"
    is_read_well = len(text) < _LONGEST_TEXT and parseaddr(text) == (display, spec)
    return Found(text if is_read_well else (display, spec), ascii_spec)


def _split(name: str, text: str, *, only: bool) -> tuple[str, str]:
    found = _NAMED.fullmatch(text.strip())
    if not found:
        if "," in text or ";" in text:
            raise ValueError(f"{name}: {text!r} is no single address. Pass a list.")
        return "", text.strip()
    if found["quoted"] is not None:
        return re.sub(r"\\(.)", r"\1", found["quoted"]).strip(), found["spec"].strip()
    display = found["name"].strip()
    # Only where no second address can be meant is a comma part of the name.
    if re.search("[,;]", display) and (not only or "@" in display):
        raise ValueError(f'{name}: {text!r} may be several addresses. Pass a list; quote a name: "Doe, John" <...>.')
    return display, found["spec"].strip()


def _ascii(name: str, spec: str) -> str:
    local, at, domain = spec.rpartition("@")
    if not at:
        raise ValueError(f"{name}: {spec!r} is no mail address.")
    if not local.isascii():
        raise ValueError(f"{name}: {spec!r} is not ASCII before the @: Flask-Mail cannot send it.")
    try:
        domain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    # RFC 5321, 4.5.3.1: 64 octets before the @, and a path of 256 with its brackets.
    fits = len(local) <= 64 and len(local) + len(domain) < 254
    if not (fits and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain)):
        raise ValueError(f"{name}: {spec!r} is no mail address.")
    return f"{local}@{domain}"
