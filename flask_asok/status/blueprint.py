"""The routes of the status view."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    has_request_context,
    jsonify,
    make_response,
    redirect,
    request,
    url_for,
)
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue

from ..attempt import RunnableTask
from ..errors import BackendUnavailable
from ..summaries import TaskSummary
from ..tasks import Task
from ..tokens import KEEP_SECONDS, is_valid_token, make_token, need_secret_key
from .view import Form, View, render

Access = Callable[[TaskSummary], object]

ID = re.compile("[0-9a-f]{32}")

PURPOSE = "status.cancel"

STOP_POLLING = 286
"""The status with which htmx, and our script, learn that they need not ask again."""

TOKENS_SECONDS = KEEP_SECONDS // 48
"""How often what is unchanged is sent again, for the tokens in it; those of Flask-WTF are good for an hour."""

VARY = ("Accept", "HX-Request", "HX-Boosted", "HX-History-Restore-Request", "Sec-Fetch-Dest", "Cookie")
"""What the representation depends on."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Tasks(Protocol):
    """What the view needs of the extension."""

    def get(self, id: str) -> Any:
        """Return what is known of the task, or None."""

    def cancel(self, id: str, *, running: bool = False) -> bool:
        """Cancel the task, or ask it to stop."""


class StatusBlueprint(Blueprint):
    """What `asok.status()` returns."""

    def __init__(self, tasks: Tasks, access: Access | None, cancel: bool) -> None:
        super().__init__("asok_status", __name__, static_folder="assets", static_url_path="/assets")
        if access is not None and not callable(access):
            raise TypeError(f"access must be a function of a TaskSummary, not {type(access).__name__}.")
        self.tasks = tasks
        self._access = access
        self._cancel = cancel
        self.add_url_rule("/<id>", "show", self._show)
        if cancel:
            self.add_url_rule("/<id>/cancel", "cancel", self._cancel_task, methods=["POST"])
            self.record(_need_secret_key)
        self.after_request(_secure)
        self.register_error_handler(BackendUnavailable, _unavailable)

    def find(self, id: str) -> Task[Any] | TaskSummary | None:
        """Return the task if it is known, and the visitor may see it."""
        found = self.tasks.get(id) if ID.fullmatch(id) else None
        return found if found is not None and self.allows(found) else None

    def allows(self, found: Task[Any] | TaskSummary) -> bool:
        """Ask `access`."""
        summary = found if isinstance(found, TaskSummary) else cast(RunnableTask[Any], found).summary
        return self._access is None or bool(self._access(summary))

    def form(self, id: str, view: View, endpoint: str) -> Form | None:
        """Return the form of the cancel button; None where there is nothing to cancel, or it is not allowed."""
        if not self._cancel or view.is_settled or not has_request_context():
            return None
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        fields = {"token": make_token(app, PURPOSE, id)}
        if "csrf" in app.extensions and (csrf_token := app.jinja_env.globals.get("csrf_token")) is not None:
            # Flask-WTF wants its own in every form.
            fields[app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")] = csrf_token()  # type: ignore[operator]
        return Form(action=url_for(endpoint, id=id), fields=fields)

    def _show(self, id: str) -> ResponseReturnValue:
        found = self.find(id)
        if found is None:
            abort(404)
        return self._answer(found)

    def _cancel_task(self, id: str) -> ResponseReturnValue:
        found = self.find(id)
        if found is None:
            abort(404)
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        if not is_valid_token(app, request.form.get("token", ""), PURPOSE, id):
            abort(400, "The page with this button is too old, or not of this application. Reload it and try again.")
        self.tasks.cancel(id, running=True)
        if _wanted() == "page":
            return redirect(url_for(".show", id=id), 303)
        return self._answer(self.find(id) or found)

    def _answer(self, found: Task[Any] | TaskSummary) -> Response:
        facts, kind = found.as_dict(), _wanted()
        view = View.of(facts)
        tag: list[object] = [facts, kind]
        if kind == "json":
            response = jsonify(facts)
        else:
            form = self.form(facts["id"], view, ".cancel")
            tag.append(form is not None and time.time() // TOKENS_SECONDS)
            html = render(f"{kind}.html", view=view, form=form, url=url_for(".show", id=facts["id"]), assets=_assets())
            response = make_response(html)
        response.vary.update(VARY)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Frame-Options"] = "DENY"
        if kind == "fragment" and view.is_settled:
            response.status_code = STOP_POLLING
        if request.method == "POST" or kind == "page":
            response.cache_control.no_store = True
            return response
        response.cache_control.private = True
        response.cache_control.no_cache = True
        response.set_etag(hashlib.sha256(json.dumps(tag, default=str).encode()).hexdigest()[:32])
        if response.status_code == 200:
            # The answer that ends the polling is never taken for unchanged.
            response.make_conditional(request)
        return response


def _need_secret_key(setup: BlueprintSetupState) -> None:
    need_secret_key(cast(Flask, setup.app), "asok.status(cancel=True)")


def _assets() -> dict[str, str]:
    return {name: url_for(".static", filename=f"progress.{name}") for name in ("css", "js")}


def _wanted() -> str:
    """Return "json", "fragment", for a script, or "page", for a browser that goes there."""
    headers = request.headers
    if "HX-Request" in headers:
        return "page" if headers.get("HX-Boosted") or headers.get("HX-History-Restore-Request") else "fragment"
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html":
        return "json"
    return "fragment" if headers.get("Sec-Fetch-Dest") == "empty" else "page"


def _secure(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if request.endpoint and request.endpoint.endswith(".static"):
        return response
    # Also where no id was asked for: where the session was looked at, it would tell that the task is there.
    response.vary.add("Cookie")
    # Not no-referrer: over https Flask-WTF wants to see where a form comes from.
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if "Cache-Control" not in response.headers:
        response.cache_control.no_store = True
    return response


def _unavailable(error: BackendUnavailable) -> ResponseReturnValue:
    return "The state of tasks cannot be read at the moment.", 503, {"Retry-After": "5"}
