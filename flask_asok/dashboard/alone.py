"""The dashboard on its own, for `flask asok dashboard`: on a machine whose application serves none."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from flask import Flask
from werkzeug.serving import make_server

from .routes import DashboardBlueprint


def make_viewer(app: Flask, token: str) -> Flask:
    """Return an application that shows the tasks of `app` below `/<token>`, and nothing elsewhere."""
    viewer = Flask("asok_dashboard", static_folder=None)
    viewer.secret_key = secrets.token_hex(32)
    # A visitor who knows the address has read it on this terminal.
    viewer.register_blueprint(DashboardBlueprint(lambda: "write", False, app), url_prefix=f"/{token}")
    return viewer


def serve_alone(app: Flask, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve the dashboard of `app`, and `tell` its address, until Ctrl-C; OSError if the port is taken."""
    token = secrets.token_urlsafe(32)
    server = make_server(host, port, make_viewer(app, token), threaded=True)
    # The address must be in no log.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    shown = f"[{host}]" if ":" in host else host
    tell(f"http://{shown}:{server.port}/{token}/")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
