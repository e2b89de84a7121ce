"""Pages, and the fragments that a script asks for, as responses that no cache keeps and no other page frames."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Response, current_app, request
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..progress import plain_text

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: over https Flask-WTF wants to see where a form comes from.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

FRAGMENT = "Asok-Fragment"
"""The header with which our script asks for the part of a page that changes."""

Fields = Callable[[], Mapping[str, str]]


class Forms:
    """The hidden fields of the forms of one page, which are filled in last: each page has others."""

    def __init__(self) -> None:
        self._fields: list[Fields] = []

    def place(self, fields: Fields) -> Markup:
        """Return what stands in for the fields: no text of a task can be like that, since its signs are escaped."""
        self._fields.append(fields)
        return Markup(f"<asok-fields {len(self._fields) - 1}>")

    def fill(self, html: str) -> str:
        """Return the page with the fields in their places."""
        row = Markup('<input type="hidden" name="{}" value="{}">')
        for number, fields in enumerate(self._fields):
            inputs = "".join(row.format(name, value) for name, value in fields().items())
            html = html.replace(f"<asok-fields {number}>", inputs)
        return html


def respond(page: str, forms: Forms, *, status: int = 200, **values: Any) -> Response:
    """Return the page of this name, or what of it changes; 304 if our script has that already."""
    is_fragment = FRAGMENT in request.headers
    html = _environment().get_template(f"{page}.html" if is_fragment else "page.html").render(page=page, **values)
    response: Response = _response_class(current_app.response_class)(forms.fill(html), status=status)
    if is_fragment and status == 200:
        response.set_etag(hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:32])
        response.make_conditional(request)
    return response


@functools.cache
def asset(file: str) -> bytes:
    """Return a file that the pages load."""
    return (Path(__file__).parent / "assets" / file).read_bytes()


def _response_class(base: type[Response]) -> type[Response]:
    # Where the server takes the headers: after the application has added its own, to every response of its.
    def get_wsgi_headers(self: Response, environ: Any) -> Any:
        headers = base.get_wsgi_headers(self, environ)
        headers.update(HEADERS)
        return headers

    return type("DashboardResponse", (base,), {"get_wsgi_headers": get_wsgi_headers})


@functools.cache
def _environment() -> Environment:
    # Not the application's: that may have other delimiters, and its context processors may ask the database.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(span=span, moment=moment, age=age, plain=plain_text, number="{:,}".format)
    return environment


def span(seconds: float | None) -> str:
    """Return how long something took, in two figures or so: "12 ms", "1.4 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return ""
    if seconds < 0.995:
        return f"{max(0.0, seconds) * 1000:.0f}\N{NO-BREAK SPACE}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    parts = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    whole = round(seconds)
    at = next(n for n, (size, _) in enumerate(parts) if whole >= size)
    said = []
    for size, unit in parts[at : at + 2]:
        count, whole = divmod(whole, size)
        if count:
            said.append(f"{count}\N{NO-BREAK SPACE}{unit}")
    return " ".join(said)


def age(since: float | None) -> str:
    """Return how long ago something was, the less exactly the longer."""
    if not since:
        return ""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}\N{NO-BREAK SPACE}{unit}"
    return f"{int(seconds)}\N{NO-BREAK SPACE}s"


def moment(at: float | None) -> Markup:
    """Return a time in UTC; our script shows it in the visitor's time zone."""
    if not at:
        return Markup("")
    try:
        when = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return Markup("")
    text = (
        f"{when:%H:%M:%S} UTC"
        if time.time() - at < 43_200 and at - time.time() < 43_200
        else f"{when:%Y-%m-%d %H:%M} UTC"
    )
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        when.isoformat(timespec="milliseconds"), f"{when:%Y-%m-%d %H:%M:%S} UTC", text
    )
