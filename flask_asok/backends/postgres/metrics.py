"""The metrics of a worker on PostgreSQL, which is one process, on a port of its own."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from ..distributed.metrics import Lengths
from ..distributed.metrics import serve as serve_registry
from .hub import PostgresHub


def serve(hub: PostgresHub, port: int) -> None:
    """Serve the metrics from now on, those of other processes too where PROMETHEUS_MULTIPROC_DIR is set."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(Lengths(lambda: {queue: queued for queue, (queued, _, _) in hub.store.counts().items()}))
    serve_registry(registry, port)
