"""The settings of the backends. They stand here so that they can be read without importing a backend."""

from __future__ import annotations

import os
import re
from typing import Any

from ..settings import Setting
from ..validate import Check, flag, mapping, one_of, or_none, positive_seconds, seconds, text, whole


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

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _identifier(name: str, value: object) -> str:
    if not IDENTIFIER.fullmatch(text(name, value)):
        raise ValueError(f"{name} must be a name of letters, digits and underscores, not {value!r}.")
    return text(name, value)


def _dead_after(name: str, value: object) -> float:
    if seconds(name, value) < 3:
        raise ValueError(f"{name} must be 3 seconds or more: a process says that it lives five times in that.")
    return seconds(name, value)


_OF_POSTGRES: dict[str, tuple[Any, Check]] = {
    "bind": (None, or_none(text)),
    "schema": ("public", _identifier),
    "pool": (4, whole(1)),
    "listen": (True, flag),
    "poll": (1.0, positive_seconds),
    "dead_after": (10.0, _dead_after),
    "keep": (86_400.0, positive_seconds),
    "relaxed": (False, flag),
}


def _postgres(name: str, value: object) -> dict[str, Any]:
    given = dict(mapping(name, value))
    unknown = next((key for key in given if key not in _OF_POSTGRES), None)
    if unknown is not None:
        raise ValueError(f"{name} has no key {unknown!r}. Its keys are: {', '.join(sorted(_OF_POSTGRES))}.")
    return {key: check(f"{name}[{key!r}]", given.get(key, default)) for key, (default, check) in _OF_POSTGRES.items()}


def _url(name: str, value: object) -> str:
    if not text(name, value).startswith(("postgresql://", "postgres://")):
        # Not quoted: it may hold a password.
        raise ValueError(f"{name} must be a URL that begins with postgresql://, without the name of a driver.")
    return text(name, value)


POSTGRES_SETTINGS = (
    Setting(
        "ASOK_POSTGRES", {}, _postgres,
        "`bind` of Flask-SQLAlchemy that has the tables (None, its default one); `schema` (`public`); `pool`, "
        "connections of a process (4); `listen` (True) and `poll` (1.0 s), by which workers learn of tasks; "
        "`dead_after` (10 s, at least 3), after which a process counts as lost; `keep` (86,400 s), how long settled "
        "tasks are remembered; `relaxed` (False): workers do not wait for the disk.",
    ),
    Setting(
        "ASOK_POSTGRES_URL", None, or_none(_url),
        "Where connections of our own go, past a pooler for instance. None is the URL of the bind.",
    ),
    Setting(
        "ASOK_WORKER", "command", one_of("command", "web"),
        'On postgres: `flask asok worker` runs the tasks ("command"); with "web" each process that serves runs them '
        "too, from its first request on.",
    ),
    Setting("ASOK_WORKER_THREADS", 2, whole(1), 'The threads of a worker in a process that serves, for all queues.'),
)  # fmt: skip

CELERY_SETTINGS = (
    Setting(
        "ASOK_CELERY", {}, mapping,
        'Settings of Celery, at least `{"broker_url": ...}`; `result_backend` must be a Redis if the broker is not. '
        'Not read if the application has `app.extensions["celery"]`.',
    ),
    Setting(
        "ASOK_FALLBACK", "raise", one_of("raise", "threads"),
        'When the engine cannot be reached: "raise" BackendUnavailable, or run the task on local "threads", with a '
        "warning.",
    ),
)  # fmt: skip
