"""What one application sends its webhooks with: settings, connections and lanes. Imported with the first delivery."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from .address import Policy, Url
from .deadline import Deadline
from .lanes import Lanes
from .message import Message, policy_for, signed_headers
from .transport import Answer, Transport


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

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def explain(error: Exception) -> str:
    """Return what went wrong on the way to the receiver, in words that hold nothing which the receiver sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    if isinstance(error, ConnectionError) and error.strerror is None:
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # A proxy's words, for one.
    return "".join(character for character in str(error) if character.isprintable())
