"""Signatures: a worker runs only what its own application has sent."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import itsdangerous
from flask import Flask

from ..errors import MessageRefused, NotConfigured
from ..secret_keys import secret_keys
from .message import compact


class Signer:
    """
    Signs messages for a broker with the application's secret key, and refuses those that were not signed with it.

    Without a signature anybody who can write to the broker could make a worker call functions. Signed is not encrypted:
    anybody who can read the broker can read the arguments. `SECRET_KEY_FALLBACKS` are accepted, so that keys can be
    rotated.
    """

    def __init__(self, app: Flask) -> None:
        if not app.secret_key:
            raise NotConfigured("Tasks for other processes are signed: set SECRET_KEY, the same for web and workers.")
        # The last one signs; all of them verify.
        self._keys = secret_keys(app)
        self._app_name = app.name

    def is_current(self, app: Flask) -> bool:
        """Return True if it signs with the keys that `app` has now."""
        return self._keys == secret_keys(app)

    def sign(self, payload: Mapping[str, Any], purpose: str) -> str:
        """Return `payload` as signed JSON, accepted for this `purpose` and this application only."""
        return self.sign_text(compact(payload), purpose)

    def sign_text(self, text: str, purpose: str) -> str:
        """Do what `sign` does, with a payload that is JSON already."""
        signer = self._signer(purpose)
        # What its `sign` does, whose many steps take as long as the signature itself.
        signature = signer.algorithm.get_signature(signer.secret_keys[-1], text.encode())
        return f"{text}.{itsdangerous.encoding.base64_encode(signature).decode()}"

    def verify(self, signed: object, purpose: str) -> dict[str, Any]:
        """Return the payload; MessageRefused if it is unsigned, forged, or signed for another purpose."""
        if not isinstance(signed, str):
            raise MessageRefused("The message is not a signed text.")
        try:
            payload = json.loads(self._signer(purpose).unsign(signed))
        except (itsdangerous.BadData, ValueError) as error:
            raise MessageRefused(
                f"The message is not signed by {self._app_name!r} with a key that is valid."
            ) from error
        if not isinstance(payload, dict):
            raise MessageRefused("The message is malformed.")
        return payload

    def _signer(self, purpose: str) -> itsdangerous.Signer:
        # What is signed for one task only would fill the cache with keys that never come again.
        make = _derived.__wrapped__ if ":" in purpose else _derived
        return make(self._keys, f"flask_asok:{purpose}:{self._app_name}")


@functools.lru_cache(maxsize=16)
def _derived(keys: tuple[Any, ...], salt: str) -> itsdangerous.Signer:
    """Return the signer of one purpose. To derive its keys takes longer than to sign, so they are kept."""
    signer = itsdangerous.Signer(keys, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
    derived = [signer.derive_key(key) for key in signer.secret_keys]
    return itsdangerous.Signer(derived, salt=salt, key_derivation="none", algorithm=_KeysKept())


class _KeysKept(itsdangerous.HMACAlgorithm):
    """The same signatures, by copies of what each key makes of nothing: to begin anew takes longer than a signature."""

    def __init__(self) -> None:
        super().__init__(hashlib.sha256)
        self._begun: dict[bytes, hmac.HMAC] = {}

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = hmac.new(key, digestmod="sha256")
        signature = begun.copy()
        signature.update(value)
        return signature.digest()
