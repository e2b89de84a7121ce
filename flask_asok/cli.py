"""The commands: `flask asok ...`."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from .dispatch import background
from .state import state_of

asok_cli = AppGroup("asok", help="Background tasks.")

SECRET_WORDS = ("SECRET", "PASSWORD", "TOKEN", "KEY", "PROXY", "CELERY")
"""A configuration key with one of these in its name may hold a secret: its value is not shown."""


def _versions() -> dict[str, str]:
    packages = ("flask-asok", "flask", "werkzeug", "flask-mail", "pillow", "cachelib", "urllib3")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _shown(key: str, value: Any) -> Any:
    return "(hidden)" if value and any(word in key for word in SECRET_WORDS) else value


@asok_cli.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the configuration and the versions. Tasks live in the web process and cannot be seen from here."""
    state = state_of(current_app)
    found = {
        "backend": state.backend.name,
        "queues": state.backend.queues,
        "config": {key: _shown(key, value) for key, value in sorted(state.config.items()) if key != "ASOK_QUEUES"},
        "versions": _versions(),
    }
    if as_json:
        click.echo(json.dumps(found, default=str, indent=2))
        return
    click.echo(f"Backend: {found['backend']}")
    for title in ("queues", "config", "versions"):
        click.echo(f"\n{title.capitalize()}")
        rows: dict[str, Any] = found[title]  # type: ignore[assignment]
        width = max(map(len, rows))
        for name, value in rows.items():
            click.echo(f"  {name:<{width}}  {value}")


@asok_cli.command("ping")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait.")
def ping(timeout: float) -> None:
    """Run a task that does nothing, end to end. Exits with 1 when it does not come back."""
    started = time.perf_counter()
    task = background.using(name="ping")(_pong)
    try:
        answer = task.result(timeout)
    except Exception as error:
        click.echo(f"No answer: {error!r}", err=True)
        sys.exit(1)
    click.echo(f"{answer} from {state_of(current_app).backend.name} in {(time.perf_counter() - started) * 1000:.1f} ms")


def _pong() -> str:
    return "pong"


@asok_cli.command("send-test-mail")
@click.argument("address")
def send_test_mail(address: str) -> None:
    """Send a mail to ADDRESS by the app's MAIL_* settings, now. Exits with 1 when the server does not take it."""
    from .recipes.mail.trial import send_test_mail as send

    send(address)
