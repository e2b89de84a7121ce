"""FlaskAsok, the extension: START HERE."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, ParamSpec, TypeVar

from flask import Blueprint, Flask, current_app
from werkzeug.local import LocalProxy

from .backends.base import Backend
from .cli import asok_cli
from .dispatch import background
from .recipes.cache import warm_all, warm_cache
from .recipes.cache.settings import DEFAULTS as CACHE_DEFAULTS
from .recipes.images import resize_image
from .recipes.images.limits import DEFAULTS as IMAGE_DEFAULTS
from .recipes.mail import send_mail
from .recipes.mail import settings as mail
from .recipes.webhooks import send_webhook
from .recipes.webhooks import settings as webhooks
from .state import KEY, State, state_of
from .summaries import TaskSummary
from .tasks import Task
from .triggers import abandon_held, all_held, listen

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUES = {"default": 8, "webhooks": 16, "images": 2, "mail": 2, "cache": 4}

DEFAULTS: dict[str, Any] = {
    "ASOK_BACKEND": "threads",
    "ASOK_QUEUES": {},
    "ASOK_MAX_QUEUED": 10_000,
    "ASOK_MAX_WAITING": 100_000,
    "ASOK_QUEUE_FULL": "run",
    "ASOK_RECENT_TASKS": 1_000,
    "ASOK_SHUTDOWN_TIMEOUT": None,
    "ASOK_CELERY": {},
    "ASOK_TASK_MODULES": None,
    "ASOK_FALLBACK": "raise",
    "ASOK_MESSAGE_MAX_BYTES": 8 * 1024 * 1024,
    **IMAGE_DEFAULTS,
    **CACHE_DEFAULTS,
    **mail.DEFAULTS,
    **webhooks.DEFAULTS,
}


def _in_background(recipe: Callable[P, R]) -> Callable[P, Task[R]]:
    @functools.wraps(recipe)
    def run(*args: P.args, **kwargs: P.kwargs) -> Task[R]:
        return background(recipe, *args, **kwargs)

    run.__doc__ = f"Run `background({recipe.__name__}, ...)` and return its Task; takes what `{recipe.__name__}` takes."
    return run


class FlaskAsok:
    """
    Background work for Flask: `FlaskAsok(app)`, or `asok = FlaskAsok()` and `asok.init_app(app)` in a factory.

    It holds no application: one object may serve several, each with its own state at `app.extensions["asok"]`. Methods
    find theirs through `current_app`, so they need an app context.
    """

    background: Final = background
    """`flask_asok.background`, the same object."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """
        Set up `app`: read its configuration, once and now. No thread starts and nothing is connected.

        - `ASOK_BACKEND` ("threads"): where tasks run. "threads" of this process; "celery" workers; "immediate", for
          tests, at the call; or the name that another package registers as an entry point in `flask_asok.backends`.
        - `ASOK_QUEUES` ({}): queues and their number of threads, on top of `{"default": 8, "webhooks": 16, "images": 2,
          "mail": 2, "cache": 4}`.
        - `ASOK_MAX_QUEUED` (10,000): tasks that one queue holds. Past it see `ASOK_QUEUE_FULL`.
        - `ASOK_MAX_WAITING` (100,000): tasks that wait for a delay; past it `background()` raises QueueFull.
        - `ASOK_QUEUE_FULL` ("run"): "run", the caller runs the task itself; "raise", `background()` raises QueueFull.
        - `ASOK_RECENT_TASKS` (1,000): summaries that `tasks()` and `get()` remember.
        - `ASOK_SHUTDOWN_TIMEOUT` (None): seconds that tasks have to finish when the process ends; None is 8, or 1
          under the development server's reloader.
        - `ASOK_IMAGE_MAX_PIXELS` (64,000,000): width times height of a picture; a larger one is refused before it is
          decoded.
        - `ASOK_IMAGE_MAX_ANIMATION_PIXELS` (100,000,000): width times height times frames of an animation.
        - `ASOK_IMAGE_MAX_MEMORY` (218,103,808): bytes that it takes to decode a picture, as its head tells.
        - `ASOK_IMAGE_MAX_BYTES` (33,554,432): size of a file that `save_upload()` accepts.
        - `ASOK_CACHE_LOCK_TIMEOUT` (30.0): seconds that a reader waits at most for a value that another one loads.
        - `ASOK_CACHE_ERROR_COOLDOWN` (5.0): seconds for which a cached value is not refreshed after its loader has
          failed, doubling up to 60; and for which a Redis that does not answer is not asked again.
        - `ASOK_CACHE_REDIS_TIMEOUT` (0.4): seconds that the cache's Redis has to connect and to answer.
        - `ASOK_MAIL_TIMEOUT` (10.0): seconds that the SMTP server has to connect and to answer a command.
        - `ASOK_MAIL_CA_FILE` (None): path of certificates (PEM) to trust for mail, besides the system's.
        - `ASOK_MAIL_HELLO` (None): the name that mail servers are told; None is this machine's full name, looked up
          once, or its address.
        - `ASOK_WEBHOOK_ALLOW` (()): hosts ("hooks.local") and networks ("10.1.0.0/16") that webhooks may go to though
          they are not public. Addresses where clouds keep credentials stay denied.
        - `ASOK_WEBHOOK_SECRETS` ({}): names and their `whsec_...` secret, or a list of them, the newest first.
        - `ASOK_WEBHOOK_MAX_BYTES` (262,144): the longest payload.
        - `ASOK_WEBHOOK_PER_HOST` (4): deliveries to one host at once, in one process; one while it does not answer.
        - `ASOK_WEBHOOK_PROXY` (None): "http://user:password@host:port" that all webhooks go through; it then decides
          which addresses are allowed. No proxy is taken from the environment.
        - `ASOK_WEBHOOK_CA_FILE` (None): path of certificates (PEM) to trust for webhooks, besides the system's.
        - `ASOK_WEBHOOK_SUPPRESS` (None): True checks and signs webhooks and sends none; None is the app's `TESTING`.

        - `ASOK_CELERY` ({}): settings of Celery for the celery backend, at least `{"broker_url": ...}`;
          `result_backend` must be a Redis where the broker is not. Not read where the application has
          `app.extensions["celery"]`.
        - `ASOK_TASK_MODULES` (None): modules whose functions a worker may run, with what is below them; None is the
          application's own package. The recipes are always allowed.
        - `ASOK_FALLBACK` ("raise"): when the broker cannot be reached, "raise" BackendUnavailable or run the task on
          local "threads", with a warning.
        - `ASOK_MESSAGE_MAX_BYTES` (8,388,608): a call whose message is larger is a ValueError.

        As `FLASK_ASOK_...` environment variables they work through `app.config.from_prefixed_env()`. Raises
        RuntimeError for an app that is set up already; ValueError or TypeError for an invalid value, and for an
        `ASOK_...` key that is unknown.
        """
        app = _application(app)
        if KEY in app.extensions:
            raise RuntimeError(f"Flask-Asok is set up on the app {app.import_name!r} already. Call init_app(app) once.")
        for key, value in DEFAULTS.items():
            app.config.setdefault(key, value)
        config = _checked({key: app.config[key] for key in DEFAULTS})
        backend = _backend(config["ASOK_BACKEND"])
        for key, value in backend.settings.items():
            config[key] = app.config.setdefault(key, value)
        _refuse_unknown(app.config, config)
        app.extensions[KEY] = State(config, backend(app, config))
        mail.set_up(app)
        listen(app)
        app.cli.add_command(asok_cli)

    def tasks(self) -> list[TaskSummary]:
        """Return the recent tasks of the current app in this process, the oldest first."""
        return _state().backend.tasks()

    def get(self, id: str) -> TaskSummary | None:
        """Return the recent task of the current app with this id, or None."""
        return _state().backend.get(id)

    def cancel(self, id: str, *, running: bool = False) -> bool:
        """
        Keep the task with this id from running: True if it is cancelled.

        With `running=True` also True for one that runs and was asked to stop: `report_progress` and `track` raise
        TaskCancelled in it from now on, and it is cancelled with that. False if the task is settled or unknown. On
        Celery a task that runs goes on.
        """
        backend = _state().backend
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        found = [*backend.alive(), *(task for task in all_held() if task.app is app)]
        task = next((task for task in found if task.id == id and task.is_alive()), None)
        if task is None:
            return backend.distributed and backend.cancel(id)
        return task.cancel() or (running and task.stop())

    def close(self, app: Flask, timeout: float | None = None) -> None:
        """
        Finish the tasks of `app` within `timeout` seconds (None: `ASOK_SHUTDOWN_TIMEOUT`) and end its threads.

        Tasks that are not finished then are abandoned, each logged by name and id. A task started afterwards runs in
        its caller, or is abandoned where it has a delay. Happens by itself at exit; call it in a server that stops in
        another way. Closing twice is harmless.
        """
        state_of(app).close(timeout)
        abandon_held(app)

    send_webhook: Final = staticmethod(_in_background(send_webhook))
    resize_image: Final = staticmethod(_in_background(resize_image))
    warm_cache: Final = staticmethod(_in_background(warm_cache))
    send_mail: Final = staticmethod(_in_background(send_mail))

    def warm_all(
        self, keys: Iterable[str] | None = None, *, only_missing: bool = False, jobs: int = 4
    ) -> dict[str, Any]:
        """Warm every `@cached` function of this process, and wait; see `flask_asok.recipes.cache.warm_all`."""
        return warm_all(keys, only_missing=only_missing, jobs=jobs)


def _state() -> State:
    return state_of(current_app)


def _application(app: Flask) -> Flask:
    if isinstance(app, LocalProxy):
        app = app._get_current_object()
    if isinstance(app, Flask):
        return app
    hint = " A blueprint uses the extension of the app that it is registered on." if isinstance(app, Blueprint) else ""
    raise TypeError(
        f"FlaskAsok() takes the Flask application, not {type(app).__name__}. "
        f"Write FlaskAsok(app), or asok.init_app(app) in the function that makes the app.{hint}"
    )


def _refuse_unknown(set_here: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise ValueError for a key that nobody reads: it is misspelt, and what it says would be ignored."""
    unknown = [key for key in set_here if key.startswith("ASOK_") and key not in known]
    if unknown:
        # Of a backend that is installed, and not chosen here: in tests, for instance. Loaded for this and only now.
        others = [entry.load().settings for entry in entry_points(group="flask_asok.backends")]
        known = {*known, *(key for settings in others for key in settings)}
    for key in unknown:
        if key not in known:
            (nearest,) = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0)
            raise ValueError(f"{key} is no configuration key of Flask-Asok. The nearest one is {nearest}.")


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with every default filled in; raise for a value that is no good."""
    queues = {**DEFAULT_QUEUES, **_expect(config, "ASOK_QUEUES", dict)}
    for name, size in queues.items():
        if not isinstance(name, str) or not name or type(size) is not int or size < 1:
            raise ValueError(
                f"ASOK_QUEUES must map names to numbers of threads, 1 or more; {name!r}: {size!r} does not."
            )
    for key in ("ASOK_MAX_QUEUED", "ASOK_MAX_WAITING", "ASOK_RECENT_TASKS", "ASOK_MESSAGE_MAX_BYTES", *IMAGE_DEFAULTS):
        if _expect(config, key, int) < 1:
            raise ValueError(f"{key} must be 1 or more, not {config[key]}.")
    if config["ASOK_QUEUE_FULL"] not in ("run", "raise"):
        raise ValueError(f'ASOK_QUEUE_FULL must be "run" or "raise", not {config["ASOK_QUEUE_FULL"]!r}.')
    for key in (*CACHE_DEFAULTS, "ASOK_MAIL_TIMEOUT"):
        if not 0 < _expect(config, key, (int, float)) < float("inf"):
            raise ValueError(f"{key} must be seconds, more than 0, not {config[key]!r}.")
    mail.check(config)
    webhooks.check(config)
    _expect(config, "ASOK_CELERY", dict)
    if config["ASOK_TASK_MODULES"] is not None:
        _expect(config, "ASOK_TASK_MODULES", (list, tuple, set, frozenset))
    if config["ASOK_FALLBACK"] not in ("raise", "threads"):
        raise ValueError(f'ASOK_FALLBACK must be "raise" or "threads", not {config["ASOK_FALLBACK"]!r}.')
    timeout = config["ASOK_SHUTDOWN_TIMEOUT"]
    if timeout is None:
        timeout = 1.0 if os.environ.get("WERKZEUG_RUN_MAIN") == "true" else 8.0
    elif not 0 <= _expect(config, "ASOK_SHUTDOWN_TIMEOUT", (int, float)) < float("inf"):
        raise ValueError(f"ASOK_SHUTDOWN_TIMEOUT must be seconds, 0 or more, not {timeout!r}.")
    return {**config, "ASOK_QUEUES": queues, "ASOK_SHUTDOWN_TIMEOUT": float(timeout)}


def _expect(config: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    value = config[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{key} must not be of type {type(value).__name__}: {value!r}.")
    return value


def _backend(name: str) -> type[Backend]:
    """Import the chosen backend, and no other."""
    match name:
        case "celery":
            from .backends.celery import CeleryBackend

            return CeleryBackend
        case "threads":
            from .backends.threads import ThreadsBackend

            return ThreadsBackend
        case "immediate":
            from .backends.immediate import ImmediateBackend

            return ImmediateBackend
    found = entry_points(group="flask_asok.backends", name=name)
    if not found:
        others = sorted({entry.name for entry in entry_points(group="flask_asok.backends")})
        known = ", ".join(['"threads"', '"immediate"', '"celery"', *(f'"{other}"' for other in others)])
        raise ValueError(f"ASOK_BACKEND is {name!r}; it must be one of {known}.")
    backend: type[Backend] = next(iter(found)).load()
    return backend
