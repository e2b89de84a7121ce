"""The metrics of a worker, and how many tasks wait, on a port of its main process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ... import process
from ...errors import AsokError, NotConfigured


class Lengths(Collector):
    """Asks the engine at each scrape, by `lengths()`: no process knows how many tasks the others have queued."""

    def __init__(self, lengths: Callable[[], Mapping[str, int]]) -> None:
        self._lengths = lengths

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing: to be registered must not connect."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the length of each queue; none of them while the engine is away."""
        family = GaugeMetricFamily("asok_queue_tasks", "Tasks that wait for a worker.", labels=["queue", "state"])
        try:
            for queue, length in self._lengths().items():
                family.add_metric([queue, "queued"], length)
        except AsokError:
            return
        yield family


def serve(registry: CollectorRegistry, port: int) -> None:
    """Serve the metrics of a registry from now on. NotConfigured if the port is taken."""
    try:
        server, _ = start_http_server(port, registry=registry)
    except OSError as error:
        raise NotConfigured(f"ASOK_METRICS_PORT = {port} cannot be used: {error.strerror}.") from None
    # A child would hold the port for as long as it lives.
    process.after_fork(server.socket.close)
