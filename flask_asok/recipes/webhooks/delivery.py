"""The Delivery: what became of one webhook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_REFERENCE = 200
"""Characters of a reference that a line of the log shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    What became of one webhook. Under `ASOK_WEBHOOK_SUPPRESS` it was not sent, and has no `status`.

    `url` is scheme, host and port only. Store `id`, `body` and your own `reference` to the endpoint to send the
    webhook again: `send_webhook(url, body, id=id, ...)`.
    """

    id: str
    url: str
    status: int | None
    """The status that the receiver answered; None if it did not answer."""
    attempts: int
    duration: float
    """Seconds that the last attempt took."""
    timestamp: int
    """Its `webhook-timestamp`, in seconds since 1970."""
    excerpt: str = field(repr=False)
    """The first 1,000 characters of the answer. A receiver may have put anything there."""
    body: bytes = field(repr=False)
    """What was sent."""
    reference: str | None = None
    words: str = field(default="", repr=False)
    """The beginning of an answer other than 2xx, as the log shows it: on one line, with the webhook's texts masked."""
    full_url: str | None = field(default=None, repr=False, compare=False)
    """With path and query: a credential. Like `headers`, set only if nothing was sent, and in `asok_tasks.webhooks`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The headers of the webhook, the signature included."""

    @property
    def __asok_about__(self) -> str:
        return about(self.id, self.reference, self.status, self.words)

    @property
    def json(self) -> Any:
        """The body as a receiver parses it; ValueError if it is not JSON."""
        return json.loads(self.body)


def about(id: str, reference: str | None, status: int | None = None, answer: str = "") -> str:
    """Return the part of a line of the log by which a webhook is found."""
    parts = [f"webhook_id={id!r}"]
    if reference is not None:
        parts.append(f"reference={reference[:LONGEST_REFERENCE]!r}")
    if status is not None:
        parts.append(f"status={status}")
    if answer:
        parts.append(f"answer={answer!r}")
    return ", ".join(parts)
