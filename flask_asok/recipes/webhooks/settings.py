"""The `ASOK_WEBHOOK_*` settings: their defaults and what they must look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import signing
from .address import Policy, parse_proxy

DEFAULTS: dict[str, Any] = {
    "ASOK_WEBHOOK_ALLOW": (),
    "ASOK_WEBHOOK_CA_FILE": None,
    "ASOK_WEBHOOK_MAX_BYTES": 256 * 1024,
    "ASOK_WEBHOOK_PER_HOST": 4,
    "ASOK_WEBHOOK_PROXY": None,
    "ASOK_WEBHOOK_SECRETS": {},
    "ASOK_WEBHOOK_SUPPRESS": None,
}


def _check_certificates(path: str) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"ASOK_WEBHOOK_CA_FILE: {path} holds no certificates (PEM): {error.strerror}.") from None


def check(config: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError, which quote no secret, for a setting that is no good."""
    Policy.of(config["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
    for key in ("ASOK_WEBHOOK_MAX_BYTES", "ASOK_WEBHOOK_PER_HOST"):
        if type(config[key]) is not int or config[key] < 1:
            raise ValueError(f"{key} must be a whole number, 1 or more, not {config[key]!r}.")
    for key in ("ASOK_WEBHOOK_CA_FILE", "ASOK_WEBHOOK_PROXY"):
        if config[key] is not None and not isinstance(config[key], str):
            raise TypeError(f"{key} must be a str or None, not {type(config[key]).__name__}.")
    suppress = config["ASOK_WEBHOOK_SUPPRESS"]
    if suppress is not None and not isinstance(suppress, bool):
        raise TypeError(f"ASOK_WEBHOOK_SUPPRESS must be True, False or None, not {suppress!r}.")
    if config["ASOK_WEBHOOK_CA_FILE"]:
        _check_certificates(config["ASOK_WEBHOOK_CA_FILE"])
    if config["ASOK_WEBHOOK_PROXY"]:
        parse_proxy(config["ASOK_WEBHOOK_PROXY"])
    secrets = config["ASOK_WEBHOOK_SECRETS"]
    if not isinstance(secrets, Mapping):
        raise TypeError(f"ASOK_WEBHOOK_SECRETS must map names to secrets, not be a {type(secrets).__name__}.")
    for name, secret in secrets.items():
        if not isinstance(name, str) or signing.is_literal(name):
            raise ValueError("ASOK_WEBHOOK_SECRETS maps names to secrets; a name does not begin with whsec_.")
        try:
            signing.literal_keys(signing.listed(secret))
        except (TypeError, ValueError) as error:
            raise type(error)(f"ASOK_WEBHOOK_SECRETS[{name!r}]: {error}") from None
