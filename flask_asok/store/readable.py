"""What is read of a store, whatever is written there: a row that is forged or damaged must not hide the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..progress import Progress
from .base import ProcessSummary, Tick
from .history import LATEST
from .pages import Ended, EndedCount, EndedCounts

TIMES = ("enqueued", "due", "scheduled", "started", "finished")
COUNTS = {"attempts": 1e9, "claim": 2.0**53, "deaths": 1e9}
"""The numbers of a record that are whole, and what each is less than."""
TEXTS = (
    "id", "name", "queue", "function", "origin", "state", "owner", "key", "unique_key", "error", "traceback", "history",
)  # fmt: skip
_TEXTS_OR_NONE = ("outcome", "message")


def time_in(value: Any) -> float:
    """Return a time in seconds since the epoch; 0.0, which is none, for anything that is no date."""
    return _number(value, LATEST)


def count_in(value: Any, most: float) -> int:
    """Return a whole number below `most`; 0 for anything else."""
    return int(_number(value, most))


def text_in(value: Any) -> str:
    """Return a text; of bytes those that are text, with a sign for each other one."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def progress_in(value: Any) -> Progress | None:
    """Return the progress that a field has; None where it has none, or no valid one."""
    if value is None:
        return None
    try:
        done, total, said, at = json.loads(value)
        return Progress.of(done, total, said, at) if 0 <= at < LATEST else None
    except (ValueError, TypeError, RecursionError):
        return None


def record_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Put what stands for nothing in the place of each field of a record that is not what belongs there."""
    for name in TIMES:
        value = fields[name]
        if type(value) is not float or not 0.0 <= value < LATEST:
            fields[name] = time_in(value)
    for name, most in COUNTS.items():
        value = fields[name]
        if type(value) is not int or not 0 <= value < most:
            fields[name] = count_in(value, most)
    for name in TEXTS:
        if type(fields[name]) is not str:
            fields[name] = text_in(fields[name])
    for name in _TEXTS_OR_NONE:
        if fields[name] is not None:
            fields[name] = text_in(fields[name])
    fields["stopping"] = bool(fields["stopping"])
    fields["progress"] = progress_in(fields["progress"])
    return fields


def ended_in(name: Any, queue: Any, state: Any, started: Any, finished: Any) -> list[Ended]:
    """Return what is counted of a settled task: nothing where it has no name, or no time of its end."""
    end = time_in(finished)
    return [Ended(text_in(name), text_in(queue), text_in(state), time_in(started), end)] if end and name else []


def counted_in(rows: Iterable[Sequence[Any]], since: float) -> EndedCounts:
    """Return what rows of a state, a period and a number tell; without those that are invalid."""
    return EndedCounts(
        [
            EndedCount(text_in(state), int(period), count_in(count, 2.0**53))
            for state, period, count in rows
            if state and 0 <= period < LATEST
        ],
        since,
    )


def process_in(token: Any, host: Any, pid: Any, kind: Any, since: Any, queues: Any) -> ProcessSummary:
    """Return what a store has of a process."""
    try:
        names = json.loads(queues)
    except (ValueError, TypeError, RecursionError):
        names = []
    return ProcessSummary(
        token=text_in(token), host=text_in(host), pid=count_in(pid, 2.0**53), kind=text_in(kind), since=time_in(since),
        queues=tuple(map(text_in, names)) if isinstance(names, list) else (),
    )  # fmt: skip


def tick_in(at: Any, task_id: Any = "") -> Tick | None:
    """Return the tick of a periodic task; None where it has no time."""
    return Tick(time_in(at), text_in(task_id)) if time_in(at) or at == 0 else None


def _number(value: Any, most: float) -> float:
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return number if 0 <= number < most else 0.0
