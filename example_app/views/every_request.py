"""What holds for every request: its clock and its visitor, what is refused, and how an error looks."""

from __future__ import annotations

import secrets
import time

from flask import abort, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Response

from .blueprint import bp


@bp.before_app_request
def start_clock() -> None:
    """Note when the request came in, from whom, and how its visitor wants it done."""
    g.clock = time.perf_counter()
    # Two browsers at once see each their own runs.
    g.visitor = session.setdefault("visitor", secrets.token_hex(8))
    # "Run both" is two requests, without JavaScript too: see `second_of_both`.
    both = request.args.get("both")
    g.is_first_of_both = request.method == "POST" and both == "first"
    modes = {"first": "blocking", "second": "background", None: request.form.get("mode")}
    g.mode = "blocking" if modes.get(both) == "blocking" else "background"


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
def show_error(error: HTTPException) -> tuple[str, int] | HTTPException | Response:
    """Show an error as a page. One that nobody caught comes here as a 500, after Flask has logged it."""
    if isinstance(error, SecurityError):
        # The request came under a name that is not ours, so no link can be made for it.
        return error
    if error.code == 413:
        megabytes = current_app.config["MAX_CONTENT_LENGTH"] // 2**20
        error.description = f"That is too much: this page takes up to {megabytes} MB at once."
    is_report = request.endpoint == "example.report"
    if is_report and error.code == 500 and g.is_first_of_both:
        # The visitor's page is this one, which "Run both" leaves out.
        return second_of_both()
    return render_template("error.html", error=error, is_report=is_report, elapsed_ms=elapsed_ms()), error.code or 500


def second_of_both() -> Response:
    """Let the browser send its form once more, for the background."""
    assert request.endpoint is not None
    return redirect(url_for(request.endpoint, both="second"), 307)


def elapsed_ms() -> float:
    """Return the milliseconds since the request came in."""
    began: float = g.clock
    return (time.perf_counter() - began) * 1000
