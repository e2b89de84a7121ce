"""The page: its cards as they are now, and when it looks again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import current_app, g, render_template, request, url_for

from flask_asok import Task

from .. import catalogue, cursors, folder, log, photos, posts, receiver, runs, tasks
from ..db import get_db
from ..extensions import asok
from ..sources import source_of
from . import buttons
from .blueprint import bp

CARDS = ("order", "sign-up", "import", "photo", "blog", "report", "refused")
SETTLED = ("succeeded", "failed", "cancelled", "abandoned")

CODE = {
    "order": (buttons.order, buttons.door, tasks.fulfil_order),
    "sign-up": (buttons.sign_up, buttons.door, receiver.create_receiver),
    "refused": (buttons.refused, buttons.door),
    "report": (buttons.report, buttons.door, tasks.monthly_report),
    "import": (buttons.import_csv, buttons.door, tasks.import_products),
    "photo": (buttons.photo, buttons.door, tasks.publish_photo),
    "blog": (buttons.read_blog, buttons.write_post, buttons.door, posts.load_recent_posts),
    "schedule": (tasks.count_products,),
}
"""What runs for each card: its views, `door`, and its tasks."""

SHOWN_TASKS = 3

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
        backend=current_app.config["ASOK_BACKEND"],
        is_several=bool(request.environ.get("wsgi.multiprocess")),
        is_split=request.environ.get("wsgi.multiprocess") and folder.is_private(current_app),
        products=buttons.PRODUCTS,
        product_count=catalogue.count(g.visitor),
        went_on_at=went_on_at(latest["import"]),
        newest_products=catalogue.newest(g.visitor, 4),
        photos=photos.BUNDLED,
        sizes=tasks.SIZES,
        deliveries=noted("deliveries", sign_up),
        mails=noted("mails", sign_up),
        wrong_mails=noted("mails", latest["refused"]),
        visits=runs.recent(g.visitor, "blog", 50),
        cache_ttl=posts.TTL,
        last_error=log.last_error("in monthly_report", report.begun_at) if report else None,
        tasks=shown,
        counts=catalogue.counts(),
        next_tick=asok.periodic_tasks()[0].next_at,
        now=datetime.now(UTC),
        code={card: [source_of(each) for each in functions] for card, functions in CODE.items()},
        process=os.getpid(),
        example_folder=current_app.config["EXAMPLE_FOLDER"],
    )


def went_on_at(run: runs.Run | None) -> int | None:
    """Return at which row another process went on with the import; None if its own process has done it all."""
    task = next(iter(run.data.get("tasks", [])), None) if run else None
    return cursors.went_on_at(task) if task else None


def recent_tasks() -> list[Task[Any]]:
    """Return the newest tasks of the visitor, whichever process they run in."""
    # One that a second press has followed is there twice.
    ids = dict.fromkeys(runs.recent_tasks(g.visitor, 2 * SHOWN_TASKS))
    return [task for task in map(asok.get, ids) if task][:SHOWN_TASKS]


def next_look(latest: Iterable[runs.Run | None]) -> str:
    """Return where a page without JavaScript reloads itself to: the card that was used last."""
    run = max((run for run in latest if run), key=lambda run: run.id, default=None)
    # To the URL that it has already, # included, a browser would only scroll.
    look = request.args.get("look", 0, type=int) + 1
    return url_for(".index", look=look, _anchor=run.card if run else None)


def is_busy(run: runs.Run) -> bool:
    """Return True if a task of this run is still to be waited for."""
    return any(task is not None and is_watched(task) for task in map(asok.get, run.data.get("tasks", [])))


def is_watched(task: Task[Any]) -> bool:
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
def seconds(duration: float) -> str:
    """Write seconds, or milliseconds where they are few."""
    return f"{duration:,.1f} s" if duration >= 0.95 else f"{ms(duration * 1000)} ms"


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
