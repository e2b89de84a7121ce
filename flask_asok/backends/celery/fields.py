"""What the fields of a record mean: how they are read, whatever is stored, and the progress among them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from ...progress import Progress
from ...store.base import Record
from ...summaries import SETTLED, TaskSummary

CANCELLED = "cancelled"

STATES = frozenset({"queued", "running", "waiting", *SETTLED})

LATEST = 1e11
"""The first Unix time that is not taken for a date."""

SUMMARY_FIELDS = (
    "name", "queue", "state", "enqueued", "attempt", "attempts", "due", "scheduled", "finished", "error", "progress",
    "stop",
)  # fmt: skip
"""What a list of tasks shows, but for the claims, whose names have the attempt in them; no outcome."""


def readable(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that have a valid value, and defaults for those that must be there."""
    if fields.get("state") not in STATES:
        return {}
    found = {name: value for name, value in fields.items() if not _is_invalid(name, value)}
    return {"name": "unknown", "queue": "unknown", "enqueued": "0", "attempt": "1", **found}


def claims_of(fields: Mapping[str, str]) -> list[str]:
    """Return the names of the claims that `record_of` looks at."""
    attempt = int(fields.get("attempt", 1))
    return [f"claim:{attempt}", f"claim:{fields.get('attempts', attempt - 1)}"]


def record_of(id: str, fields: Mapping[str, str]) -> Record:
    """Return what `Records.read` has returned, as a store has it."""
    attempt = int(fields["attempt"])
    has_begun = " " in fields.get(f"claim:{attempt}", "")
    attempts = attempt if has_begun else int(fields.get("attempts", attempt - 1))
    claim = fields.get(f"claim:{attempts}", "").split(" ")
    return Record(
        id=id,
        name=fields["name"],
        queue=fields["queue"],
        state=fields["state"],  # type: ignore[arg-type]
        attempts=attempts,
        enqueued=float(fields["enqueued"]),
        due=float(fields.get("due", 0)),
        scheduled=float(fields.get("scheduled", 0)),
        started=float(claim[1]) if len(claim) == 2 else 0.0,
        finished=float(fields.get("finished", 0)),
        stopping=fields.get("stop") == str(attempt),
        progress=_progress(fields.get("progress"), attempts),
        error=fields.get("error", ""),
        outcome=fields.get("outcome"),
        message=fields.get("message"),
    )


def given(names: Sequence[str], values: Sequence[str | None]) -> dict[str, str]:
    """Return the fields that there are, by name."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def as_of_now(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields with the state of this moment."""
    if not fields:
        return {}
    if fields["state"] == "waiting" and float(fields.get("due", 0)) <= time.time():
        # Queued: a task that waits for it in the last free process then runs it in place.
        fields["state"] = "queued"
    claim = fields.get(f"claim:{fields['attempt']}")
    if claim is not None and fields["state"] in ("queued", "waiting"):
        fields["state"] = CANCELLED if claim == CANCELLED else "running"
    return fields


def update(summary: TaskSummary, fields: Mapping[str, str]) -> None:
    """Write what `Records.read` has returned into a summary."""
    record = record_of(summary.id, fields)
    summary.state, summary.attempts, summary.error = record.state, record.attempts, record.error or None
    summary.started, summary.finished, summary.progress = record.started, record.finished, record.progress
    summary.scheduled = record.scheduled


def summary_of(id: str, fields: Mapping[str, str]) -> TaskSummary:
    """Return what `Records.read` has returned as a summary."""
    summary = TaskSummary(fields["name"], fields["queue"], id)
    summary.enqueued = float(fields["enqueued"])
    summary.due = float(fields.get("due", 0)) or summary.enqueued
    update(summary, fields)
    return summary


def packed(attempt: int, progress: Progress) -> str:
    """Return the progress of an attempt as its field has it."""
    return json.dumps([attempt, progress.done, progress.total, progress.text, progress.at])


def _progress(text: str | None, attempts: int) -> Progress | None:
    """Return what the latest attempt has reported: what an earlier one did ends with the begin of the next."""
    if text is None:
        return None
    try:
        attempt, done, total, said, at = json.loads(text)
        return Progress.of(done, total, said, at) if attempt == attempts and 0 <= at < LATEST else None
    except (ValueError, TypeError, RecursionError):
        return None


def _is_invalid(name: str, value: str) -> bool:
    try:
        if name in ("attempt", "attempts"):
            return not 0 <= int(value) < 1_000_000
        if name in ("enqueued", "finished", "due", "scheduled"):
            return not 0 <= float(value) < LATEST
        if name.startswith("claim:") and value != CANCELLED:
            return not 0 <= float(value.split(" ")[1]) < LATEST
    except (ValueError, IndexError):
        return True
    return False
