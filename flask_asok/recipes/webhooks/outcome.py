"""What became of one attempt: the Delivery, and the error of one that failed."""

from __future__ import annotations

import contextlib
import dataclasses
from time import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from .delivery import Delivery
from .errors import WebhookError, WebhookGone, WebhookRejected, WebhookUnavailable
from .excerpt import excerpt, first_words
from .headers import retry_after
from .url import Url, parse_url
from .webhook import Webhook, signed_headers

if TYPE_CHECKING:
    from .answer import Answer
    from .signing import UnknownSecret

E = TypeVar("E", bound=BaseException)

TEMPORARY = frozenset({408, 425, 429})
FROM_PROXIES = frozenset({403, 502, 503, 504})
"""Statuses that a proxy in between may have answered, about itself and not about the receiver."""


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


def with_request(delivery: Delivery, webhook: Webhook) -> Delivery:
    """Return `delivery` with its credentials, the full URL and the headers, for tests; raises UnknownSecret."""
    return dataclasses.replace(delivery, full_url=webhook.url, headers=signed_headers(webhook, delivery.timestamp))


def not_delivered(webhook: Webhook, attempts: int, why: str) -> WebhookUnavailable:
    """Return the error of a delivery that ended without an error of its own."""
    delivery = delivery_of(webhook, parse_url(webhook.url), attempts, int(time()), 0.0)
    return WebhookUnavailable(f"The webhook for {delivery.url} was not delivered: {why}.", delivery)


def not_signed(error: UnknownSecret, delivery: Delivery) -> WebhookUnavailable:
    """Return the error of a webhook whose secret this process does not know: a worker may get its settings later."""
    return WebhookUnavailable(f"The webhook for {delivery.url} was not sent: {error}", delivery)


def error_of(url: Url, answer: Answer, delivery: Delivery, proxy: str | None) -> WebhookError:
    """Return the error for an answer other than 2xx; `proxy` may have given it in place of the receiver."""
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
    """Return where a redirect points to, without path and query."""
    with contextlib.suppress(ValueError, TypeError):
        if urlsplit(location := answer.header("location") or "").netloc:
            return f" and points to {parse_url(location)}"
    return ""


def without_frames(error: E) -> E:
    """Return `error` without its frames: their variables hold path, headers and keys, and some loggers print them."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
