"""`asok_progress`: the bar that a template shows."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import current_app, url_for
from markupsafe import Markup

from ..errors import BackendUnavailable, NotConfigured
from ..summaries import TaskSummary
from ..tasks import Task
from .blueprint import StatusBlueprint
from .view import UNKNOWN, View, render


def asok_progress(
    task: Task[Any] | TaskSummary | str, *, href: str | None = None, link: str = "Open", nonce: str | None = None
) -> Markup:
    """
    Return the bar of a task, or of the one with this id, and the script that keeps it up to date.

    `href` is where the link leads that is shown once the task has succeeded, `link` its text, `nonce` what the page's
    Content-Security-Policy asks of a script. A task that is unknown, or that `access` refuses, is shown as unknown. Not
    for the inside of a form, since its cancel button is one. RuntimeError where `asok.status()` is not registered.
    """
    if not isinstance(task, (Task, TaskSummary, str)):
        raise TypeError(f"asok_progress() takes a task or its id, not {type(task).__name__}.")
    if href is not None and urlsplit(href).scheme not in ("", "http", "https"):
        raise ValueError(f"href must be a path or an http address, not {href!r}.")
    endpoint, blueprint = _registered()
    id = task if isinstance(task, str) else task.id
    is_known = True
    try:
        found = blueprint.find(id)
        if found is None and not isinstance(task, str) and blueprint.allows(task):
            # Forgotten, and its holder still has it.
            found = task
        view = UNKNOWN if found is None else View.of(found.as_dict())
        is_known = found is not None
    except BackendUnavailable:
        # The page must not fail for that, and the script will ask again.
        view = UNKNOWN
    return render(
        "bar.html",
        view=view,
        form=blueprint.form(id, view, f"{endpoint}.cancel") if is_known and view is not UNKNOWN else None,
        is_over=view.is_settled or not is_known,
        url=url_for(f"{endpoint}.show", id=id) if is_known else None,
        assets={name: url_for(f"{endpoint}.static", filename=f"progress.{name}") for name in ("css", "js")},
        href=href,
        link=link,
        nonce=nonce,
    )


def _registered() -> tuple[str, StatusBlueprint]:
    for name, blueprint in current_app.blueprints.items():
        if isinstance(blueprint, StatusBlueprint):
            return name, blueprint
    raise NotConfigured(
        "asok_progress() needs the status view of this app: "
        'app.register_blueprint(asok.status(), url_prefix="/status").'
    )
