"""The files and emails that came of the buttons."""

from __future__ import annotations

from pathlib import Path

from flask import Response, abort, current_app, send_from_directory

from ..db import get_db
from .blueprint import bp


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
