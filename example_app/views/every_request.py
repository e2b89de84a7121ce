"""What holds for every request: its clock and its visitor, what is refused, and how an error looks."""

from __future__ import annotations

import secrets
import time

from flask import Response, abort, current_app, g, render_template, request, session
from werkzeug.exceptions import HTTPException, SecurityError

from .blueprint import bp


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


def elapsed_ms() -> float:
    """Return the milliseconds since the request came in."""
    began: float = g.clock
    return (time.perf_counter() - began) * 1000
