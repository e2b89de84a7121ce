"""The buttons. Each does its work in the request or in the background: see `door`."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

from flask import abort, current_app, g, redirect, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response

from flask_asok import (
    ImageError,
    MailError,
    WebhookError,
    background,
    check_address,
    save_upload,
    send_mail,
    send_webhook,
    warm_cache,
)
from flask_asok.options import OptionValues

from .. import catalogue, orders, photos, posts, runs, tasks
from .blueprint import bp
from .every_request import elapsed_ms, second_of_both

PRODUCTS = ("Coffee mug", "Notebook", "Desk lamp")


def door(run: int, **options: Unpack[OptionValues]) -> Callable[..., Any]:
    """
    Return what runs a function for this button: the visitor chose.

    This is all the difference that Flask-Asok makes: `fn(x)` or `background(fn, x)`.
    """
    if g.mode == "blocking":
        return lambda fn, *args, **kwargs: fn(*args, **kwargs)

    def in_background(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        task = background.using(**options)(fn, *args, **kwargs)
        runs.add(run, "tasks", task.id)

    return in_background


@bp.post("/order")
def order() -> Response:
    """Take an order. What is to be done for it needs nobody's patience."""
    product = request.form.get("product", "")
    quantity = request.form.get("quantity", 0, type=int)
    if product not in PRODUCTS or not 1 <= quantity <= 99:
        abort(400, "Order 1 to 99 of what is on the list.")
    run = begin("order", product=product, quantity=quantity)
    door(run)(tasks.fulfil_order, run, product, quantity)
    return answer(run)


@bp.post("/sign-up")
def sign_up() -> Response:
    """Tell another site of a new user, and welcome them by email."""
    name, address = request.form.get("name", "").strip()[:80], request.form.get("email", "").strip()[:200]
    fail = 2 if request.form.get("fail") else 0
    run = begin("sign-up", name=name, email=address)
    try:
        # Such an email would fail in the background, and nobody else need hear of this sign-up.
        check_address(address)
    except ValueError as error:
        return refuse(run, str(error))
    try:
        door(run)(
            send_mail, to=address, subject=f"Welcome, {name}", template="mail/welcome", context={"name": name},
            headers={"X-Sign-Up": str(run)},
        )  # fmt: skip
    except MailError as error:
        runs.note(run, mail_error=str(error))
    # By its own policy a webhook waits 5 seconds, then 30: what a site should do, and too long to watch.
    tell = door(run, backoff=current_app.config["EXAMPLE_BACKOFF"])
    url = current_app.extensions["example_neighbours"].receiver_url + f"?fail={fail}"
    try:
        tell(send_webhook, url, {"event": "user.created", "sign_up": run, "name": name}, secret="shop")
    except WebhookError as error:
        runs.note(run, webhook_error=str(error))
    return answer(run)


@bp.post("/refused")
def refused() -> Response:
    """Take an order whose payment is refused: nothing of it should be left."""
    run = begin("refused")
    order = orders.Order(email="ada@shop.example")
    orders.db.session.add(order)
    orders.db.session.flush()
    door(run)(
        send_mail, to=order.email, subject=f"Your order {order.id}", body="Thank you for your order.",
        headers={"X-Sign-Up": str(run)},
    )  # fmt: skip
    orders.db.session.rollback()
    return answer(run)


@bp.post("/import")
def import_csv() -> Response:
    """Import a price list. While one of this visitor is under way, a second press follows that one."""
    upload, run = request.files.get("csv"), begin("import")
    path = catalogue.BUNDLED
    if upload:
        path = Path(current_app.config["EXAMPLE_FOLDER"], "imports", f"{run}.csv")
        upload.save(path)
    try:
        # What is wrong with a file is for its visitor, so it is found before the page answers.
        catalogue.read(path)
    except ValueError as error:
        return refuse(run, str(error))
    options = OptionValues(durable=True, tracked=True, unique=f"import:{g.visitor}")
    door(run, **options)(tasks.import_products, g.visitor, str(path))
    return answer(run)


@bp.post("/photo")
def photo() -> Response:
    """Take a photo in, and make of it what the site shows."""
    uploads = Path(current_app.config["EXAMPLE_FOLDER"], "uploads")
    bundled, upload = request.form.get("bundled"), request.files.get("photo")
    # "Run both" names one too, for a visitor who has chosen none.
    if bundled in photos.BUNDLED and not (upload and "both" in request.args):
        upload = FileStorage(io.BytesIO((photos.FOLDER / bundled).read_bytes()), bundled)
    run = begin("photo")
    if not upload:
        return refuse(run, "Choose a photo first.")
    try:
        path = save_upload(upload, uploads)
        door(run)(tasks.publish_photo, run, path)
    except ImageError as error:
        return refuse(run, str(error))
    return answer(run)


@bp.post("/blog/read")
def read_blog() -> Response:
    """Read the blog: from the cache, or by counting anew."""
    run = begin("blog")
    began = time.time()
    clock = time.perf_counter()
    if g.mode == "blocking":
        recent = posts.load_recent_posts()
        kind = "no cache"
    else:
        recent = posts.cache.remember(posts.KEY, posts.load_recent_posts)
        kind = posts.kind(recent, began)
    runs.note(run, read_ms=(time.perf_counter() - clock) * 1000, kind=kind, **recent)
    return answer(run)


@bp.post("/blog/write")
def write_post() -> Response:
    """Publish a post, and warm the list before the next reader comes."""
    title = request.form.get("title", "").strip()[:80] or "Untitled"
    run = begin("blog", wrote=title)
    posts.add_post(title)
    door(run)(warm_cache, posts.KEY, posts.load_recent_posts, posts.TTL, cache=posts.cache)
    return answer(run)


@bp.post("/blog/clear")
def clear_cache() -> Response:
    """Empty the cache, so that the next read is a cold one."""
    posts.cache.clear()
    run = begin("blog", emptied=True)
    runs.leave_out(run)
    return answer(run)


@bp.post("/report")
def report() -> Response:
    """Do what fails. In the background that is the log's business; in the request it is the visitor's."""
    run = begin("report")
    try:
        door(run)(tasks.monthly_report, "November")
    finally:
        runs.answered(run, elapsed_ms())
    return answer(run)


def begin(card: str, **data: Any) -> int:
    """Note that a button of this card was pressed."""
    run = runs.begin(g.visitor, card, g.mode)
    runs.note(run, **data)
    return run


def answer(run: int) -> Response:
    """Answer the button: back to the page, which shows how long this took; or on to the second of both."""
    card = runs.answered(run, elapsed_ms())
    return second_of_both() if g.is_first_of_both else redirect(url_for(".index", _anchor=card), 303)


def refuse(run: int, why: str) -> Response:
    """Answer the button with the reason why nothing came of it."""
    runs.note(run, refused=why)
    runs.leave_out(run)
    g.is_first_of_both = False
    return answer(run)
