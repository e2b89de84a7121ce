"""The log: on the terminal as always, and in a file of which the page shows the end."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Flask, current_app

FORMAT = logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")


def init_app(app: Flask) -> None:
    """Have the loggers of `app` and of Flask-Asok write to both."""
    terminal, file = logging.StreamHandler(), logging.FileHandler(_path(app), encoding="utf-8", delay=True)
    handlers = app.extensions["example_log"] = [terminal, file]
    for handler in handlers:
        handler.setFormatter(FORMAT)
        logging.getLogger("asok").addHandler(handler)
    app.logger.addHandler(file)


def close(app: Flask) -> None:
    """Take the handlers of `app` away."""
    for handler in app.extensions["example_log"]:
        logging.getLogger("asok").removeHandler(handler)
        app.logger.removeHandler(handler)
        handler.close()


def last_error() -> str | None:
    """Return the newest error of the current app's log, its traceback included; None where there is none."""
    try:
        log = _path(current_app).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    # A record begins with its time in brackets at the start of a line; a traceback never does.
    errors = [record for record in log.split("\n[") if "] ERROR " in record]
    return "[" + errors[-1].strip().lstrip("[") if errors else None


def _path(app: Flask) -> Path:
    return Path(app.config["EXAMPLE_FOLDER"], "example.log")
