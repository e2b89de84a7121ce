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


def begin(card: str, mode: str) -> int:
    """Note that a button was pressed; return the id of the run."""
    values = (card, mode, time.time())
    run = get_db().execute("INSERT INTO runs (card, mode, begun_at) VALUES (?, ?, ?)", values).lastrowid
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


def recent(card: str, count: int) -> list[Run]:
    """Return the latest runs of a card that were answered, the newest first."""
    rows = get_db().execute(
        "SELECT id, card, mode, response_ms, begun_at, data FROM runs WHERE card = ? AND response_ms IS NOT NULL "
        "ORDER BY id DESC LIMIT ?",
        (card, count),
    )
    return [Run(**{**row, "data": json.loads(row["data"])}) for row in rows]


def latest(card: str) -> Run | None:
    """Return the latest run of a card, or None."""
    return next(iter(recent(card, 1)), None)


def response_times(card: str) -> dict[str, float]:
    """Return the milliseconds that the latest run in each mode took to answer."""
    rows = get_db().execute(
        "SELECT mode, response_ms, max(id) FROM runs WHERE card = ? AND response_ms IS NOT NULL GROUP BY mode", (card,)
    )
    return {row["mode"]: row["response_ms"] for row in rows}
