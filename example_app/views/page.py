"""The page: its cards as they are now, and when it looks again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import current_app, g, render_template, request, url_for

from flask_asok import TaskSummary

from .. import catalogue, cursors, folder, log, photos, posts, runs, tasks
from ..db import get_db
from ..extensions import asok
from .blueprint import bp
from .buttons import PRODUCTS

CARDS = ("order", "sign-up", "import", "photo", "blog", "report")
SETTLED = ("succeeded", "failed", "cancelled", "abandoned")

LONGEST_WATCH = 60
"""Seconds after which the page no longer looks whether a task has got further."""


@bp.get("/")
def index() -> str:
    """Show the cards as they are now."""
    latest = {card: runs.latest(g.visitor, card) for card in CARDS}
    sign_up, report = latest["sign-up"], latest["report"]
    shown = recent_tasks()
    return render_template(
        "index.html",
        latest=latest,
        times={card: runs.response_times(g.visitor, card) for card in CARDS},
        busy={card for card, run in latest.items() if run and is_busy(run)},
        is_followed=any(is_watched(task) for task in shown),
        next_look=next_look(latest.values()),
        is_distributed=folder.is_distributed(current_app),
        is_several=bool(request.environ.get("wsgi.multiprocess")),
        is_split=request.environ.get("wsgi.multiprocess") and folder.is_private(current_app),
        products=PRODUCTS,
        product_count=catalogue.count(g.visitor),
        went_on_at=went_on_at(latest["import"]),
        newest_products=catalogue.newest(g.visitor, 4),
        photos=photos.BUNDLED,
        sizes=tasks.SIZES,
        deliveries=noted("deliveries", sign_up),
        mails=noted("mails", sign_up),
        visits=runs.recent(g.visitor, "blog", 50),
        cache_ttl=posts.TTL,
        last_error=log.last_error("in monthly_report", report.begun_at) if report else None,
        tasks=shown,
        counts=catalogue.counts(),
        next_tick=asok.periodic_tasks()[0].next_at,
        now=datetime.now(UTC),
        process=os.getpid(),
        example_folder=current_app.config["EXAMPLE_FOLDER"],
    )


def went_on_at(run: runs.Run | None) -> int | None:
    """Return at which row another process went on with the import; None if its own process has done it all."""
    task = next(iter(run.data.get("tasks", [])), None) if run else None
    return cursors.went_on_at(task) if task else None


def recent_tasks() -> list[TaskSummary]:
    """Return the newest tasks, whichever process started them."""
    # Not those of the schedule, which come all the time and have a card of their own.
    started = [task.id for task in asok.tasks() if task.scheduled_at is None]
    ids = set(started[-10:]) | set(runs.recent_tasks(10))
    # By their ids, since on Celery they go on in another process: only then are they asked how far they are.
    found = [task for task in map(asok.get, ids) if task]
    return sorted(found, key=lambda task: task.enqueued_at, reverse=True)[:10]


def next_look(latest: Iterable[runs.Run | None]) -> str:
    """Return where a page without JavaScript reloads itself to: the card that was used last."""
    run = max((run for run in latest if run), key=lambda run: run.id, default=None)
    # To the URL that it has already, # included, a browser would only scroll.
    look = request.args.get("look", 0, type=int) + 1
    return url_for(".index", look=look, _anchor=run.card if run else None)


def is_busy(run: runs.Run) -> bool:
    """Return True if a task of this run is still to be waited for."""
    return any(task is not None and is_watched(task) for task in map(asok.get, run.data.get("tasks", [])))


def is_watched(task: TaskSummary) -> bool:
    """Return True if the page should look again how far this task is."""
    return task.state not in SETTLED and time.time() - task.enqueued_at.timestamp() < LONGEST_WATCH


def noted(table: str, sign_up: runs.Run | None) -> list[Any]:
    """Return what came of a sign-up: its `deliveries` or its `mails`."""
    if sign_up is None:
        return []
    return get_db().execute(f"SELECT * FROM {table} WHERE sign_up = ? ORDER BY id", (sign_up.id,)).fetchall()


@bp.app_template_filter()
def ms(milliseconds: float) -> str:
    """Write milliseconds with as many digits as can be believed."""
    digits = 2 if milliseconds < 0.995 else 1 if milliseconds < 9.95 else 0
    return f"{milliseconds:,.{digits}f}"


@bp.app_template_filter()
def clock(at: datetime | float) -> str:
    """Write the time of day, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC) if isinstance(at, float) else at:%H:%M:%S}"


@bp.app_template_filter()
def basename(path: str) -> str:
    """Return the name of a file, for its URL."""
    return Path(path).name


@bp.app_template_filter()
def kilobytes(count: int) -> str:
    """Write a number of bytes as people do."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:,.0f} KB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"
