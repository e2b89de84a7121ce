"""FlaskAsok, the extension: START HERE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, TypeVar

from flask import Blueprint, Flask, current_app
from werkzeug.local import LocalProxy

from . import settings
from .backends.choice import backend_class
from .cli import asok_cli
from .dashboard import Access as DashboardAccess
from .dashboard import Arguments, DashboardBlueprint
from .dispatch import background, in_background
from .durable.sweeper import begin_sweeping
from .durable.worker import retry_here, start_worker
from .handles import cancel_task, discard_task, get_task, newest
from .periodic import Clock, Entries, PeriodicTask, checked_entry, listed
from .recipes import RECIPES, import_late
from .recipes.cache import warm_all, warm_cache
from .recipes.images import resize_image
from .recipes.mail import send_mail
from .recipes.webhooks import send_webhook
from .rooms import SETTINGS
from .sharing import shared_by
from .state import KEY, AppState, state_of
from .status import Access, StatusBlueprint, asok_progress
from .store.base import ProcessSummary, QueueSummary
from .summaries import TaskSummary, checked_state
from .tasks import Task
from .triggers import listen
from .validate import check_by_name, seconds, task_id, whole

F = TypeVar("F", bound=Callable[..., Any])


class FlaskAsok:
    """
    Background work for Flask: `FlaskAsok(app)`, or `asok = FlaskAsok()` and `asok.init_app(app)` in a factory.

    It holds no application: one object may serve several, each with its own state at `app.extensions["asok"]`. Methods
    find theirs through `current_app`, so they need an app context.
    """

    background: Final = background
    """`flask_asok.background`, the same object."""

    if not TYPE_CHECKING:  # type checkers know what there is

        def __getattr__(self, name: str) -> NoReturn:
            text = f"FlaskAsok has no .{name}. Import `background` to start a function, and `task` to give it options."
            raise AttributeError(text, name=name, obj=self)

    def __init__(self, app: Flask | None = None) -> None:
        self._entries = Entries()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """
        Set up `app`: read its configuration, once and now. No thread starts and nothing is connected.

        The page "Configuration" lists the `ASOK_...` keys, and `flask asok status` shows their values.

        As `FLASK_ASOK_...` environment variables they work through `app.config.from_prefixed_env()`. Raises
        RuntimeError for an app that is set up already; ValueError or TypeError for an invalid value, and for an
        `ASOK_...` key that is unknown.
        """
        app = _application(app)
        if KEY in app.extensions:
            raise RuntimeError(f"Flask-Asok is set up on the app {app.import_name!r} already. Call init_app(app) once.")
        config = settings.read(app, SETTINGS)
        of_recipes = {name: size for recipe in RECIPES for name, size in recipe.queues.items()}
        config["ASOK_QUEUES"] = {"default": 8, **of_recipes, **config["ASOK_QUEUES"]}
        backend = backend_class(config["ASOK_BACKEND"])
        config.update(settings.read(app, backend.settings))
        settings.refuse_unknown(app.config, config)
        if config["ASOK_WORKER"] == "web" and not backend.works_in_web:
            raise ValueError('ASOK_WORKER = "web" is for ASOK_BACKEND = "postgres". Leave it at "command".')
        app.extensions[KEY] = state = AppState(app, config, backend(app, config))
        state.keep(clock := Clock(app, self._entries, config["ASOK_TIMEZONE"]))
        if config["ASOK_PERIODIC"] == "web":
            state.serving.on_first_request(lambda app: clock.start())
        for recipe in RECIPES:
            if recipe.set_up is not None:
                recipe.set_up(app)
        listen(app)
        state.keep(given := settings.Given(app.config))
        state.serving.on_first_request(given.warn_of_later)
        state.serving.on_first_request(begin_sweeping)
        state.serving.on_first_request(lambda app: state_of(app).backend.start_worker())
        app.context_processor(lambda: {"asok_progress": asok_progress})
        app.cli.add_command(asok_cli)

    def tasks(
        self, *, state: str | None = None, name: str | None = None, queue: str | None = None, limit: int = 100
    ) -> list[TaskSummary]:
        """
        Return the newest `limit` tasks of the current app that match, the oldest of them first.

        All tracked ones, whatever process they run in, and the recent ones of this process. Raises ValueError for an
        unknown state, BackendUnavailable if the store cannot be reached.
        """
        state, limit = checked_state("state", state), whole(0)("limit", limit)
        return newest(_app(), state=state, name=name, queue=queue, limit=limit)

    def get(self, id: str) -> Task[Any] | None:
        """
        Return a handle on the task of the current app with this id, or None.

        A tracked task is found from every process, and for a day after its end; each look at the handle is a look at
        the store, so `progress` is what the store has. An untracked task is known in its own process only, and its
        result only as long as the Task is referenced. Raises BackendUnavailable if the store cannot be reached.
        """
        return get_task(_app(), task_id(id))

    def queues(self) -> list[QueueSummary]:
        """Return the queues of the current app: how many tracked tasks are queued, run and wait in each."""
        store = shared_by(_app())
        found = {queue.name: queue for queue in store.queues()} if store is not None else {}
        return [
            found.get(name) or QueueSummary(name=name) for name in {**state_of(current_app).backend.queues, **found}
        ]

    def processes(self) -> list[ProcessSummary]:
        """
        Return the processes that serve or work for the current app, and have opened its store.

        A process serves from its first request on. A command, a shell or a test is none of them.
        """
        store = shared_by(_app())
        return [] if store is None else store.processes()

    def cancel(self, id: str, *, running: bool = False) -> bool:
        """
        Keep the task with this id from running: True if it is cancelled.

        With `running=True` also True for one that runs and was asked to stop: `report_progress` and `track` raise
        TaskCancelled in it from now on, and it is cancelled with that. False if the task is settled or unknown.
        """
        return cancel_task(_app(), task_id(id), running=running)

    def retry(self, id: str) -> bool:
        """
        Run a task that has failed or was abandoned once more, under the same id, from its first attempt on.

        False for any other, for one whose unique key another task has by now, and for one whose call is not written
        down: on threads one that is not durable. A process that serves runs it within a second.
        """
        return retry_here(_app(), task_id(id))

    def start_worker(self, app: Flask) -> None:
        """
        Take over durable tasks that other processes have left from now on, not from the first request on.

        For gunicorn's `post_worker_init`. With `ASOK_WORKER = "web"` this process runs tasks from now on. Else nothing
        happens on a distributed backend, whose workers do that.
        """
        start_worker(app)

    def discard(self, id: str) -> bool:
        """Forget a settled task, for all processes; False if it is not settled, or unknown."""
        return discard_task(_app(), task_id(id))

    def status(self, *misplaced: Never, access: Access | None = None, cancel: bool = False) -> Blueprint:
        """
        Return the view of one task for the visitor who waits for it, to be registered: `asok_status`.

        `GET /<id>` answers with `as_dict()` as JSON, with a fragment where the request is of htmx, and with a page that
        reloads itself where a browser goes there; `{{ asok_progress(task) }}` is a bar for any template. An id cannot
        be guessed: a visitor who knows it may see the task, unless `access`, called with the TaskSummary in the
        request, returns False. Such a task, as an unknown one, is a 404.

        With `cancel=True` the same visitors get a button, and `POST /<id>/cancel`: a running task stops when it reports
        its progress next. Registering that in an app without a SECRET_KEY raises NotConfigured.
        """
        check_by_name(misplaced, "asok.status()", "asok.status(access=may_see)")
        view = StatusBlueprint(self, access, cancel)
        # Beside the context processor, for the macros that a template imports without its context.
        view.add_app_template_global(asok_progress)
        return view

    def dashboard(
        self, *misplaced: Never, access: DashboardAccess | None = None, arguments: Arguments = False
    ) -> Blueprint:
        """
        Return the pages of the operator, to be registered: `asok_dashboard`.

        `access` is called in each request, and returns False, "read" or "write" (or True): a refused visitor gets a
        404, and only "write" shows buttons. It is required outside of debug mode: without it registration is a
        ValueError. In debug mode only this machine gets in without it. "write" without a SECRET_KEY is NotConfigured.

        Arguments are shown only with `arguments=True`, and only of tasks whose call is written down; what has a name
        like "password" or "token" is hidden. A function of a name and a value returns what is shown instead.
        """
        check_by_name(misplaced, "asok.dashboard()", "asok.dashboard(access=is_admin)")
        return DashboardBlueprint(access, arguments)

    def periodic(
        self,
        *misplaced: Never,
        every: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        grace: float | timedelta | None = 600,
        overlap: bool = False,
        jitter: float | timedelta = 0,
    ) -> Callable[[F], F]:
        """
        Run the decorated function by a schedule, once however many processes there are; returns that plain function.

        `every`: seconds or a timedelta, counted from the epoch in UTC; or `cron`, a crontab line, by the clock of the
        time zone `tz` (None: `ASOK_TIMEZONE`). A run is a task with the function's options, called with `args` and
        `kwargs`. A tick that is late by less than `grace` seconds (None: by however much) still runs, the latest one
        only. With `overlap` a run begins though the one before it goes on. It begins up to `jitter` seconds late. The
        `name` is `module.qualname` by default.

        Raises ValueError or TypeError for an invalid schedule and for a name that is taken, NotConfigured for `cron`
        without the extra `periodic`.
        """
        check_by_name(misplaced, "@asok.periodic", '@asok.periodic(every=300) or @asok.periodic(cron="0 3 * * *")')

        def decorate(fn: F) -> F:
            self._entries.add(
                checked_entry(
                    fn, every=every, cron=cron, tz=tz, name=name, args=args, kwargs=kwargs, grace=grace,
                    overlap=overlap, jitter=jitter,
                )
            )  # fmt: skip
            return fn

        return decorate

    def periodic_tasks(self) -> list[PeriodicTask]:
        """Return the periodic tasks of the current app; raises BackendUnavailable if the store cannot be reached."""
        clock = state_of(current_app).kept(Clock)
        return [listed(_app(), entry, clock.zone, clock.now()) for entry in clock.entries]

    def start_periodic(self, app: Flask) -> None:
        """
        Start the periodic tasks of `app` in this process before its first request, in gunicorn's `post_worker_init`.

        Harmless twice. Nothing happens in testing mode, and where `ASOK_PERIODIC` is not "web".
        """
        if state_of(app).config["ASOK_PERIODIC"] == "web" and not app.testing:
            state_of(app).kept(Clock).start()

    def preload(self) -> None:
        """
        Import what the built-in jobs import with their first use, so that the first visitor does not wait for it.

        Harmless twice, and before a fork, where the processes share it.
        """
        import_late()

    def close(self, app: Flask, timeout: float | None = None) -> None:
        """
        Finish the tasks of `app` within `timeout` seconds (None: `ASOK_SHUTDOWN_TIMEOUT`) and end its threads.

        Tasks that are not finished then are abandoned, each logged by name and id. A task started afterwards runs in
        its caller, or with a delay is abandoned. Happens by itself at exit; twice is harmless.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        state_of(app).kept(Clock).stop()
        state_of(app).close(limit)

    send_webhook: Final = staticmethod(in_background(send_webhook))
    resize_image: Final = staticmethod(in_background(resize_image))
    warm_cache: Final = staticmethod(in_background(warm_cache))
    send_mail: Final = staticmethod(in_background(send_mail))

    def warm_all(
        self, keys: Iterable[str] | None = None, *, only_missing: bool = False, jobs: int = 4
    ) -> dict[str, Any]:
        """Warm every `@cached` function of this process, and wait; see `flask_asok.recipes.cache.warm_all`."""
        return warm_all(keys, only_missing=only_missing, jobs=jobs)


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


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
