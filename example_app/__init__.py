"""The example application: `flask --app example_app run`. START HERE."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

from flask import Flask, request

from . import db, folder, log, orders, views
from .extensions import asok
from .neighbours import Neighbours

DEFAULTS: dict[str, Any] = {
    "TRUSTED_HOSTS": ["127.0.0.1", "localhost", "[::1]"],
    "MAX_CONTENT_LENGTH": 25 * 1024 * 1024,
    # Cookies know no ports: another application on this computer keeps its own.
    "SESSION_COOKIE_NAME": "flask_asok_example",
    "SESSION_COOKIE_SAMESITE": "Lax",
    "EXAMPLE_FOLDER": None,
    "EXAMPLE_PAUSE": 0.7,
    "EXAMPLE_BACKOFF": (1.0, 2.0),
    "EXAMPLE_VISITS": 300_000,
    "MAIL_SERVER": "127.0.0.1",
    "MAIL_PORT": 0,
    "MAIL_DEFAULT_SENDER": ("Corner Shop", "hello@shop.example"),
    "ASOK_WEBHOOK_ALLOW": ("127.0.0.1",),
    # Whichever process answers, the page knows every task.
    "ASOK_TRACKED": True,
}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """
    Make the application. Everything it keeps is in one folder.

    - `EXAMPLE_FOLDER` (None): the folder; by default a new temporary one, deleted at exit; with workers one that stays.
    - `EXAMPLE_PAUSE` (0.7): seconds that the servers of others take: warehouse, stock, mail, webhooks.
    - `EXAMPLE_BACKOFF` (1.0, 2.0): seconds before a webhook is tried again, for a visitor who is watching.
    - `EXAMPLE_VISITS` (300,000): rows that the blog counts, so that its database has something to do.
    - `MAIL_PORT` (0): port of the mail server that runs inside; 0 is any free one, and with workers 2525.

    All of them, and those of Flask and Flask-Asok, can be given as `FLASK_...` environment variables too.
    """
    app = Flask(__name__)
    app.config.from_mapping(DEFAULTS)
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    folder.init_app(app)
    asok.init_app(app)
    log.init_app(app)
    db.init_app(app)
    orders.init_app(app)
    app.register_blueprint(views.bp)
    app.register_blueprint(asok.status(cancel=True), url_prefix="/status")
    app.register_blueprint(asok.dashboard(access=is_local), url_prefix="/dashboard")
    neighbours = app.extensions["example_neighbours"] = Neighbours(app)
    app.before_request(neighbours.start)
    # So that the first visitor waits neither for Pillow, urllib3 and Flask-Mail nor for the template of an email.
    asok.preload()
    for name in ("mail/welcome.txt", "mail/welcome.html"):
        app.jinja_env.get_template(name)
    atexit.register(close, app)
    return app


def is_local() -> bool:
    """Return True for the visitor at this computer, who may see the tasks of all, and act on them."""
    return request.remote_addr in ("127.0.0.1", "::1")


def close(app: Flask) -> None:
    """Finish the tasks and stop the servers inside. Happens by itself at exit; closing twice is harmless."""
    # First, for the tasks still use all the rest.
    asok.close(app)
    app.extensions["example_neighbours"].stop()
    log.close(app)
