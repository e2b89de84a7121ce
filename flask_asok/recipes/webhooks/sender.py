"""What one application sends its webhooks with: settings, connections and limits. Imported with the first delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .address import Policy, Url
from .answer import Answer
from .deadline import Deadline
from .host_limits import HostLimits
from .transport import Transport
from .webhook import Webhook, policy_for, signed_headers


class Sender:
    """Made with an application's first delivery in a process, closed with the application. Any thread may use it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._policy = Policy.of(config["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
        self._transport = Transport(config["ASOK_WEBHOOK_CA_FILE"], config["ASOK_WEBHOOK_PROXY"])
        self.limits: HostLimits = HostLimits(config["ASOK_WEBHOOK_PER_HOST"])

    def send(self, webhook: Webhook, url: Url, timestamp: int, deadline: Deadline) -> Answer:
        """Make one attempt; raises UnknownSecret, and what `Transport.post` raises."""
        headers = signed_headers(webhook, timestamp)
        return self._transport.post(url, headers, webhook.body, policy_for(webhook, self._policy), deadline)

    def proxy_for(self, url: Url) -> str | None:
        """Return the URL, without credentials, of a proxy that may have answered in place of the receiver."""
        return self._transport.proxy_for(url)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
