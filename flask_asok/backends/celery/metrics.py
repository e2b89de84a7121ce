"""The metrics of a Celery worker's processes, on a port of its main process."""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from ...errors import NotConfigured
from ..distributed.metrics import Lengths
from ..distributed.metrics import serve as serve_registry
from .hub import CeleryHub
from .lengths import lengths_on


def serve(hub: CeleryHub, queues: Iterable[str], port: int) -> None:
    """Serve the metrics from now on. NotConfigured without PROMETHEUS_MULTIPROC_DIR, or if the port is taken."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        raise NotConfigured(
            "ASOK_METRICS_PORT needs PROMETHEUS_MULTIPROC_DIR, the path of an empty folder, in the environment of the "
            "worker: its processes write what they count there."
        )
    names = list(queues)

    def lengths() -> dict[str, int]:
        with hub.publisher.connected() as connection:
            return lengths_on(connection, hub.app, names)

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(Lengths(lengths))
    serve_registry(registry, port)
