"""Sign and verify as Standard Webhooks 1.0.0 specifies: HMAC-SHA256 over `id.timestamp.body`."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence

from flask import current_app, has_app_context
from werkzeug.datastructures import Headers

from ...state import KEY
from .errors import WebhookNotVerified

PREFIX = "whsec_"
TOLERANCE = 300
"""Seconds that the sender's clock and the network may be off: five minutes."""

Secret = str | Sequence[str]
"""A `whsec_...` secret, or the name of an entry of `ASOK_WEBHOOK_SECRETS`; or several, the newest first."""


class UnknownSecret(ValueError):
    """Raised for the name of a secret that the current app does not know."""


def is_literal(secret: str) -> bool:
    """Return True for a secret itself, False for the name of one."""
    return secret.startswith(PREFIX)


def listed(secret: Secret | None) -> tuple[str, ...]:
    """Return `secret` as a tuple, empty for None; TypeError if it is neither a str nor a list of them."""
    if secret is None:
        return ()
    secrets = (secret,) if isinstance(secret, str) else tuple(secret) if isinstance(secret, Iterable) else ()
    if not secrets or not all(isinstance(each, str) for each in secrets):
        raise TypeError("secret must be a str or a list of them, the newest first.")
    return secrets


def keys(secrets: Sequence[str]) -> list[bytes]:
    """
    Return the keys of `secrets`, names looked up in `ASOK_WEBHOOK_SECRETS` of the current app.

    Raises ValueError for an invalid secret and for an unknown name, and quotes neither.
    """
    all_keys: list[bytes] = []
    for secret in secrets:
        all_keys += literal_keys((secret,) if is_literal(secret) else _named(secret))
    return all_keys


def literal_keys(secrets: Sequence[str]) -> list[bytes]:
    """Return the keys of `whsec_` secrets; ValueError, which quotes none, if one is invalid."""
    return [_key(secret) for secret in secrets]


def _named(name: str) -> tuple[str, ...]:
    configured: Mapping[str, tuple[str, ...]] = {}
    if has_app_context() and KEY in current_app.extensions:
        configured = current_app.extensions[KEY].config["ASOK_WEBHOOK_SECRETS"]
    if not configured.get(name):
        # The text does not quote the name: it may be a secret that lost its prefix.
        raise UnknownSecret(
            "secret must begin with whsec_, or be the name of an entry of ASOK_WEBHOOK_SECRETS of the current app."
        )
    return configured[name]


def _key(secret: str) -> bytes:
    if is_literal(secret):
        try:
            key = base64.b64decode(secret[len(PREFIX) :], validate=True)
        except (binascii.Error, ValueError):
            key = b""
        # Encoded again: base64 has spare bits at its end, which the decoder ignores.
        if 24 <= len(key) <= 64 and base64.b64encode(key).decode() == secret[len(PREFIX) :]:
            return key
    raise ValueError('A webhook secret is "whsec_" and the base64 of 24 to 64 random bytes.')


def sign(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, separated by spaces."""
    content = f"{id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)


def verify_webhook(
    headers: Mapping[str, str] | Headers,
    body: bytes | str,
    secret: Secret,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> str:
    """
    Check that a webhook was signed with `secret` within the last five minutes; return its id.

    `headers` are the request's (`request.headers`, or any mapping; case does not matter), `body` its bytes exactly as
    they came (`request.get_data()`). The id stays the same when the sender tries again: keep it to do the work once.
    `now` is the time as `time.time()` gives it.

    Raises WebhookNotVerified, whatever the request holds; ValueError only for an invalid `secret`.
    """
    known = keys(listed(secret))
    webhook_id, timestamp, signatures = (
        _header(headers, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    if not known:
        raise ValueError("verify_webhook needs a secret.")
    if not (webhook_id and timestamp and signatures):
        raise WebhookNotVerified(
            "The headers webhook-id, webhook-timestamp and webhook-signature must all be there, each once."
        )
    if "." in webhook_id:
        # The same signed content could be split differently: an id that ends with the time, a shorter body.
        raise WebhookNotVerified("The header webhook-id must not hold a full stop.")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise WebhookNotVerified("The header webhook-timestamp must be whole seconds.")
    if not abs((time.time() if now is None else now) - int(timestamp)) <= tolerance:
        raise WebhookNotVerified(f"The header webhook-timestamp is more than {tolerance:g} s off.")
    try:
        content = f"{webhook_id}.{timestamp}.".encode() + (body.encode() if isinstance(body, str) else body)
    except UnicodeEncodeError:
        raise WebhookNotVerified("The webhook is not UTF-8.") from None
    given_digests = [_digest(signature) for signature in signatures.split(" ")]
    verified = False
    for key in known:
        digest = hmac.digest(key, content, "sha256")
        for each in given_digests:
            verified |= hmac.compare_digest(digest, each)
    if not verified:
        raise WebhookNotVerified("No signature of the webhook matches.")
    return webhook_id


def _header(headers: Mapping[str, str] | Headers, name: str) -> str:
    """Return the value of the header; "" if it is missing, or there twice: another reader may take the other one."""
    values = [value for key, value in headers.items() if isinstance(key, str) and key.lower() == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""


def _digest(signature: str) -> bytes:
    version, _, text = signature.partition(",")
    try:
        return base64.b64decode(text, validate=True) if version == "v1" else b""
    except (binascii.Error, ValueError):
        return b""
