"""What `flask asok status` asks of Celery's workers and the broker."""

from __future__ import annotations

from typing import Any

from .app import queue_name
from .hub import CeleryHub
from .lengths import lengths_on


def status(hub: CeleryHub) -> dict[str, Any]:
    """Return the workers that answer, and the number of messages in each queue."""
    queues = hub.config["ASOK_QUEUES"]
    with hub.publisher.connected() as connection:
        lengths = lengths_on(connection, hub.app, queues)
        inspected = hub.celery_app.control.inspect(timeout=1, connection=connection)
        queues_of_workers = inspected.active_queues() or {}
    ours = {queue_name(hub.app, queue) for queue in queues}
    # Workers of other applications on this broker answer too.
    workers = [name for name, taken in queues_of_workers.items() if ours & {queue["name"] for queue in taken}]
    return {"workers": sorted(workers), "queued": lengths}
