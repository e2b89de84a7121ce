"""What a channel to Redis makes anew for each message, and keeps here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def keep_client(channel: Any) -> bool:
    """Let a channel keep its client, which kombu makes anew for each message; False for a channel that has none."""
    make = getattr(channel, "Client", None)
    if make is not None and not isinstance(make, _KeptClient):
        channel.Client = _KeptClient(make)
    return make is not None


class _KeptClient:
    """Makes the client of a channel, and one more where the channel has another pool of connections."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._client: Any = None

    def __call__(self, **options: Any) -> Any:
        client = self._client
        if client is None or client.connection_pool is not options["connection_pool"]:
            client = self._client = self._make(**options)
        return client
