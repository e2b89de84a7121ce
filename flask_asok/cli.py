"""The commands: `flask asok ...`."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import click
from flask import current_app
from flask.cli import AppGroup

from .backends.base import NOT_SHARED
from .dispatch import background
from .errors import AsokError, NotConfigured
from .logs import log
from .recipes import RECIPES
from .state import state_of

T = TypeVar("T")

asok_cli: AppGroup = AppGroup("asok", help="Background tasks.")

for _recipe in RECIPES:
    for _command in _recipe.commands:
        asok_cli.add_command(_command)

START_WORKER = "Is one running? Start it with `flask --app APP asok worker`."

SECRET_WORDS = ("SECRET", "PASSWORD", "TOKEN", "KEY", "PROXY", "CELERY")
"""A configuration key with one of these in its name may hold a secret: its value is not shown."""


def _versions() -> dict[str, str]:
    packages = ("flask-asok", "flask", "werkzeug", "flask-mail", "pillow", "cachelib", "urllib3")
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # Run from a source tree, or frozen into one file: the code is there without its metadata.
        return "unknown"


def _shown(key: str, value: Any) -> Any:
    return "(hidden)" if value and any(word in key for word in SECRET_WORDS) else value


@asok_cli.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the configuration and the versions; of a distributed backend the workers and the queues as well."""
    state = state_of(current_app)
    found: dict[str, Any] = {
        "backend": state.backend.name,
        "queues": state.backend.queues,
        "config": {key: _shown(key, value) for key, value in sorted(state.config.items()) if key != "ASOK_QUEUES"},
        "versions": _versions(),
    }
    if state.backend.distributed:
        found = {**found, **_asked(state.backend.status)}
    if as_json:
        click.echo(json.dumps(found, default=str, indent=2))
        return
    click.echo(f"Backend: {found['backend']}")
    if "workers" in found:
        click.echo(f"Workers: {', '.join(found['workers']) or f'none answered within 1 s. {START_WORKER}'}")
    for title in ("queues", "queued", "config", "versions"):
        rows: dict[str, Any] = found.get(title, {})
        if not rows:
            continue
        click.echo(f"\n{title.capitalize()}")
        width = max(map(len, rows))
        for name, value in rows.items():
            click.echo(f"  {name:<{width}}  {value}")


@asok_cli.command("ping")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait.")
def ping(timeout: float) -> None:
    """Run a task that does nothing, end to end. Exits with 1 when it does not come back."""
    started = time.perf_counter()
    backend = state_of(current_app).backend
    try:
        answer = background.using(name="ping")(_pong).result(timeout)
    except Exception as error:
        if backend.distributed and type(error) is TimeoutError:
            click.echo(f"No worker answered within {timeout:g} s. {START_WORKER}", err=True)
            sys.exit(1)
        click.echo(f"No answer: {error!r}", err=True)
        sys.exit(1)
    click.echo(f"{answer} from {backend.name} in {(time.perf_counter() - started) * 1000:.1f} ms")


def _pong() -> str:
    return "pong"


@asok_cli.command("worker", context_settings={"ignore_unknown_options": True})
@click.option("--queues", "-q", default="", help="Queues of ASOK_QUEUES, with commas; all of them by default.")
@click.option("--concurrency", "-c", type=int, help="Processes; as many as processors by default.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(queues: str, concurrency: int | None, arguments: tuple[str, ...]) -> None:
    """Run tasks of a distributed backend. ARGUMENTS are options of the engine's own worker, such as --loglevel."""
    if concurrency is not None:
        arguments = ("--concurrency", str(concurrency), *arguments)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    if current_app.debug:
        log(
            logging.WARNING,
            "This worker is in debug mode: FLASK_DEBUG is on, in .flaskenv perhaps. Set FLASK_DEBUG=0 in production.",
        )
    _asked(state_of(current_app).backend.run_worker, names, arguments)


@asok_cli.command("failed")
def failed() -> None:
    """List the failed tasks of a distributed backend, the latest first."""
    for task in _asked(state_of(current_app).backend.failed):
        when = f"{task.finished_at:%Y-%m-%d %H:%M:%S}" if task.finished_at else "unknown"
        click.echo(f"{task.id}  {when:19}  {task.name}  {task.error}")


@asok_cli.command("retry")
@click.argument("id")
def retry(id: str) -> None:
    """Run a failed task of a distributed backend once more. Exits with 1 when there is none with this ID."""
    if not _asked(state_of(current_app).backend.retry, id):
        click.echo(f"No failed task has the id {id}.", err=True)
        sys.exit(1)
    click.echo(f"Sent {id} once more.")


@asok_cli.command("cancel")
@click.argument("id")
def cancel(id: str) -> None:
    """Keep a task of a distributed backend from running. Exits with 1 when it runs, ran, or is unknown."""
    if not _asked(state_of(current_app).backend.cancel, id):
        click.echo(f"No task that could be cancelled has the id {id}.", err=True)
        sys.exit(1)
    click.echo(f"Cancelled {id}.")


def _asked(ask: Callable[..., T], *args: object) -> T:
    """Ask the backend; where it cannot answer, exit with 2 and say why."""
    try:
        if not state_of(current_app).backend.distributed:
            raise NotConfigured(NOT_SHARED)
        return ask(*args)
    except (AsokError, ValueError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
