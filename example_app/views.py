"""The page and its buttons. Each button does its work in the request or in the background: see `door`."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Unpack

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    url_for,
)
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response as BaseResponse

from flask_asok import (
    ImageError,
    MailError,
    TaskSummary,
    WebhookError,
    background,
    check_address,
    save_upload,
    send_mail,
    send_webhook,
    warm_cache,
)
from flask_asok.options import OptionValues

from . import catalogue, folder, log, photos, posts, runs, tasks
from .db import get_db
from .extensions import asok

bp = Blueprint("example", __name__)

CARDS = ("order", "sign-up", "import", "photo", "blog", "report")
PRODUCTS = ("Coffee mug", "Notebook", "Desk lamp")
SETTLED = ("succeeded", "failed", "cancelled", "abandoned")

LONGEST_WATCH = 60
"""Seconds after which the page no longer looks whether a task has got further."""


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
        newest_products=catalogue.newest(g.visitor, 4),
        photos=photos.BUNDLED,
        sizes=tasks.SIZES,
        deliveries=noted("deliveries", sign_up),
        mails=noted("mails", sign_up),
        visits=runs.recent(g.visitor, "blog", 50),
        cache_ttl=posts.TTL,
        last_error=log.last_error("in monthly_report", report.begun_at) if report else None,
        tasks=shown,
    )


@bp.post("/order")
def order() -> BaseResponse:
    """Take an order. What is to be done for it needs nobody's patience."""
    product = request.form.get("product", "")
    quantity = request.form.get("quantity", 0, type=int)
    if product not in PRODUCTS or not 1 <= quantity <= 99:
        abort(400, "Order 1 to 99 of what is on the list.")
    run = begin("order", product=product, quantity=quantity)
    door(run)(tasks.fulfil_order, run, product, quantity)
    return answer(run)


@bp.post("/sign-up")
def sign_up() -> BaseResponse:
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


@bp.post("/import")
def import_csv() -> BaseResponse:
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
    door(run, tracked=True, unique=f"import:{g.visitor}")(tasks.import_products, g.visitor, str(path))
    return answer(run)


@bp.post("/photo")
def photo() -> BaseResponse:
    """Take a photo in, and make of it what the site shows."""
    uploads = Path(current_app.config["EXAMPLE_FOLDER"], "uploads")
    bundled, upload = request.form.get("bundled"), request.files.get("photo")
    if bundled in photos.BUNDLED:
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
def read_blog() -> BaseResponse:
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
def write_post() -> BaseResponse:
    """Publish a post, and warm the list before the next reader comes."""
    title = request.form.get("title", "").strip()[:80] or "Untitled"
    run = begin("blog", wrote=title)
    posts.add_post(title)
    door(run)(warm_cache, posts.KEY, posts.load_recent_posts, posts.TTL, cache=posts.cache)
    return answer(run)


@bp.post("/blog/clear")
def clear_cache() -> BaseResponse:
    """Empty the cache, so that the next read is a cold one."""
    posts.cache.clear()
    run = begin("blog", emptied=True)
    runs.leave_out(run)
    return answer(run)


@bp.post("/report")
def report() -> BaseResponse:
    """Do what fails. In the background that is the log's business; in the request it is the visitor's."""
    run = begin("report")
    try:
        door(run)(tasks.monthly_report, "November")
    finally:
        runs.answered(run, elapsed_ms())
    return answer(run)


@bp.get("/media/<path:name>")
def media(name: str) -> Response:
    """Send an image that was published."""
    return send_from_directory(Path(current_app.config["EXAMPLE_FOLDER"], "media"), name)


@bp.get("/uploads/<path:name>")
def uploads(name: str) -> Response:
    """Send an original. A real site keeps that folder private: what the camera noted is still inside."""
    return send_from_directory(Path(current_app.config["EXAMPLE_FOLDER"], "uploads"), name)


@bp.get("/invoices/<int:order>")
def invoice(order: int) -> Response:
    """Send an invoice that was written."""
    return send_from_directory(Path(current_app.config["EXAMPLE_FOLDER"], "invoices"), f"{order}.txt")


@bp.get("/mails/<int(max=9223372036854775807):mail>")
def mail(mail: int) -> Response:
    """Send the HTML of an email that came in. It is somebody else's: no script, no form, nothing from the net."""
    row = get_db().execute("SELECT html FROM mails WHERE id = ?", (mail,)).fetchone()
    if row is None or row["html"] is None:
        abort(404)
    response = Response(row["html"])
    response.headers["Content-Security-Policy"] = (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    )
    return response


@bp.app_template_filter()
def ms(milliseconds: float) -> str:
    """Write milliseconds with as many digits as can be believed."""
    digits = 2 if milliseconds < 0.995 else 1 if milliseconds < 9.95 else 0
    return f"{milliseconds:,.{digits}f}"


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


@bp.before_app_request
def start_clock() -> None:
    """Note when the request came in, from whom, and how its visitor wants it done."""
    g.clock = time.perf_counter()
    # Two browsers at once see each their own runs.
    g.visitor = session.setdefault("visitor", secrets.token_hex(8))
    g.mode = "blocking" if request.form.get("mode") == "blocking" else "background"


@bp.before_app_request
def refuse_other_sites() -> None:
    """Take no form from a page of another site. A site with accounts needs CSRF tokens besides."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403)


@bp.after_app_request
def restrict(response: Response) -> Response:
    """Tell the browser to load from here only, and to guess no content types."""
    response.headers.setdefault("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@bp.app_errorhandler(HTTPException)
def show_error(error: HTTPException) -> tuple[str, int] | HTTPException:
    """Show an error as a page. One that nobody caught comes here as a 500, after Flask has logged it."""
    if isinstance(error, SecurityError):
        # The request came under a name that is not ours, so no link can be made for it.
        return error
    if error.code == 413:
        megabytes = current_app.config["MAX_CONTENT_LENGTH"] // 2**20
        error.description = f"That is too much: this page takes up to {megabytes} MB at once."
    is_report = request.endpoint == "example.report"
    return render_template("error.html", error=error, is_report=is_report, elapsed_ms=elapsed_ms()), error.code or 500


def begin(card: str, **data: Any) -> int:
    """Note that a button of this card was pressed."""
    run = runs.begin(g.visitor, card, g.mode)
    runs.note(run, **data)
    return run


def answer(run: int) -> BaseResponse:
    """Answer the button: back to the page, which shows how long this took."""
    card = runs.answered(run, elapsed_ms())
    return redirect(url_for(".index", _anchor=card), 303)


def refuse(run: int, why: str) -> BaseResponse:
    """Answer the button with the reason why nothing came of it."""
    runs.note(run, refused=why)
    runs.leave_out(run)
    return answer(run)


def elapsed_ms() -> float:
    """Return the milliseconds since the request came in."""
    began: float = g.clock
    return (time.perf_counter() - began) * 1000


def recent_tasks() -> list[TaskSummary]:
    """Return the newest tasks, whichever process started them."""
    ids = {task.id for task in asok.tasks()[-10:]} | set(runs.recent_tasks(10))
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
