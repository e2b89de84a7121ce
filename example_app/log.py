"""The log: on the terminal as always, and in a file of which the page shows the end."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

from flask import Flask, current_app

TIME = "%Y-%m-%d %H:%M:%S"
FORMAT = logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s", TIME)

WENT_WELL = re.compile(r"GET /\S+ HTTP/[\d.]+\S* (2\d\d|304)\b")
"""How Flask's server logs a file, or a look at how far things are; the page itself is `GET /`."""

LONGEST_LOOK = 100_000
"""Bytes at the end of the log that are searched."""


def init_app(app: Flask) -> None:
    """Let the loggers of `app` and of Flask-Asok write to both."""
    terminal, file = logging.StreamHandler(), logging.FileHandler(_path(app), encoding="utf-8", delay=True)
    handlers = app.extensions["example_log"] = [terminal, file]
    for handler in handlers:
        handler.setFormatter(FORMAT)
        logging.getLogger("asok").addHandler(handler)
    app.logger.addHandler(file)
    logging.getLogger("werkzeug").addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Return False for what a page has asked for by itself, and got: it would hide the rest on the terminal."""
    return not WENT_WELL.search(record.getMessage())


def close(app: Flask) -> None:
    """Take the handlers of `app` away."""
    logging.getLogger("werkzeug").removeFilter(is_news)
    for handler in app.extensions["example_log"]:
        logging.getLogger("asok").removeHandler(handler)
        app.logger.removeHandler(handler)
        handler.close()


def last_error(text: str, since: float) -> str | None:
    """Return the newest error with `text` in it, traceback included, that was logged since then; None where is none."""
    try:
        with open(_path(current_app), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LOOK))
            log = "\n" + file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    began = time.strftime(TIME, time.localtime(since))
    # A record begins with its time in brackets at the start of a line; a traceback never does.
    for record in reversed(log.split("\n[")):
        if record[: len(began)] < began:
            return None
        if "] ERROR " in record and text in record:
            return "[" + record.rstrip()
    return None


def _path(app: Flask) -> Path:
    return Path(app.config["EXAMPLE_FOLDER"], "example.log")
