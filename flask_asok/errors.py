"""
Every error of Flask-Asok.

AsokError
├── NotConfigured          no app context, or the app has no extension
├── QueueFull              a bound was reached and nothing may be dropped
├── TaskCancelled          result() of a task that was cancelled; in one that is to stop, a report of its progress
├── TaskAbandoned          result() of a task that a shutdown or a fork left behind
├── TaskTimeout            raised in a task that has reached its soft time limit
├── TaskFailed             result() of a task that failed in another process with an error that cannot be made again
├── ResultNotKept          result() of a task that succeeded elsewhere, whose value was not kept
├── BackendUnavailable     the broker of a distributed backend cannot be reached
├── MessageRefused         a message for a worker is unsigned, forged or malformed
├── CacheUnavailable       a value was not deleted: the store cannot be reached (recipes/cache/errors.py)
├── ImageError             an image cannot be processed; `reason` says why (recipes/images/errors.py)
├── MailError              an email was not sent (recipes/mail/errors.py)
│   ├── MailUnavailable    for now: no connection, connection lost, or an SMTP answer 4xx
│   └── MailRefused        for good: SMTP 5xx, no verified TLS, login refused, an invalid address
└── WebhookError           a webhook was not delivered (recipes/webhooks/errors.py)
    ├── WebhookUnavailable for now: no connection, no answer in time, or 408, 425, 429, 5xx
    ├── WebhookRejected    for good: any other answer, redirects among them
    │   └── WebhookGone    410: the receiver wants no more webhooks
    ├── WebhookBlocked     the address is not allowed; nothing was sent
    └── WebhookNotVerified the signature of an incoming webhook does not match
"""

from __future__ import annotations

from typing import ClassVar


class AsokError(Exception):
    """Base of every error that Flask-Asok raises on purpose."""

    is_answer: ClassVar[bool] = False
    """Does it report what another machine did? The log then shows no frames of Flask-Asok."""
    retry_after: float | None = None
    """How many seconds that machine asked to wait: a task that raises the error is not retried before."""


class NotConfigured(AsokError, RuntimeError):
    """Raised when there is no app context, or its app lacks what the call needs."""


class QueueFull(AsokError):
    """Raised by `background()` when a bound is reached and the caller may not run the task itself."""


class TaskCancelled(AsokError):
    """
    Raised by `result()` and `exception()` of a task that was cancelled.

    And in a task that runs, by `report_progress` and `track`, once it was asked to stop: let it through.
    """


class TaskAbandoned(AsokError):
    """Raised by `result()` and `exception()` of a task that was not finished at shutdown or lost in a fork."""


class TaskFailed(AsokError):
    """Raised by `result()` with the text of an error from another process whose type cannot be made again here."""


class TaskTimeout(AsokError):
    """
    Raised in a task that has run for as long as its `timeout`, on a backend whose processes can be killed.

    It is also the error that the backend's own engine has for that.
    """


class ResultNotKept(AsokError):
    """Raised by `result()` of a task that succeeded but whose value was not kept; the text says why."""


class BackendUnavailable(AsokError):
    """Raised by `background()` when the broker cannot be reached; the task was not accepted."""


class MessageRefused(AsokError):
    """Raised in a worker for a message that is not signed by the application, or malformed. Logged, never run."""


def __getattr__(name: str) -> type[AsokError]:
    """Return the error of a recipe, which stands in its room: `from flask_asok.errors import MailError`."""
    package = __name__.partition(".")[0]
    kinds = [AsokError]
    for kind in kinds:
        if kind.__name__ == name and kind.__module__.partition(".")[0] == package:
            return kind
        kinds += kind.__subclasses__()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
