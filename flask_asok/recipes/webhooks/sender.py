"""What one application sends its webhooks with: settings, connections and lanes. Imported with the first delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .address import Policy, Url
from .answer import Answer
from .deadline import Deadline
from .lanes import Lanes
from .message import Message, policy_for, signed_headers
from .transport import Transport


class Sender:
    """Made with an application's first delivery in a process, closed with the application. Any thread may use it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._policy = Policy.of(config["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
        self._transport = Transport(config["ASOK_WEBHOOK_CA_FILE"], config["ASOK_WEBHOOK_PROXY"])
        self.lanes: Lanes = Lanes(config["ASOK_WEBHOOK_PER_HOST"])

    def send(self, message: Message, url: Url, timestamp: int, deadline: Deadline) -> Answer:
        """Make one attempt; raises UnknownSecret, and what `Transport.post` raises."""
        headers = signed_headers(message, timestamp)
        return self._transport.post(url, headers, message.body, policy_for(message, self._policy), deadline)

    def proxy_for(self, url: Url) -> str | None:
        """Return the URL, without credentials, of a proxy that may have answered in place of the receiver."""
        return self._transport.proxy_for(url)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
