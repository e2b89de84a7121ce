"""The folder that everything is kept in, and what the processes that use it have in common."""

from __future__ import annotations

import atexit
import base64
import json
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
from pathlib import Path

from flask import Flask


def init_app(app: Flask) -> None:
    """Find the folder: on threads a new one that is deleted at exit, elsewhere the one of all processes."""
    config = app.config
    app.extensions["example_folder"] = None
    if config["EXAMPLE_FOLDER"] is None:
        config["EXAMPLE_FOLDER"] = shared() if is_distributed(app) else _temporary(app)
    folder = Path(config["EXAMPLE_FOLDER"])
    for name in ("uploads", "media", "invoices", "imports"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _set_missing(app, **_secrets(folder / "secrets.json"))
    if is_distributed(app):
        # A worker cannot ask the web process which port it got, nor look into its memory.
        _set_missing(app, MAIL_PORT=2525, CACHE_REDIS_URL=config.get("ASOK_CELERY", {}).get("result_backend"))
    else:
        _set_missing(app, ASOK_STORE=str(folder.resolve() / "asok.sqlite3"))


def is_distributed(app: Flask) -> bool:
    """Return True if tasks run in other processes."""
    return app.config.get("ASOK_BACKEND") in ("celery", "postgres")


def is_private(app: Flask) -> bool:
    """Return True if this process made the folder for itself, so that those beside it have others."""
    return bool(app.extensions["example_folder"] == os.getpid())


def _set_missing(app: Flask, **values: object) -> None:
    for key, value in values.items():
        if not app.config.get(key):
            app.config[key] = value


def _temporary(app: Flask) -> str:
    folder = tempfile.mkdtemp(prefix="flask-asok-example-")
    app.extensions["example_folder"] = os.getpid()

    def delete() -> None:
        # A forked worker that ends leaves it to the others.
        if is_private(app):
            shutil.rmtree(folder, ignore_errors=True)

    # Registered before `close`, so that it runs after it.
    atexit.register(delete)
    _end_in_order_at_sigterm()
    return folder


def _end_in_order_at_sigterm() -> None:
    """Let the process end as at Ctrl-C, unless a server has a way of its own: by default it would end at once."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def shared() -> str:
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir(), f"flask-asok-example-shared-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # Its name can be guessed, so somebody else may have made it first.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (user != "" and status.st_uid != user):
        raise RuntimeError(f"{folder} belongs to somebody else. Set FLASK_EXAMPLE_FOLDER to a folder of your own.")
    return str(folder)


def _secrets(path: Path) -> dict[str, object]:
    """Return the secrets of the folder. Whichever process comes first makes them."""
    if not path.exists():
        webhook = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        made = json.dumps({"SECRET_KEY": secrets.token_hex(), "ASOK_WEBHOOK_SECRETS": {"shop": webhook}})
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(made)
        try:
            # Unlike a rename it does not replace what another process made meanwhile.
            os.link(name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    kept: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return kept
