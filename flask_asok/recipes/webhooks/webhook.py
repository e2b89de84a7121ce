"""One webhook, checked and in bytes: made at the call, sent at each attempt."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import address, headers, payload, signing

LONGEST_TIMEOUT = 3600
"""Seconds; a receiver that takes so long is no receiver of webhooks."""

DEFAULT_HEADERS = {"Content-Type": "application/json", "User-Agent": "Flask-Asok"}
"""What the caller's own headers may replace."""

LONGEST_REFERENCE = 200
"""Characters of it that a line of the log shows."""

_ID = re.compile(r"[!-\-/-~]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """
    What has to be known to send a webhook, in plain data. Its repr shows no secret.

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


def compose(
    url: str,
    content: Any,
    *,
    secret: signing.Secret | None,
    extra_headers: Mapping[str, str] | None,
    id: str | None,
    timeout: float,
    allow_private: bool | str | Iterable[str] | None,
    reference: str | None,
    max_bytes: int,
    know_names: bool,
) -> Webhook:
    """Check every argument and make the bytes; TypeError or ValueError say which is no good, and quote no secret."""
    address.parse(url)
    checked = headers.check(extra_headers)
    given = {name.lower() for name in checked}
    for name, value in DEFAULT_HEADERS.items():
        if name.lower() not in given:
            checked[name] = value
    secret_names = signing.listed(secret)
    # A worker may know names that this process does not.
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
        allow_private = (allow_private,) if isinstance(allow_private, str) else tuple(allow_private)
        address.Policy.of(allow_private, "allow_private")
    return Webhook(
        id=f"msg_{secrets.token_hex(16)}" if id is None else id,
        url=url,
        body=payload.encode(content, max_bytes),
        headers=checked,
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


def policy_for(webhook: Webhook, policy: address.Policy) -> address.Policy:
    """Return where this webhook may go, of an application that has this `policy`."""
    if webhook.allow_private is None:
        return policy
    more = address.Policy.of(webhook.allow_private, "allow_private")
    if webhook.allow_private is False:
        return more
    return address.Policy(policy.hosts | more.hosts, policy.networks + more.networks)


def about(id: str, reference: str | None, status: int | None = None, answer: str = "") -> str:
    """Return what a line of the log says of a webhook, to be found by."""
    parts = [f"webhook_id={id!r}"]
    if reference is not None:
        parts.append(f"reference={reference[:LONGEST_REFERENCE]!r}")
    if status is not None:
        parts.append(f"status={status}")
    if answer:
        parts.append(f"answer={answer!r}")
    return ", ".join(parts)
