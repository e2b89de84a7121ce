"""The loggers of Flask-Asok, whose handlers a record reaches, and the one it falls back on."""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TextIO

from flask import Flask, current_app
from flask.logging import default_handler as flask_handler
from flask.logging import wsgi_errors_stream

from .current import current
from .errors import AsokError
from .progress import plain_text

NAME = "asok.background"

ExcInfo = BaseException | tuple[type[BaseException], BaseException, TracebackType] | None


class _DefaultHandler(logging.StreamHandler[TextIO]):
    """Write to the `sys.stderr` of the moment. Set on no logger: it gets what no handler of the application hears."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


default_handler: _DefaultHandler = _DefaultHandler()


class TaskFilter(logging.Filter):
    """
    Give each record the fields `task_id`, `task_name` and `task_attempt` of the task that it is logged in.

    For a handler, in `dictConfig` too: `{"()": "flask_asok.logs.TaskFilter"}`. They are None outside of tasks, so that
    a format may always name them. A record about a task has its own, which stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, and let every record pass."""
        # What a record with an id of its own leaves open is not of the task that it is logged in.
        task = None if hasattr(record, "task_id") else current.get()
        own = (None, None, None) if task is None else (task.id, task.name, task.attempts)
        for name, value in zip(("task_id", "task_name", "task_attempt"), own, strict=True):
            record.__dict__.setdefault(name, value)
        return True


def log(
    level: int,
    message: str,
    *args: object,
    app: Flask | None = None,
    logger: str = NAME,
    exc_info: ExcInfo = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """
    Log for `logger`, and for the handlers of the logger of `app`; never raise, whatever the application's handlers do.

    `app` is the one that the record is about, None for the current one, if there is one. A handler that both loggers
    have gets the record once.
    """
    try:
        own = logging.getLogger(logger)
        if not own.isEnabledFor(level):
            return
        caller = sys._getframe(1)
        record = own.makeRecord(
            own.name, level, caller.f_code.co_filename, caller.f_lineno, message, tuple(map(_printable, args)),
            (type(exc_info), exc_info, exc_info.__traceback__) if isinstance(exc_info, BaseException) else exc_info,
            caller.f_code.co_name, extra,
        )  # fmt: skip
        kept = own.filter(record)
        if kept:
            told = logging.Logger(own.name)
            told.propagate = False
            told.handlers = [_Outlet(own, app)]  # type: ignore[list-item]
            # The method that Sentry, New Relic and others wrap, in order to hear of every record.
            told.callHandlers(kept if isinstance(kept, logging.LogRecord) else record)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        _complain()


def log_exception(
    message: str,
    *args: object,
    app: Flask | None = None,
    logger: str = NAME,
    extra: dict[str, Any] | None = None,
) -> None:
    """Log the exception being handled as an error, with its traceback."""
    log(logging.ERROR, message, *args, app=app, logger=logger, exc_info=sys.exc_info()[1], extra=extra)


class _Outlet:
    """The only handler that the record is given to, in place of all that get it."""

    level = logging.NOTSET

    def __init__(self, own: logging.Logger, app: Flask | None) -> None:
        self._own = own
        self._app = app

    def handle(self, record: logging.LogRecord) -> None:
        _hand_out(record, self._own, self._app)


def _hand_out(record: logging.LogRecord, own: logging.Logger, app: Flask | None) -> None:
    of_ours = dict.fromkeys(_handlers(own))
    # Not the record itself: a filter of the application's logger may change it for that one's handlers.
    told = copy.copy(record)
    of_app: list[logging.Handler] = []
    try:
        logger = _logger_of(app)
        kept = logger is not None and logger.isEnabledFor(record.levelno) and logger.filter(told)
        if logger is not None and kept:
            told = kept if isinstance(kept, logging.LogRecord) else told
            found = dict.fromkeys(_handlers(logger, stop_at=logging.getLogger()))
            of_app = [handler for handler in found if _hears(handler, record) and handler not in of_ours]
    except Exception:  # a filter that raises
        _complain()
    for handler in of_ours:
        if record.levelno >= handler.level:
            _quietly(handler, record)
    if not of_ours and not any(map(_writes_to_stderr, of_app)):
        _quietly(default_handler, record)
    for handler in of_app:
        _quietly(handler, told)


def _logger_of(app: Flask | None) -> logging.Logger | None:
    if app is None:
        if not current_app:
            return None
        app = current_app._get_current_object()  # type: ignore[attr-defined]
    # Asking for `app.logger` would make it, and Flask's default handler with it. Any object may have been set there.
    logger = vars(app).get("logger")
    return logger if isinstance(logger, logging.Logger) else logging.getLogger(app.name)


def _handlers(logger: logging.Logger, stop_at: logging.Logger | None = None) -> Iterator[logging.Handler]:
    """Yield the handlers of a logger and of those that it propagates to, but for those of `stop_at`."""
    # The root logger hears of a record by way of ours, where that has not been cut off from it.
    current: logging.Logger | None = logger
    while current is not None:
        yield from current.handlers
        current = current.parent if current.propagate else None
        if current is stop_at:
            return


def _hears(handler: logging.Handler, record: logging.LogRecord) -> bool:
    # Flask's own handler is there for want of another, as ours is.
    return handler is not flask_handler and record.levelno >= handler.level


def _writes_to_stderr(handler: logging.Handler) -> bool:
    """Would our own line be the second one on the console?"""
    stream = getattr(handler, "stream", None)
    return stream is not None and (stream is sys.stderr or stream is wsgi_errors_stream)


def _quietly(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Call a handler of the application; one that raises must not keep the others from the record."""
    try:
        handler.handle(record)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        _complain()


def is_ctrl_c(error: BaseException) -> bool:
    """Is this meant for the process? Anything else that a receiver or a handler raises must not end a worker."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _complain() -> None:
    """Say on stderr that a handler of the application raised, as `logging.Handler.handleError` would."""
    if logging.raiseExceptions and sys.stderr is not None:
        error = sys.exc_info()[1]
        print(f"Logging of a background task failed: {safe_repr(error)}", file=sys.stderr)


class _Unprintable:
    """Stand in a log record for a value whose own repr() raises, so that the record is not lost."""

    def __init__(self, value: object) -> None:
        self.text = f"<{type(value).__name__} whose repr() failed>"

    def __repr__(self) -> str:
        return self.text


def _printable(value: object) -> object:
    try:
        repr(value)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return _Unprintable(value)
    return value


def safe_repr(value: object) -> str:
    """Return `repr(value)`, or text that says it cannot be had; no half of a character, which no store takes."""
    return plain_text(repr(_printable(value)))


def about_of(args: Iterable[object]) -> str:
    """
    Return what one of a task's arguments has to say in a line of the log that no error of the task stands in.

    That is its `__asok_about__`, a text without secrets.
    """
    return next((argument.__asok_about__ for argument in args if hasattr(type(argument), "__asok_about__")), "")  # type: ignore[attr-defined]


def frames_of(error: BaseException, cause: BaseException) -> ExcInfo:
    """
    Return the `exc_info` for a record about `error`, whose `cause` may be the error itself.

    Of an answer of another machine (`AsokError.is_answer`) only the application's frames are shown, and where it has
    none, since the task was a recipe, nothing is.
    """
    if not (isinstance(cause, AsokError) and cause.is_answer):
        return error
    frames = []
    link = error.__traceback__
    while link is not None:
        frames.append(link)
        link = link.tb_next
    while frames and _is_ours(frames[-1].tb_frame):
        frames.pop()
    shown = None
    for link in reversed(frames):
        shown = TracebackType(shown, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return None if shown is None else (type(error), error, shown)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(f"{__package__}.")
