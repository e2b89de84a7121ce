"""One webhook, checked and in bytes: made at the call, sent at each attempt."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import payload as payloads
from . import signing
from .delivery import about
from .headers import checked_headers
from .policy import Policy, entries
from .settings import current_settings
from .url import parse_url

DEFAULT_TIMEOUT = 15.0
LONGEST_TIMEOUT = 3600
"""Seconds; no receiver of webhooks takes longer."""

DEFAULT_HEADERS = {"Content-Type": "application/json", "User-Agent": "Flask-Asok"}
"""The caller's own headers may replace them."""

_ID = re.compile(r"[!-\-/-~]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """
    All that is needed to send a webhook, in plain data. Its repr shows no secret.

    `url`, `headers` and `secrets` are credentials.
    """

    id: str
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """`whsec_` secrets, or names of entries of `ASOK_WEBHOOK_SECRETS`."""
    timeout: float
    allow_private: bool | tuple[str, ...] | None
    reference: str | None

    @property
    def __asok_about__(self) -> str:
        return about(self.id, self.reference)

    def __asok_travels__(self) -> Webhook:
        """Return what another process gets, and what is written down: itself, if no secret is in it."""
        if any(map(signing.is_literal, self.secrets)):
            raise TypeError(
                "A webhook's secret must not be sent to a worker, nor written down. "
                "Put it into ASOK_WEBHOOK_SECRETS, wherever tasks run, and pass the name of its entry."
            )
        return self


def compose(
    url: str,
    payload: Any,
    *,
    secret: signing.Secret | None = None,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    allow_private: bool | str | Iterable[str] | None = None,
    reference: str | None = None,
    know_names: bool = True,
) -> Webhook:
    """
    Check the arguments of `send_webhook` and make the bytes.

    `know_names` is False if only the worker has to know the names of secrets. Raises TypeError or ValueError, which
    name the invalid argument and quote no secret.
    """
    parse_url(url)
    all_headers = checked_headers(headers)
    given = {name.lower() for name in all_headers}
    for name, value in DEFAULT_HEADERS.items():
        if name.lower() not in given:
            all_headers[name] = value
    secret_names = signing.listed(secret)
    signing.keys([name for name in secret_names if know_names or signing.is_literal(name)])
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds, not {type(timeout).__name__}.")
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise ValueError(f"timeout must be more than 0 and at most {LONGEST_TIMEOUT} seconds, not {timeout!r}.")
    if id is not None and not (isinstance(id, str) and _ID.fullmatch(id)):
        raise ValueError("id must be a str of up to 200 printable ASCII characters, without a space or a full stop.")
    if reference is not None and not isinstance(reference, str):
        raise TypeError(f"reference must be a str, not {type(reference).__name__}.")
    if allow_private is not None and not isinstance(allow_private, bool):
        allow_private = entries(allow_private, "allow_private")
        Policy.of(allow_private, "allow_private")
    return Webhook(
        id=f"msg_{secrets.token_hex(16)}" if id is None else id,
        url=url,
        body=payloads.encode(payload, current_settings()["ASOK_WEBHOOK_MAX_BYTES"]),
        headers=all_headers,
        secrets=secret_names,
        timeout=float(timeout),
        allow_private=allow_private,
        reference=reference,
    )


def signed_headers(webhook: Webhook, timestamp: int) -> dict[str, str]:
    """Return the headers of an attempt, signed with its own `timestamp`; raises UnknownSecret."""
    headers = {
        **webhook.headers,
        "webhook-id": webhook.id,
        "webhook-timestamp": str(timestamp),
    }
    if keys := signing.keys(webhook.secrets):
        headers["webhook-signature"] = signing.sign(keys, webhook.id, timestamp, webhook.body)
    return headers


def policy_for(webhook: Webhook, policy: Policy) -> Policy:
    """Return where `webhook` may go; `policy` is the one of the application."""
    if webhook.allow_private is None:
        return policy
    more = Policy.of(webhook.allow_private, "allow_private")
    if webhook.allow_private is False:
        return more
    return Policy(policy.hosts | more.hosts, policy.networks + more.networks)
