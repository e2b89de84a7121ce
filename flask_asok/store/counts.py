"""How many tasks are in each queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .base import QueueSummary, Record
from .readable import text_in, time_in


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


def sum_by_queue(rows: Iterable[Sequence[Any]]) -> list[QueueSummary]:
    """Return the same of rows: the queue, a state, how many there are, and since when the first of them is due."""
    found: dict[str, QueueSummary] = {}
    for name, state, count, due in rows:
        if state not in ("queued", "running", "waiting"):
            continue
        queue = found.setdefault(text_in(name), QueueSummary(name=text_in(name)))
        setattr(queue, state, getattr(queue, state) + count)
        if state == "queued":
            queue.oldest_due_at = time_in(due) or None
    return list(found.values())
