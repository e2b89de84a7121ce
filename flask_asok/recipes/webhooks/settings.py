"""The `ASOK_WEBHOOK_*` settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app, has_app_context

from ...settings import Setting
from ...state import KEY
from ...validate import a_kind, certificates, flag, or_none, text, whole
from . import signing
from .policy import Policy, entries
from .url import parse_proxy


def _allow(name: str, value: Any) -> Any:
    # A copy, which cannot be changed in place, nor used up as an iterator can.
    allowed = value if isinstance(value, bool) else entries(value, name)
    Policy.of(allowed, name)
    return allowed


def _proxy(name: str, value: object) -> str:
    url = text(name, value)
    parse_proxy(url)
    return url


def _secrets(name: str, value: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must map names to secrets, not be {a_kind(type(value))}.")
    checked: dict[str, tuple[str, ...]] = {}
    for entry, secret in value.items():
        if not isinstance(entry, str) or signing.is_literal(entry):
            raise ValueError(f"{name} maps names to secrets; a name does not begin with whsec_.")
        if secret is None or secret in ("", [], ()):
            # A variable of the environment that is not set. Without a key every webhook would go out unsigned.
            raise ValueError(f"{name}[{entry!r}] is {secret!r}: give a whsec_... secret, or leave the entry out.")
        try:
            checked[entry] = signing.listed(secret)
            signing.literal_keys(checked[entry])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}[{entry!r}]: {error}") from None
    # A copy, which cannot be emptied in place.
    return checked


SETTINGS = (
    Setting(
        "ASOK_WEBHOOK_ALLOW", (), _allow,
        'Hosts ("hooks.local") and networks ("10.1.0.0/16") that webhooks may go to although they are not public. '
        "Addresses where clouds keep credentials stay denied.",
    ),
    Setting(
        "ASOK_WEBHOOK_SECRETS", {}, _secrets,
        "Names and their `whsec_...` secret, or a list of them, the newest first.",
    ),
    Setting("ASOK_WEBHOOK_MAX_BYTES", 256 * 1024, whole(1), "The longest payload."),
    Setting(
        "ASOK_WEBHOOK_PER_HOST", 4, whole(1),
        "Deliveries to one host at once, in one process; one while the host does not answer.",
    ),
    Setting(
        "ASOK_WEBHOOK_PROXY", None, or_none(_proxy),
        '`"http://user:password@host:port"` that all webhooks go through; it then decides which addresses are allowed. '
        "No proxy is taken from the environment.",
    ),
    Setting(
        "ASOK_WEBHOOK_CA_FILE", None, or_none(certificates),
        "Path of certificates (PEM) to trust for webhooks, besides the system's.",
    ),
    Setting(
        "ASOK_WEBHOOK_SUPPRESS", None, or_none(flag),
        "True: check and sign webhooks, and send none. None is the app's `TESTING`.",
    ),
)  # fmt: skip

DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
"""For a call outside an app context."""


def current_settings() -> Mapping[str, Any]:
    """Return the settings of the current app, or the defaults outside an app context."""
    state = current_app.extensions.get(KEY) if has_app_context() else None
    return DEFAULTS if state is None else state.config


def is_suppressed() -> bool:
    """Return True if webhooks are checked and signed, and not sent."""
    suppress: bool | None = current_settings()["ASOK_WEBHOOK_SUPPRESS"]
    return has_app_context() and current_app.testing if suppress is None else suppress
