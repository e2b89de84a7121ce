"""What the commands ask and tell of the tasks on Celery."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ...errors import BackendUnavailable
from ...store.base import Record
from ...summaries import TaskSummary
from .app import queue_name
from .hub import Hub
from .lengths import lengths_on
from .task import update

MOST_FAILED = 1_000
"""How many failed tasks, and how many abandoned ones, `flask asok failed` lists."""


def summary_of(record: Record) -> TaskSummary:
    """Return what a record says, as a summary."""
    summary = TaskSummary(record.name, record.queue, record.id)
    summary.enqueued, summary.due = record.enqueued, record.due or record.enqueued
    update(summary, record, time.time())
    return summary


def status(hub: Hub) -> dict[str, Any]:
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


def failed(hub: Hub) -> list[TaskSummary]:
    """Return the newest failed and abandoned tasks, the latest end first."""
    store = hub.need_store()
    found = [*store.listed(MOST_FAILED, state="failed"), *store.listed(MOST_FAILED, state="abandoned")]
    return [summary_of(record) for record in sorted(found, key=lambda one: one.finished, reverse=True)]


def retry(hub: Hub, id: str) -> bool:
    """Send a failed or abandoned task once more; False for any other, and while another task has its unique key."""
    store = hub.need_store()
    signed = store.message_of(id)
    # MessageRefused for one that this process could not send.
    message = None if signed is None else hub.packer.read_for(id, signed)
    if signed is None or message is None or store.retry(id) is None:
        return False
    # Where the broker is away a sweeper sends it.
    with contextlib.suppress(BackendUnavailable):
        hub.publish(message, signed, sent=store.sent_at(message.queue, id))
    return True
