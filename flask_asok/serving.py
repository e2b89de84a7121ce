"""Whether this process serves: what runs in servers, and nowhere else, begins with the first request it answers."""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable

import click
from flask import Flask, request_started
from flask.cli import run_command

from . import process
from .errors import AsokError
from .logs import log, log_exception

Start = Callable[[Flask], object]

LOOK_SECONDS = 1.0
"""How long a start that had nothing to do yet is left alone."""


class Serving:
    """
    Knows whether this process answers requests of its application; made by `init_app`, lives as long as that.

    A command, a shell, a migration, an import, a reloader's parent and a master that forks its workers answer none. A
    forked child is a process of its own. An application in testing mode never serves, as long as it is in that.
    """

    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, app: Flask) -> None:
        self._app = weakref.ref(app)
        self._starts: list[Start] = []
        self._begin_anew()
        process.after_fork(self._begin_anew)

    @property
    def is_serving(self) -> bool:
        """Return True once this process has begun to answer a request."""
        process.renew()
        return self._is_serving

    def on_first_request(self, start: Start) -> None:
        """
        Call `start(app)` once in each process that serves, when it begins to answer its first request, in its thread.

        A start that returns False had nothing to do yet: it is called again, with a request, a second later at the
        earliest. So is one that raises an AsokError or a RuntimeError, which is logged once: the store is away, its
        disk is full, or the system has no thread left. Any other error is logged, and the start is not called again.
        None holds up the answer for longer than it takes.
        """
        self._starts.append(start)
        self._waiting.append(start)
        self._due = float("-inf")
        self._listen()

    def _begin_anew(self) -> None:
        self._is_serving = False
        self._due = float("-inf")
        self._told: list[Start] = []
        """Those whose failure is in the log."""
        self._waiting: deque[Start] = deque(self._starts)
        self._listen()

    def _listen(self) -> None:
        app = self._app()
        if app is not None:
            request_started.connect(self._on_request, app)

    def _on_request(self, app: Flask, **_: object) -> None:
        process.renew()
        if self.now() < self._due or app.testing or _is_in_command():
            return
        self._is_serving = True
        self._due = self.now() + LOOK_SECONDS
        again = []
        while self._waiting:
            try:
                # One of several threads gets it.
                start = self._waiting.popleft()
            except IndexError:
                break
            if self._result_of(start, app) is False:
                again.append(start)
        if again:
            self._waiting.extend(again)
            # It may have waited for long, and another request has found nothing left to start meanwhile.
            self._due = self.now() + LOOK_SECONDS
            self._listen()
        if not self._waiting:
            # The requests that follow pay nothing.
            request_started.disconnect(self._on_request, app)
            if self._waiting:
                # Another thread brought one meanwhile.
                self._listen()

    def _result_of(self, start: Start, app: Flask) -> object:
        try:
            return start(app)
        except (AsokError, RuntimeError) as error:
            if start not in self._told:
                self._told.append(start)
                log(logging.ERROR, "What begins with the first request is tried again: %s", error, app=app)
            return False
        except Exception as error:
            log_exception("What begins with the first request failed: %r", error, app=app)
            return None


def _is_in_command() -> bool:
    """Return True if a command makes this request itself, with a test client. `flask run` is the one that serves."""
    context = click.get_current_context(silent=True)
    return context is not None and context.command is not run_command
