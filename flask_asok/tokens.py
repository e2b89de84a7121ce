"""Tokens of forms: they prove that one of our pages has offered exactly this step to its visitor."""

from __future__ import annotations

import hashlib

from flask import Flask
from itsdangerous import BadData, URLSafeTimedSerializer

from .errors import NotConfigured
from .secret_keys import secret_keys

KEEP_SECONDS = 86_400
"""How long a token is good for."""


def make_token(app: Flask, purpose: str, id: str) -> str:
    """Return a token for one purpose and one id; NotConfigured where the app has no SECRET_KEY."""
    return _serializer(app, purpose).dumps(id)


def is_valid_token(app: Flask, token: str, purpose: str, id: str) -> bool:
    """Return True if the token was made for this purpose and this id, by this app, within the last day."""
    try:
        found: object = _serializer(app, purpose).loads(token, max_age=KEEP_SECONDS)
    except (BadData, UnicodeError):
        return False
    return found == id


def need_secret_key(app: Flask, what: str) -> None:
    """Raise NotConfigured, which says that `what` needs it, where the app has no SECRET_KEY."""
    if not app.secret_key:
        raise NotConfigured(f"{what} needs app.config['SECRET_KEY'], which signs the tokens of its forms.")


def _serializer(app: Flask, purpose: str) -> URLSafeTimedSerializer:
    need_secret_key(app, "A form")
    return URLSafeTimedSerializer(
        secret_keys(app), salt=f"asok:{app.name}:{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
    )
