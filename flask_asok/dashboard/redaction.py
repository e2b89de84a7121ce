"""The arguments of a stored call, as far as the dashboard may show them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

from ..callables import really_called
from ..logs import log_exception
from ..messages.serializer import TAG
from ..results import packer_of

Arguments = bool | Callable[[str, Any], Any]
"""False, True, or a function of a name and a value, which returns what is shown in place of the value."""

SECRET_WORDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "auth", "credential", "cookie",
    "session", "signature", "otp", "pin", "card", "cvv", "iban", "passcode", "bearer", "jwt",
)  # fmt: skip
"""A name with one of these in it is of a secret."""

SECRET_KEYS = ("apikey", "accesskey", "privatekey", "signingkey", "encryptionkey")
"""And one with these in its letters: `api_key`, `apiKey`, `API key`."""

HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d*)?", re.IGNORECASE)
"""The host of an address, and its port."""

NAMES = ("bytes", "tuple", "enum")
"""The kinds of keys, beside texts, that may name a secret."""

HIDDEN = "(hidden)"
UNREADABLE = "(cannot be read)"

LONGEST = 200
"""Characters of a value that are shown."""

MOST = 50
"""Arguments that are shown, and parts of one."""


def shown_arguments(app: Flask, id: str, signed: str, arguments: Arguments) -> list[tuple[str, str]]:
    """Return the names and the shown values of the arguments of a stored message."""
    packer = packer_of(app)
    try:
        message = packer.read_for(id, signed)
    except Exception as error:  # of a message that is not ours, or of a missing key
        return [("", f"{UNREADABLE}: {type(error).__name__}")]
    try:
        names = _names_of(packer.names.find(message.fn))
    except Exception:  # of the application's code, which may have changed
        names = []
    pairs = [(names[n] if n < len(names) else "", value) for n, value in enumerate(message.args)]
    return [
        (name or "(unnamed)", _redacted(name, value, arguments))
        for name, value in [*pairs, *message.kwargs.items()][:MOST]
    ]


def _names_of(fn: Callable[..., Any]) -> list[str]:
    """Return the names of positional arguments: those of a wrapper itself, which may call what it wraps with others."""
    called, filled, _ = really_called(fn, (), {})
    return list(called.__code__.co_varnames[len(filled) : called.__code__.co_argcount])


def _is_secret(name: str) -> bool:
    plain = name.casefold()
    letters = re.sub(r"[\W_]", "", plain)
    return any(word in plain for word in SECRET_WORDS) or any(word in letters for word in SECRET_KEYS)


def _redacted(name: str, value: Any, arguments: Arguments) -> str:
    # What has no name may be anything.
    if not name or _is_secret(name):
        return HIDDEN
    if not callable(arguments):
        return _text(_within(value))
    try:
        return _text(_within(arguments(name, value)))
    except Exception as error:  # of the application's function, or of what it returned
        log_exception("arguments= of the dashboard failed: %r", error)
        return HIDDEN


def _within(value: Any) -> Any:
    """Return a value as JSON has it, without its secrets; what stands for another kind is shown as its data."""
    if isinstance(value, dict) and TAG in value:
        kind: Any = value[TAG]
        data: Any = value.get("")
        return {kind: _within_bytes(base64.b64decode(data)) if kind in ("bytes", "bytearray") else _within(data)}
    if isinstance(value, dict):
        return {
            _key(str(key)): HIDDEN if _is_secret(str(key)) else _within(item) for key, item in _first(value.items())
        }
    if isinstance(value, (list, tuple)):
        shown = [_within(item) for item in _first(value)]
        if len(value) == 2 and _is_secret(_name_in(value[0])):
            # An item of a form, or of a dict whose keys are no texts.
            return [shown[0], HIDDEN]
        return shown
    return _within_text(value) if isinstance(value, str) else value


def _key(text: str) -> str:
    found = _within_text(text)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _within_text(text: str) -> Any:
    found = _within_json(text)
    return _without_path(text) if found is None else found


def _within_bytes(data: bytes) -> Any:
    """Return what is shown of bytes, such as the body of a webhook: JSON, or how many there are."""
    found = _within_json(data)
    return f"({len(data):,} bytes)" if found is None else found


def _within_json(text: str | bytes) -> Any:
    """Return an object or a list that is written as JSON, without its secrets; None for any other text."""
    try:
        found = json.loads(text)
        return _within(found) if isinstance(found, (dict, list)) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _name_in(value: Any) -> str:
    """Return what may be a name of a secret, as a text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or value.get(TAG) not in NAMES:
        return ""
    data: Any = value.get("")
    return base64.b64decode(data).decode(errors="replace") if value[TAG] == "bytes" else str(data)


def _without_path(text: str) -> str:
    """Return a text up to the host of the first address in it: what follows, or its user, may be the secret."""
    before, mark, rest = text.partition("://")
    if not mark:
        return text
    authority = re.split(r"[/?#\\\s\"'<>]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    # A password may have a slash in it: then that was not the host.
    is_host = "@" not in rest[len(authority) :] and HOST.fullmatch(host)
    return f"{before}://{host}/..." if is_host else f"{before}://..."


def _first(items: Any) -> Iterator[Any]:
    return (item for _, item in zip(range(MOST), items, strict=False))


def _text(value: Any) -> str:
    text = (
        value if isinstance(value, str) and value in (HIDDEN,) else json.dumps(value, ensure_ascii=False, default=str)
    )
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
