"""The logger of background tasks, and the handler it falls back on where the application configured none."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any, TextIO

NAME = "asok.background"


class _DefaultHandler(logging.StreamHandler[TextIO]):
    """Write to the `sys.stderr` of the moment, and only while no handler of the application would hear the record."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def handle(self, record: logging.LogRecord) -> bool:
        return not _has_own_handler(logging.getLogger(record.name)) and bool(super().handle(record))


default_handler: _DefaultHandler = _DefaultHandler()


def _has_own_handler(logger: logging.Logger | None) -> bool:
    while logger is not None:
        if any(handler is not default_handler for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def log(level: int, message: str, *args: object, **kwargs: Any) -> None:
    """
    Log for `asok.background`; never raise, whatever the application's handlers do.

    The logger is looked up here and not at import, since `dictConfig` disables the loggers that exist before it.
    """
    try:
        logger = logging.getLogger(NAME)
        if not logger.hasHandlers():
            logger.addHandler(default_handler)
        logger.log(level, message, *map(_printable, args), **kwargs)
    except BaseException as error:
        _complain()
        if is_ctrl_c(error):
            raise


def log_exception(message: str, *args: object) -> None:
    """Log the exception being handled as an error, with its traceback."""
    log(logging.ERROR, message, *args, exc_info=True)


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
    """Return `repr(value)`, or text that says it cannot be had."""
    return repr(_printable(value))
