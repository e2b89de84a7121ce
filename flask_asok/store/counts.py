"""How many tasks are in each queue."""

from __future__ import annotations

from collections.abc import Iterable

from .base import QueueSummary, Record


def count_by_queue(records: Iterable[Record]) -> list[QueueSummary]:
    """Return a summary of each queue that has records which are not settled, in the order of their names."""
    found: dict[str, QueueSummary] = {}
    for record in records:
        if record.is_settled:
            continue
        queue = found.setdefault(record.queue, QueueSummary(name=record.queue))
        setattr(queue, record.state, getattr(queue, record.state) + 1)
        if record.state == "queued":
            # What a distributed backend sends without a delay may have no due time of its own.
            due = record.due or record.enqueued
            queue.oldest_due_at = min(due, queue.oldest_due_at or due)
    return sorted(found.values(), key=lambda queue: queue.name)
