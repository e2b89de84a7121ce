"""How far imports have come, so that one whose process was lost goes on there in the next process."""

from __future__ import annotations

from .db import get_db


def begin(task: str) -> int:
    """Note that a process begins this task; return how many rows those before it have done."""
    get_db().execute(
        "INSERT INTO cursors (task, done) VALUES (?, 0) ON CONFLICT (task) DO UPDATE SET went_on_at = done", (task,)
    )
    done: int = get_db().execute("SELECT done FROM cursors WHERE task = ?", (task,)).fetchone()["done"]
    return done


def advance(task: str, done: int) -> None:
    """Note how many rows are done."""
    get_db().execute("UPDATE cursors SET done = ? WHERE task = ?", (done, task))


def went_on_at(task: str) -> int | None:
    """Return how many rows were done when another process went on with this task; None if none has."""
    found = get_db().execute("SELECT went_on_at FROM cursors WHERE task = ?", (task,)).fetchone()
    return found["went_on_at"] if found else None
