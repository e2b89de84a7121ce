"""What the commands ask and tell of the tasks that other processes run."""

from __future__ import annotations

import contextlib
import time

from ...errors import BackendUnavailable
from ...messages.message import Message
from ...store.base import Record
from ...summaries import TaskSummary
from .hub import Hub
from .task import update

MOST_FAILED = 1_000
"""How many failed tasks, and how many abandoned ones, `flask asok failed` lists."""


def summary_of(record: Record) -> TaskSummary:
    """Return what a record says, as a summary."""
    summary = TaskSummary(record.name, record.queue, record.id)
    summary.enqueued, summary.due = record.enqueued, record.due or record.enqueued
    update(summary, record, time.time())
    return summary


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
    message: Message | None = None if signed is None else hub.packer.read_for(id, signed)
    if signed is None or message is None or store.retry(id) is None:
        return False
    # Where the engine is away a sweeper sends it.
    with contextlib.suppress(BackendUnavailable):
        hub.publish(message, signed, sent=store.sent_at(message.queue, id))
    return True
