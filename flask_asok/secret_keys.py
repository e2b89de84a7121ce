"""The keys that an application signs with, and those that it still accepts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import Flask

from .errors import NotConfigured

Key = str | bytes


def secret_keys(app: Flask) -> tuple[Any, ...]:
    """Return `SECRET_KEY_FALLBACKS` and, last, the `SECRET_KEY`, which signs. NotConfigured says what is wrong."""
    older: object = app.config.get("SECRET_KEY_FALLBACKS") or ()
    # Of a str each letter would be a key, and an empty one is known to all: anybody could sign.
    if isinstance(older, Key) or not isinstance(older, Collection) or not all(map(_is_key, older)):
        raise NotConfigured("SECRET_KEY_FALLBACKS must be a list of keys, each a str or bytes that is not empty.")
    return (*older, app.secret_key)


def _is_key(value: object) -> bool:
    return isinstance(value, Key) and len(value) > 0
