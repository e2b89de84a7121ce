"""What the cards show: a run is one press of one button. Kept in the database, where requests and tasks meet."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from .db import get_db


@dataclass(frozen=True, slots=True)
class Run:
    """A press of a button, as far as it got."""

    id: int
    card: str
    mode: str
    """"blocking" or "background"."""
    response_ms: float | None
    """Until the page answered; None before."""
    begun_at: float
    """Seconds, as `time.time()` gives them."""
    data: dict[str, Any]
    """What the card, and its tasks, have noted."""


def begin(visitor: str, card: str, mode: str) -> int:
    """Note that a button was pressed; return the id of the run."""
    values = (visitor, card, mode, time.time())
    statement = "INSERT INTO runs (visitor, card, mode, begun_at) VALUES (?, ?, ?, ?)"
    run = get_db().execute(statement, values).lastrowid
    assert run is not None
    return run


def answered(run: int, response_ms: float) -> str:
    """Note how long the visitor waited; return the name of the card."""
    db = get_db()
    db.execute("UPDATE runs SET response_ms = ? WHERE id = ?", (response_ms, run))
    card: str = db.execute("SELECT card FROM runs WHERE id = ?", (run,)).fetchone()["card"]
    return card


def note(run: int, **data: Any) -> None:
    """Add to what the run shows."""
    # In one statement, for several tasks may note something at the same time.
    get_db().execute("UPDATE runs SET data = json_patch(data, ?) WHERE id = ?", (json.dumps(data), run))


def add(run: int, name: str, item: Any) -> None:
    """Add `item` to a list that the run shows."""
    get_db().execute(
        "UPDATE runs SET data = json_insert(json_insert(data, :list, json('[]')), :list || '[#]', json(:item)) "
        "WHERE id = :run",
        {"list": f"$.{name}", "item": json.dumps(item), "run": run},
    )


def recent(visitor: str, card: str, count: int) -> list[Run]:
    """Return the visitor's latest runs of a card that were answered, the newest first."""
    rows = get_db().execute(
        "SELECT id, card, mode, response_ms, begun_at, data FROM runs "
        "WHERE visitor = ? AND card = ? AND response_ms IS NOT NULL ORDER BY id DESC LIMIT ?",
        (visitor, card, count),
    )
    return [Run(**{**row, "data": json.loads(row["data"])}) for row in rows]


def latest(visitor: str, card: str) -> Run | None:
    """Return the visitor's latest run of a card, or None."""
    return next(iter(recent(visitor, card, 1)), None)


def response_times(visitor: str, card: str) -> dict[str, float]:
    """Return the milliseconds that the latest run in each mode took to answer; see `leave_out`."""
    rows = get_db().execute(
        "SELECT mode, response_ms, max(id) FROM runs WHERE visitor = ? AND card = ? AND response_ms IS NOT NULL "
        "AND json_extract(data, '$.left_out') IS NULL GROUP BY mode",
        (visitor, card),
    )
    return {row["mode"]: row["response_ms"] for row in rows}


def leave_out(run: int) -> None:
    """Do not compare the time of this run: it did not do what the others of its card do."""
    note(run, left_out=True)


def recent_tasks(visitor: str, count: int) -> list[str]:
    """Return the ids of the tasks that the visitor's buttons started last, in whichever process."""
    rows = get_db().execute(
        "SELECT task.value FROM (SELECT id, data FROM runs WHERE visitor = ? ORDER BY id DESC LIMIT ?) AS run, "
        "json_each(run.data, '$.tasks') AS task ORDER BY run.id DESC, task.key DESC LIMIT ?",
        (visitor, count, count),
    )
    return [row["value"] for row in rows]
