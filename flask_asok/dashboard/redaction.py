"""The arguments of a stored call, as far as the dashboard may show them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

from ..logs import log_exception
from ..messages.serializer import TAG
from ..results import packer_of

Arguments = bool | Callable[[str, Any], Any]
"""False, True, or a function of a name and a value, which returns what is shown in place of the value."""

SECRET_WORDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "auth", "credential", "cookie",
    "session", "api_key", "apikey", "access_key", "private_key", "signature", "otp", "pin", "card", "cvv", "iban",
)  # fmt: skip
"""A name with one of these in it is of a secret."""

ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#@]*)", re.IGNORECASE)

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
        (name or "(unnamed)", _text(_redacted(name, value, arguments)))
        for name, value in [*pairs, *message.kwargs.items()][:MOST]
    ]


def _names_of(fn: Callable[..., Any]) -> list[str]:
    return [
        one.name
        for one in inspect.signature(fn).parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return any(word in plain for word in SECRET_WORDS)


def _redacted(name: str, value: Any, arguments: Arguments) -> Any:
    # What has no name may be anything.
    if not name or _is_secret(name):
        return HIDDEN
    if callable(arguments):
        try:
            value = arguments(name, value)
        except Exception as error:  # of the application's function
            log_exception("arguments= of the dashboard failed: %r", error)
            return HIDDEN
    return _within(value)


def _within(value: Any) -> Any:
    """Return a value as JSON has it, without its secrets; what stands for another kind is shown as its data."""
    if isinstance(value, dict) and TAG in value:
        return {value[TAG]: _within(value.get(""))}
    if isinstance(value, dict):
        return {str(key): HIDDEN if _is_secret(str(key)) else _within(item) for key, item in _first(value.items())}
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and _is_secret(value[0]):
            # An item of a form, or of a dict whose keys are no texts.
            return [value[0], HIDDEN]
        return [_within(item) for item in _first(value)]
    if isinstance(value, str) and (address := ADDRESS.match(value)):
        # Its path and query, or its user, may be the secret.
        return f"{address[1]}{address[2]}/..."
    return value


def _first(items: Any) -> Iterator[Any]:
    return (item for _, item in zip(range(MOST), items, strict=False))


def _text(value: Any) -> str:
    text = (
        value if isinstance(value, str) and value in (HIDDEN,) else json.dumps(value, ensure_ascii=False, default=str)
    )
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
