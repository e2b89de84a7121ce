"""The application's own tasks: plain functions of plain arguments, which any backend can run."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

from flask import current_app, url_for

from flask_asok import ImageError, current_task, make_renditions, report_progress, resize_image, task

from . import catalogue, cursors, runs
from .extensions import asok
from .photos import facts

SIZES = {"thumb": 160, "small": 320, "card": 640}


def fulfil_order(order: int, product: str, quantity: int) -> None:
    """Do what nobody has to wait for once an order was placed."""
    began = time.perf_counter()

    def done(step: str) -> None:
        runs.add(order, "steps", {"name": step, "seconds": time.perf_counter() - began})

    invoice = Path(current_app.config["EXAMPLE_FOLDER"], "invoices", f"{order}.txt")
    invoice.write_text(f"Invoice {order}\n\n{quantity} x {product}\n", encoding="utf-8")
    done("Invoice written")
    someone_elses_server()
    done("Warehouse told")
    someone_elses_server()
    done("Stock updated")


def import_products(visitor: str, path: str) -> int:
    """Write the rows of a CSV file into the catalogue, each once the supplier has confirmed it; return their number."""
    rows, me = catalogue.read(path), current_task()
    # None in the request, where nothing goes on once its process is lost.
    done = cursors.begin(me.id) if me else 0
    text = f"{len(rows)} rows, confirmed by the supplier one by one"
    report_progress(done, len(rows), text)
    for number, row in enumerate(rows[done:], done + 1):
        someone_elses_server(share=0.05)
        # In this order: a row may be written twice, which does no harm, and none is left out.
        catalogue.save(visitor, row)
        if me:
            cursors.advance(me.id, number)
        report_progress(number, len(rows), text)
    return len(rows)


@task(queue="images")
def publish_photo(run: int, upload: str) -> None:
    """Make what a site shows of an upload: an image, its renditions, nothing that gives its owner away."""
    media = Path(current_app.config["EXAMPLE_FOLDER"], "media")
    began = time.perf_counter()
    try:
        picture = resize_image(upload, to=media)
        resized = time.perf_counter() - began
        renditions = make_renditions(upload, SIZES, formats=("keep", "webp"), folder=media)
    except ImageError as error:
        # The visitor should read why; the log gets it from the error, which goes on.
        runs.note(run, error=str(error).replace(Path(upload).name, "The photo"))
        raise
    runs.note(
        run,
        before=facts(upload),
        after=asdict(picture),
        after_seconds=resized,
        gallery=renditions.as_dict()["pictures"],
        srcset={each: renditions.srcset(each, url=_media_url) for each in renditions.formats},
        seconds=time.perf_counter() - began,
    )


@asok.periodic(every=15, name="count_products")
def count_products() -> None:
    """Count the catalogue by the clock, and note which process did: one of all that serve the page."""
    task = current_task()
    assert task is not None and task.scheduled_at is not None
    catalogue.note_count(task.scheduled_at.timestamp(), os.getpid())


def monthly_report(month: str) -> str:
    """Fail, as a report does in the first month of a shop."""
    someone_elses_server()
    orders: list[float] = []
    average = sum(orders) / len(orders)
    return f"{month}: {average:.2f} per order"


def someone_elses_server(share: float = 1.0) -> None:
    """Stand in for a server on the net, whose time is not ours to spend. The other slow things here are real."""
    time.sleep(current_app.config["EXAMPLE_PAUSE"] * share)


def _media_url(name: str) -> str:
    return url_for("example.media", name=name)
