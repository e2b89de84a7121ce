"""The settings of the backends. They stand here so that they can be read without importing a backend."""

from __future__ import annotations

import os

from ..settings import Setting
from ..validate import mapping, one_of, seconds, whole


def _queues(name: str, value: object) -> dict[str, int]:
    for queue, size in (sizes := dict(mapping(name, value))).items():
        if not isinstance(queue, str) or not queue or type(size) is not int or size < 1:
            raise ValueError(f"{name} must map names to numbers of threads, 1 or more; {queue!r}: {size!r} does not.")
    return sizes


def _shutdown_timeout(name: str, value: object) -> float:
    if value is None:
        # The reloader's parent waits for its child, and the developer for both.
        return 1.0 if os.environ.get("WERKZEUG_RUN_MAIN") == "true" else 8.0
    return seconds(name, value)


SETTINGS = (
    Setting(
        "ASOK_QUEUES", {}, _queues,
        'Queues and their numbers of threads, on top of `{"default": 8, "webhooks": 16, "images": 2, "mail": 2, '
        '"cache": 4}`.',
    ),
    Setting("ASOK_MAX_QUEUED", 10_000, whole(1), "Tasks that one queue holds. Past it see `ASOK_QUEUE_FULL`."),
    Setting(
        "ASOK_MAX_WAITING", 100_000, whole(1),
        "Tasks that wait for a delay or a retry; past it `background()` raises QueueFull.",
    ),
    Setting(
        "ASOK_QUEUE_FULL", "run", one_of("run", "raise"),
        '"run": the caller runs the task itself. "raise": `background()` raises QueueFull.',
    ),
    Setting("ASOK_RECENT_TASKS", 1_000, whole(1), "Summaries that `tasks()` and `get()` remember."),
    Setting(
        "ASOK_SHUTDOWN_TIMEOUT", None, _shutdown_timeout,
        "Seconds that tasks have to finish when the process ends. None is 8, or 1 under the development server's "
        "reloader.",
    ),
)  # fmt: skip

CELERY_SETTINGS = (
    Setting(
        "ASOK_CELERY", {}, mapping,
        'Settings of Celery, at least `{"broker_url": ...}`; `result_backend` must be a Redis if the broker is not. '
        'Not read if the application has `app.extensions["celery"]`.',
    ),
    Setting(
        "ASOK_FALLBACK", "raise", one_of("raise", "threads"),
        'When the broker cannot be reached: "raise" BackendUnavailable, or run the task on local "threads", with a '
        "warning.",
    ),
)  # fmt: skip
