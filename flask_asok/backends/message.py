"""What travels to another process: a call, its function by name, its values as JSON, all of it signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from flask import Flask
from itsdangerous import BadData, Signer

from ..errors import MessageRefused, NotConfigured
from .codec import Codec
from .names import Names

__all__ = ["Codec", "Names", "Seal"]


_compact = json.JSONEncoder(separators=(",", ":")).encode


def size_of(part: Any) -> int:
    """Return the bytes of a part of a message."""
    # No more than the characters: what is not ASCII is escaped.
    return len(_compact(part))


def check_size(message: Mapping[str, Any], most: int) -> None:
    """Raise ValueError, which names the largest argument, for a message of more than `most` bytes."""
    size = size_of(message)
    if size <= most:
        return
    name = message["name"]
    parts = {f"argument {n} of {name}": part for n, part in enumerate(message["args"], 1)}
    parts |= {f"argument {key!r} of {name}": part for key, part in message["kwargs"].items()}
    parts |= {f"g.{key}": part for key, part in message["g"].items()}
    sizes = {where: size_of(part) for where, part in parts.items()}
    largest = max(sizes, key=lambda where: sizes[where], default="")
    raise ValueError(
        f"The message of {name} would have {size:,} bytes, more than ASOK_MESSAGE_MAX_BYTES ({most:,}); {largest} has "
        f"{sizes.get(largest, 0):,}. Pass a path or an id, by which the task finds what it needs."
    )


class Seal:
    """
    Signs what is handed to a broker with the application's secret key, and refuses what was not.

    Without it whoever can write to the broker could have a worker call functions. Signed, not encrypted: who can read
    the broker can read the arguments. `SECRET_KEY_FALLBACKS` are accepted, so that keys can be rotated.
    """

    def __init__(self, app: Flask) -> None:
        if not app.secret_key:
            raise NotConfigured("Tasks for other processes are signed: set SECRET_KEY, the same for web and workers.")
        # The newest comes last; that one signs.
        keys = [*reversed(app.config.get("SECRET_KEY_FALLBACKS") or []), app.secret_key]
        self._app_name = app.name
        self._keys = keys

    def close(self, payload: Mapping[str, Any], purpose: str) -> str:
        """Return `payload` as signed JSON, good for `purpose` and this application only."""
        return self._signer(purpose).sign(_compact(payload)).decode()

    def open(self, sealed: object, purpose: str) -> dict[str, Any]:
        """Return the payload; MessageRefused where it is unsigned, forged, or meant for something else."""
        if not isinstance(sealed, str):
            raise MessageRefused("The message is not a signed text.")
        try:
            payload = json.loads(self._signer(purpose).unsign(sealed))
        except (BadData, ValueError) as error:
            raise MessageRefused(
                f"The message is not signed by {self._app_name!r} with a key that is valid."
            ) from error
        if not isinstance(payload, dict):
            raise MessageRefused("The message is malformed.")
        return payload

    def _signer(self, purpose: str) -> Signer:
        return Signer(
            self._keys,
            salt=f"flask_asok:{purpose}:{self._app_name}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
