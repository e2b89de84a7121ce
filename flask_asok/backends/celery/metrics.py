"""The metrics of a worker's processes, and how many messages wait, on a port of the worker's main process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ... import process
from ...errors import BackendUnavailable, NotConfigured
from .hub import Hub
from .lengths import lengths_on


class _Lengths(Collector):
    """Asks the broker at each scrape: no process knows how many tasks the others have queued."""

    def __init__(self, hub: Hub, queues: Iterable[str]) -> None:
        self._hub = hub
        self._queues = list(queues)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: to be registered must not connect."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the length of each queue; none of them while the broker is away."""
        family = GaugeMetricFamily("asok_queue_tasks", "Messages that wait in the broker.", labels=["queue", "state"])
        try:
            with self._hub.publisher.connected() as connection:
                for queue, length in lengths_on(connection, self._hub.app, self._queues).items():
                    family.add_metric([queue, "queued"], length)
        except BackendUnavailable:
            return
        yield family


def serve(hub: Hub, queues: Iterable[str], port: int) -> None:
    """Serve the metrics from now on. NotConfigured without PROMETHEUS_MULTIPROC_DIR, or if the port is taken."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        raise NotConfigured(
            "ASOK_METRICS_PORT needs PROMETHEUS_MULTIPROC_DIR, the path of an empty folder, in the environment of the "
            "worker: its processes write what they count there."
        )
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Lengths(hub, queues))
    try:
        server, _ = start_http_server(port, registry=registry)
    except OSError as error:
        raise NotConfigured(f"ASOK_METRICS_PORT = {port} cannot be used: {error.strerror}.") from None
    # A child would hold the port for as long as it lives.
    process.after_fork(server.socket.close)
