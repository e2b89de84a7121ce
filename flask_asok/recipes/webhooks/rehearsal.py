"""An attempt under `ASOK_WEBHOOK_SUPPRESS`: everything happens except the sending."""

from __future__ import annotations

import logging
from time import time

from ...logs import log
from .delivery import Delivery
from .errors import WebhookBlocked
from .outcome import delivery_of, not_signed, with_request, without_frames
from .policy import Policy, in_figures
from .settings import current_settings
from .signing import UnknownSecret
from .url import Url, parse_url
from .webhook import Webhook, policy_for


def rehearse(webhook: Webhook, attempts: int) -> Delivery:
    """
    Check and sign `webhook`, and return a Delivery without a status. Needs no Sender, and no network.

    Raises WebhookBlocked for an address in figures that is not allowed, WebhookUnavailable for an unknown secret.
    """
    url = parse_url(webhook.url)
    delivery = delivery_of(webhook, url, attempts, int(time()), 0.0)
    if refusal := _refusal(url, webhook):
        raise WebhookBlocked(f"Webhook not sent: {refusal}.", delivery)
    try:
        delivery = with_request(delivery, webhook)
    except UnknownSecret as error:
        raise not_signed(error, delivery) from without_frames(error)
    log(logging.INFO, "Webhook %s for %s was not sent: ASOK_WEBHOOK_SUPPRESS.", webhook.id, url)
    return delivery


def _refusal(url: Url, webhook: Webhook) -> str | None:
    """Return why a webhook must not go to `url`, as far as that is known without resolving a name."""
    settings = current_settings()
    address = in_figures(url.host)
    if address is None or settings["ASOK_WEBHOOK_PROXY"]:
        return None
    policy = Policy.of(settings["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
    return policy_for(webhook, policy).refusal(url.host, [str(address)])
