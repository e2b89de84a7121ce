"""The routes of the dashboard: START HERE."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, redirect, request, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from ..attempt import RunnableTask
from ..durable.worker import retry_here
from ..errors import AsokError
from ..handles import cancel_task, discard_task
from ..logs import log_exception
from ..periodic import Clock, listed, start_named
from ..sharing import shared_by
from ..state import state_of
from ..store.pages import Mark, Wanted
from ..tokens import is_valid_token, make_token
from . import seen
from .gate import Access, Gate, Level, is_same_origin
from .html import Forms, asset, respond
from .redaction import Arguments, shown_arguments

STATES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled", "abandoned")

PAGE_SIZE = 50

LONGEST_FILTER = 200

LATEST_FAILURES = 5

ASSETS = {"dashboard.css": "text/css", "dashboard.js": "text/javascript"}

SAID = {
    "retried": "The task runs once more.",
    "not-retried": "The task cannot be retried: it has not failed, or its call is not written down.",
    "cancelled": "The task is cancelled, or stops when it next reports its progress.",
    "not-cancelled": "The task could not be cancelled: it is over.",
    "discarded": "The task is forgotten.",
    "not-discarded": "The task could not be discarded: it is not over.",
    "started": "The run has begun.",
    "goes-on": "A run is already going on.",
    "not-started": "The run could not be started; the log says why.",
}
"""What a page says after an action, by the word in its address."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was let in."""

    app: Flask
    """The application whose tasks are shown."""
    level: Level
    prefix: Mapping[str, Any]
    """What the address has that is not ours: the variables of a `url_prefix`."""
    forms: Forms = field(default_factory=Forms)

    @property
    def can_act(self) -> bool:
        """Return True if there may be buttons."""
        return self.level == "write"

    def url(self, page: str, **values: Any) -> str:
        """Return the address of a page."""
        return url_for(f".{page}", **{**self.prefix, **values})

    def fields(self, action: str, id: str) -> Markup:
        """Return the hidden fields of a form."""
        return self.forms.place(lambda: _fields_of(action, id))

    def show(self, page: str, **values: Any) -> Response:
        """Return the page."""
        return respond(
            page, self.forms, visit=self, said=SAID.get(request.args.get("said", "")), here=_here(),
            tracks=shared_by(self.app) is not None, **values,
        )  # fmt: skip


class DashboardBlueprint(Blueprint):
    """What `asok.dashboard()` returns. It shows the tasks of `app`, by default of the app that it is registered on."""

    def __init__(self, access: Access | None, arguments: Arguments, app: Flask | None = None) -> None:
        super().__init__("asok_dashboard", __name__)
        if not isinstance(arguments, bool) and not callable(arguments):
            raise TypeError(f"arguments must be True, False or a function, not {type(arguments).__name__}.")
        self._gate = Gate(access)
        self._arguments = arguments
        self._app = app
        self.record(self._gate.check_setup)
        self._add("/", "overview", self._overview)
        self._add("/tasks", "tasks", self._tasks)
        self._add("/tasks/<id>", "task", self._task)
        self._add("/functions", "functions", self._functions)
        self._add("/periodic", "periodic", self._periodic)
        self._add("/processes", "processes", self._processes)
        self._add("/assets/<file>", "asset", self._asset)
        for action in ("retry", "cancel", "discard"):
            self._add(f"/tasks/<id>/{action}", action, getattr(self, f"_{action}"), acts=True)
        self._add("/periodic/<path:name>/run", "run", self._run, acts=True)

    def _add(self, rule: str, name: str, view: Callable[..., ResponseReturnValue], *, acts: bool = False) -> None:
        """Add a page, or with `acts` what a button does: nobody is let in by another way."""
        own = {part.rpartition(":")[2] for part in ("id", "name", "file") if f"{part}>" in rule}
        methods = {"POST"} if acts else {"GET", "HEAD"}

        def visited(**values: Any) -> ResponseReturnValue:
            level = self._gate.level()
            if not level or (acts and level != "write") or request.method not in methods:
                abort(404)
            app = self._app or current_app._get_current_object()  # type: ignore[attr-defined]
            prefix = {key: value for key, value in values.items() if key not in own}
            visit = Visit(app, level, prefix)
            if acts:
                _check_form(name, next(values[key] for key in own))
            try:
                return view(visit, **{key: values[key] for key in own})
            except AsokError as error:
                return respond("unavailable", visit.forms, visit=visit, status=503, said=str(error), here=_here())

        # A redirect from another spelling of the address would tell that there is something.
        self.add_url_rule(
            rule, name, visited, provide_automatic_options=False, strict_slashes=False, merge_slashes=False
        )
        self.record(lambda setup: _take_every_method(setup, name))

    def _overview(self, visit: Visit) -> ResponseReturnValue:
        failures = [
            one
            for state in ("failed", "abandoned")
            for one in seen.page_of(visit.app, Wanted(state=state), None, LATEST_FAILURES).tasks
        ]
        failures.sort(key=lambda one: one.summary.finished, reverse=True)
        return visit.show(
            "overview",
            title="Overview",
            queues=seen.queues_of(visit.app),
            hour=seen.last_hour(visit.app, time.time()),
            processes=seen.processes_of(visit.app),
            failures=failures[:LATEST_FAILURES],
        )

    def _tasks(self, visit: Visit) -> ResponseReturnValue:
        wanted, before = _wanted(), _mark()
        page = seen.page_of(visit.app, wanted, before, PAGE_SIZE)
        filters = {key: value for key in ("state", "name", "queue", "error") if (value := getattr(wanted, key))}
        return visit.show(
            "tasks",
            title="Tasks",
            tasks=page.tasks,
            wanted=wanted,
            states=STATES,
            queue_names=list(state_of(visit.app).backend.queues),
            newest=visit.url("tasks", **filters) if before else None,
            older=visit.url("tasks", **filters, before=f"{page.rest.enqueued!r}-{page.rest.id}") if page.rest else None,
            is_filtered=bool(filters),
        )

    def _task(self, visit: Visit, id: str) -> ResponseReturnValue:
        task = seen.find(visit.app, id)
        if task is None:
            abort(404)
        record = task.record
        shown = None
        store = shared_by(visit.app)
        if self._arguments and record is not None and store is not None and (signed := store.message_of(id)):
            shown = shown_arguments(visit.app, id, signed, self._arguments)
        return visit.show(
            "task",
            title=task.summary.name,
            task=task,
            arguments=shown,
            can_retry=bool(record and record.can_be_retried),
        )

    def _functions(self, visit: Visit) -> ResponseReturnValue:
        ended = seen.ended_of(visit.app, time.time())
        return visit.show(
            "functions",
            title="Functions",
            functions=seen.functions_of(ended),
            most=seen.MOST_ENDED if len(ended) >= seen.MOST_ENDED else None,
        )

    def _periodic(self, visit: Visit) -> ResponseReturnValue:
        clock = state_of(visit.app).kept(Clock)
        found = [listed(visit.app, entry, clock.zone, clock.now()) for entry in clock.entries]
        runs = {one.last_id: seen.find(visit.app, one.last_id) for one in found if one.last_id}
        return visit.show("periodic", title="Periodic tasks", periodic=found, runs=runs)

    def _processes(self, visit: Visit) -> ResponseReturnValue:
        return visit.show(
            "processes", title="Processes", processes=seen.processes_of(visit.app), is_this=seen.is_this_process
        )

    def _asset(self, visit: Visit, file: str) -> ResponseReturnValue:
        if file not in ASSETS:
            abort(404)
        response = current_app.response_class(asset(file), mimetype=ASSETS[file])
        response.headers["Cache-Control"] = "private, max-age=3600"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _retry(self, visit: Visit, id: str) -> ResponseReturnValue:
        return _back(visit, "task", "retried" if retry_here(visit.app, id) else "not-retried", id=id)

    def _cancel(self, visit: Visit, id: str) -> ResponseReturnValue:
        done = cancel_task(visit.app, id, running=True)
        return _back(visit, "task", "cancelled" if done else "not-cancelled", id=id)

    def _discard(self, visit: Visit, id: str) -> ResponseReturnValue:
        if discard_task(visit.app, id):
            return _back(visit, "tasks", "discarded")
        return _back(visit, "task", "not-discarded", id=id)

    def _run(self, visit: Visit, name: str) -> ResponseReturnValue:
        clock = state_of(visit.app).kept(Clock)
        if clock.entries.find(name) is None:
            abort(404)
        try:
            task = start_named(visit.app, name)
        except AsokError:
            raise
        except Exception as error:  # of the application's own `prepare=`, for instance
            log_exception("The periodic task %s could not be started: %r", name, error, app=visit.app)
            return _back(visit, "periodic", "not-started")
        return _back(visit, "task", "started" if isinstance(task, RunnableTask) else "goes-on", id=task.id)


def _take_every_method(setup: BlueprintSetupState, name: str) -> None:
    """Let the view itself refuse a method, as an unknown page: "405" would tell that there is something."""
    for rule in setup.app.url_map.iter_rules(".".join(filter(None, (setup.name_prefix, setup.name, name)))):
        rule.methods = None


def _back(visit: Visit, page: str, said: str, **values: Any) -> ResponseReturnValue:
    return redirect(visit.url(page, **values, said=said), 303)


def _check_form(action: str, id: str) -> None:
    """Refuse a request that no page of ours has sent."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    if not is_same_origin() or not is_valid_token(app, request.form.get("token", ""), f"dashboard.{action}", id):
        abort(400, "The page with this button is too old, or not of this application. Reload it and try again.")


def _fields_of(action: str, id: str) -> dict[str, str]:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    fields = {"token": make_token(app, f"dashboard.{action}", id)}
    if "csrf" in app.extensions and (csrf_token := app.jinja_env.globals.get("csrf_token")) is not None:
        # Flask-WTF wants its own in every form.
        fields[app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")] = csrf_token()  # type: ignore[operator]
    return fields


def _wanted() -> Wanted:
    state, name, queue, error = (request.args.get(key, "") for key in ("state", "name", "queue", "error"))
    return Wanted(
        state=state if state in STATES else None,
        # These are compared as a whole: a page of ours links to whatever name a task has.
        name=name or None,
        queue=queue or None,
        error=error.strip()[:LONGEST_FILTER] or None,
    )


def _mark() -> Mark | None:
    """Return where the page begins; None for the first one."""
    at, _, id = request.args.get("before", "").partition("-")
    try:
        enqueued = float(at)
    except ValueError:
        return None
    return Mark(enqueued, id) if math.isfinite(enqueued) and id else None


def _here() -> str:
    return f"{socket.gethostname()} {os.getpid()}"
