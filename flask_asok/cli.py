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
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext

from .dashboard import serve_alone
from .dispatch import background
from .durable.worker import run_worker
from .errors import AsokError, NotConfigured
from .handles import cancel_task, failed_tasks, newest, retry_task
from .logs import log
from .periodic.cli import periodic_cli
from .recipes import RECIPES
from .settings import Given
from .sharing import existing_store, shared_by
from .state import state_of
from .task_log import one_line
from .validate import positive_seconds

T = TypeVar("T")


def _before_each() -> None:
    state_of(current_app).kept(Given).warn_of_later(current_app)


asok_cli: AppGroup = AppGroup("asok", help="Background tasks.", callback=with_appcontext(_before_each))

for _recipe in RECIPES:
    for _command in _recipe.commands:
        asok_cli.add_command(_command)

asok_cli.add_command(periodic_cli)

STATES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled", "abandoned")

NOT_TRACKED = (
    "Tasks live in the memory of the web process, which no other process can see, and none was tracked yet. "
    "Set ASOK_TRACKED = True, or tracked=True on a task, and this command finds it from then on, unless ASOK_STORE is "
    '"memory"; or set ASOK_BACKEND = "celery".'
)


PORT_UNUSED = "ASOK_METRICS_PORT is not used: a worker on threads serves none. See docs: Telemetry, Several processes."

START_WORKER = "Is one running? Start it with `flask --app APP asok worker`."

SECRET_WORDS = ("SECRET", "PASSWORD", "TOKEN", "KEY", "PROXY", "CELERY", "POSTGRES")
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
    # A URL, that of the store in Redis for instance, may have a password before its host or in its query.
    has_password = "://" in (text := str(value)) and ("@" in text or "?" in text)
    return "(hidden)" if value and (has_password or any(word in key for word in SECRET_WORDS)) else value


@asok_cli.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """
    Show the configuration and the versions.

    Of a distributed backend the workers and the queues as well; where tasks are tracked, the processes, and how many
    tasks are queued, run and wait.
    """
    state = state_of(current_app)
    found: dict[str, Any] = {
        "backend": state.backend.name,
        "queues": state.backend.queues,
        "config": {key: _shown(key, value) for key, value in sorted(state.config.items()) if key != "ASOK_QUEUES"},
        "versions": _versions(),
    }
    if state.backend.distributed:
        found = {**found, **_asked(state.backend.status)}
    else:
        found = {**found, **_asked(_tracked)}
    if as_json:
        click.echo(json.dumps(found, default=str, indent=2))
        return
    click.echo(f"Backend: {found['backend']}")
    if "workers" in found:
        click.echo(f"Workers: {', '.join(found['workers']) or f'none answered within 1 s. {START_WORKER}'}")
    for title in ("queues", "queued", "delayed", "oldest", "tracked", "processes", "config", "versions"):
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
    timeout = _asked(positive_seconds, "--timeout", timeout)
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
@click.option(
    "--concurrency",
    "-c",
    type=click.IntRange(1),
    help="Processes of an engine, or its threads for each queue.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(queues: str, concurrency: int | None, arguments: tuple[str, ...]) -> None:
    """
    Run the tasks of a distributed backend, or on threads the durable tasks that other processes have left.

    ARGUMENTS are options of the engine's own worker, such as --loglevel.
    """
    if concurrency is not None:
        arguments = ("--concurrency", str(concurrency), *arguments)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    if current_app.debug:
        log(
            logging.WARNING,
            "This worker is in debug mode: FLASK_DEBUG is on, in .flaskenv perhaps. Set FLASK_DEBUG=0 in production.",
        )
    backend = state_of(current_app).backend
    if backend.in_process and not backend.distributed:
        if state_of(current_app).config["ASOK_METRICS_PORT"]:
            log(logging.WARNING, PORT_UNUSED)
        _asked(run_worker, current_app._get_current_object(), names, arguments)  # type: ignore[attr-defined]
    else:
        _asked(backend.run_worker, names, arguments)


@asok_cli.command("db")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL instead, for a migration of your own.")
def db(as_sql: bool) -> None:
    """Make the tables that the postgres backend needs and the database lacks. Exits with 1 where that fails."""
    backend = state_of(current_app).backend
    try:
        if as_sql:
            click.echo(backend.missing_tables() or "-- Nothing is missing.")
            return
        made = backend.set_up_tables()
    except AsokError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for what in made:
        click.echo(f"Made: {what}.")
    if not made:
        click.echo("Nothing is missing.")


@asok_cli.command("tasks")
@click.option("--state", type=click.Choice(STATES), help="Those in this state.")
@click.option("--name", help="Those of this name.")
@click.option("--queue", help="Those of this queue.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="The newest ones only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tasks(state: str | None, name: str | None, queue: str | None, limit: int, as_json: bool) -> None:
    """List the newest tracked tasks, the oldest of them first."""
    found = _asked(lambda: newest(_app_that_shares(), state=state, name=name, queue=queue, limit=limit))
    if as_json:
        click.echo(json.dumps([{**task.as_dict(), "error": task.error} for task in found], indent=2))
        return
    if not found:
        click.echo("No task matches." if state or name or queue else "There is no tracked task.", err=True)
    for task in found:
        fraction = task.progress.fraction if task.progress else None
        percent = "" if fraction is None else f"{fraction:.0%}"
        when = f"{task.enqueued_at:%Y-%m-%d %H:%M:%S}"
        line = f"{task.id}  {when}  {task.state:9}  {percent:4}  {task.queue}  {task.name}  {task.error or ''}"
        click.echo(one_line(line.rstrip()))


@asok_cli.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5050, show_default=True, type=click.IntRange(0, 65_535), help="0 is any free one.")
def dashboard(host: str, port: int) -> None:
    """
    Serve the dashboard of the tracked tasks until Ctrl-C, and print its address.

    It knows what the processes of the application share. Only the address with its random token leads there.
    """
    _asked(serve_alone, _asked(_app_that_shares), host, port, click.echo)


@asok_cli.command("failed")
def failed() -> None:
    """List the tasks that failed or were abandoned, the latest first: tracked ones, or those of the workers."""
    found = _asked(lambda: failed_tasks(_app_that_shares()))
    if not found:
        click.echo("No task has failed or was abandoned.", err=True)
    for task in found:
        when = f"{task.finished_at:%Y-%m-%d %H:%M:%S}" if task.finished_at else "unknown"
        click.echo(one_line(f"{task.id}  {when:19}  {task.name}  {task.error}"))


@asok_cli.command("retry")
@click.argument("id")
def retry(id: str) -> None:
    """
    Run a failed task once more.

    Exits with 1 when there is none with this ID whose call is written down, or another task has its unique key.
    """
    if not _asked(lambda: retry_task(_app_that_shares(), id)):
        click.echo(_asked(lambda: _why_not_retried(id)), err=True)
        sys.exit(1)
    click.echo(f"Sent {id} once more.")


@asok_cli.command("cancel")
@click.argument("id")
def cancel(id: str) -> None:
    """Keep a task from running. Exits with 1 when it runs, ran, or is unknown."""
    if not _asked(lambda: cancel_task(_app_that_shares(), id)):
        click.echo(f"No task that could be cancelled has the id {id}.", err=True)
        sys.exit(1)
    click.echo(f"Cancelled {id}.")


def _why_not_retried(id: str) -> str:
    store = shared_by(_app_that_shares())
    record = None if store is None else store.read(id)
    if record is not None and record.can_be_retried:
        return f"Another task has the unique key of {id}. Retry it when that one is settled."
    return f"No failed task whose call is written down has the id {id}."


def _tracked() -> dict[str, Any]:
    """Return what `status` shows of the store, if there is one."""
    store = existing_store(current_app)
    if store is None:
        return {}
    return {
        "tracked": {
            queue.name: {"queued": queue.queued, "running": queue.running, "waiting": queue.waiting}
            for queue in store.queues()
        },
        "processes": {f"{process.host} {process.pid}": process.kind for process in store.processes()},
    }


def _app_that_shares() -> Flask:
    """Return the current application, if other processes know of its tasks."""
    if not state_of(current_app).backend.distributed and existing_store(current_app) is None:
        raise NotConfigured(NOT_TRACKED)
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def _asked(ask: Callable[..., T], *args: object) -> T:
    """Ask; without an answer, exit with 2 and say why."""
    try:
        return ask(*args)
    except (AsokError, ValueError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
