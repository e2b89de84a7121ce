"""What became of one attempt: the Delivery, and the error of one that failed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import WebhookError, WebhookGone, WebhookRejected, WebhookUnavailable
from .address import Url, parse
from .excerpt import excerpt, first_words
from .headers import retry_after
from .webhook import Webhook, about

if TYPE_CHECKING:
    from .answer import Answer

TEMPORARY = frozenset({408, 425, 429})
FROM_PROXIES = frozenset({403, 502, 503, 504})
"""Answers that may be those of a proxy in between, which tells of itself and not of the receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    What became of one webhook, which under `ASOK_WEBHOOK_SUPPRESS` was not sent and has no `status`.

    `url` is scheme, host and port only. With the `id`, the `body` and your own `reference` to the endpoint it can be
    stored, and sent again as `send_webhook(url, body, id=id, ...)`.
    """

    id: str
    url: str
    status: int | None
    """The receiver's answer; None where there was none."""
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
    """The beginning of an answer that was no 2xx, as the log shows it: on one line, what the webhook held masked."""
    full_url: str | None = field(default=None, repr=False, compare=False)
    """With path and query. Like `headers` only where nothing was sent, and in `asok_tasks.webhooks`: a credential."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Those of the webhook, the signature among them."""

    @property
    def __asok_about__(self) -> str:
        return about(self.id, self.reference, self.status, self.words)

    @property
    def json(self) -> Any:
        """The body as a receiver parses it; ValueError where it is not JSON."""
        return json.loads(self.body)


def delivery_of(
    webhook: Webhook,
    url: Url,
    attempts: int,
    timestamp: int,
    duration: float,
    status: int | None = None,
    body: bytes = b"",
) -> Delivery:
    """Return the Delivery of an attempt; `status` and `body` are those of the answer."""
    return Delivery(
        id=webhook.id,
        url=str(url),
        status=status,
        attempts=attempts,
        duration=duration,
        timestamp=timestamp,
        excerpt=excerpt(body),
        words=first_words(webhook, url, body) if status is not None and not 200 <= status < 300 else "",
        body=webhook.body,
        reference=webhook.reference,
    )


def lost(webhook: Webhook, attempts: int, why: str) -> WebhookUnavailable:
    """Return the error of a delivery that has ended without one of its own."""
    delivery = delivery_of(webhook, parse(webhook.url), attempts, int(time()), 0.0)
    return WebhookUnavailable(f"The webhook for {delivery.url} was not delivered: {why}.", delivery)


def refusal(url: Url, answer: Answer, delivery: Delivery, proxy: str | None) -> WebhookError:
    """Return the error that an answer other than 2xx is."""
    status = answer.status
    is_of_proxy = proxy is not None and status in FROM_PROXIES
    said = f"{url} or the proxy {proxy} answered {status}" if is_of_proxy else f"{url} answered {status}"
    if status in TEMPORARY or 500 <= status < 600 or is_of_proxy:
        return WebhookUnavailable(f"{said}.", delivery, retry_after(answer.header("retry-after")))
    if status == 410:
        return WebhookGone(f"{said}: the receiver wants no more webhooks there.", delivery)
    if 300 <= status < 400:
        said += _destination(answer)
        return WebhookRejected(f"{said}: redirects are not followed, give the final URL.", delivery)
    return WebhookRejected(f"{said}.", delivery)


def _destination(answer: Answer) -> str:
    """Return where a redirect leads, as far as that is no secret."""
    with contextlib.suppress(ValueError, TypeError):
        if urlsplit(location := answer.header("location") or "").netloc:
            return f" and points to {parse(location)}"
    return ""
