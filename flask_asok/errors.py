"""
Every error of Flask-Asok.

AsokError
├── NotConfigured          no app context, or the app has no extension
├── QueueFull              a bound was reached and nothing may be dropped
├── TaskCancelled          result() of a task that was cancelled
└── TaskAbandoned          result() of a task that a shutdown or a fork left behind
"""


class AsokError(Exception):
    """Base of every error that Flask-Asok raises on purpose."""


class NotConfigured(AsokError, RuntimeError):
    """Raised when there is no app context, or its app lacks what the call needs."""


class QueueFull(AsokError):
    """Raised by `background()` when a bound is reached and the caller may not run the task itself."""


class TaskCancelled(AsokError):
    """Raised by `result()` and `exception()` of a task that was cancelled before it ran."""


class TaskAbandoned(AsokError):
    """Raised by `result()` and `exception()` of a task that was not finished at shutdown or lost in a fork."""
