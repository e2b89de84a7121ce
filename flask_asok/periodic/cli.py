"""The commands: `flask asok periodic`, `periodic list` and `periodic run NAME`."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
from datetime import datetime
from typing import NoReturn

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from ..attempt import RunnableTask
from ..durable.sweeper import begin_sweeping
from ..errors import AsokError
from ..sharing import open_store, shared_by
from ..state import state_of
from .by_hand import NONE, start_named
from .clock import Clock
from .runs import PeriodicTask, in_utc, listed
from .schedules import zone_named

NEXT = 3
"""How many ticks to come a list shows."""

LOOK_SECONDS = 0.5
"""How often the main thread looks up: on Windows a wait without end hears no Ctrl-C."""


@click.group("periodic", invoke_without_command=True)
@click.pass_context
@with_appcontext
def periodic_cli(context: click.Context) -> None:
    """Start the periodic tasks from this process, until it is told to end; on threads they run in it as well."""
    if context.invoked_subcommand is not None:
        return
    app = _app()
    state, clock = state_of(app), state_of(app).kept(Clock)
    if state.config["ASOK_PERIODIC"] == "off":
        _refuse('ASOK_PERIODIC is "off": periodic tasks are not started.')
    if app.testing:
        _refuse("The app is in testing mode, in which no periodic task is started by itself.")
    if not clock.entries:
        _refuse(NONE)
    try:
        if not state.backend.distributed:
            open_store(app).enter("worker", state.backend.queues)
            # What this process leaves behind when it is killed goes on when it is started again.
            begin_sweeping(app)
    except AsokError as error:
        _refuse(str(error))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    clock.start()
    click.echo(f"Starting {len(clock.entries)} periodic tasks. Ctrl-C to quit.")
    try:
        while not ended.wait(LOOK_SECONDS):
            pass
    except KeyboardInterrupt:
        pass
    clock.stop()
    state.close()


@periodic_cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def list_periodic(as_json: bool) -> None:
    """List the periodic tasks: their next ticks, in their time zone and in UTC, and the state of their last run."""
    app = _app()
    clock = state_of(app).kept(Clock)
    try:
        found = [listed(app, entry, clock.zone, clock.now()) for entry in clock.entries]
        states = [_last_state(app, one) for one in found]
    except AsokError as error:
        _refuse(str(error))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], default=datetime.isoformat, indent=2))
        return
    if not found:
        click.echo(NONE)
    for entry, one, last in zip(clock.entries, found, states, strict=True):
        click.echo(f"{one.name}  {one.schedule}  {one.tz}")
        tick = one.next_at.timestamp()
        for title in ("next", *[""] * (NEXT - 1)):
            local = in_utc(tick).astimezone(zone_named(one.tz))
            click.echo(f"  {title:4}  {local:%Y-%m-%d %H:%M:%S %z}  {in_utc(tick):%Y-%m-%d %H:%M:%S} UTC")
            tick = entry.schedule(clock.zone).after(tick)
        click.echo(f"  last  {last}")


@periodic_cli.command("run")
@click.argument("name")
@with_appcontext
def run_periodic(name: str) -> None:
    """
    Start one periodic task now, for its latest tick; on threads also wait for it.

    Its next tick comes as ever. Exits with 1 if it fails, or if a run is already going on.
    """
    app = _app()
    try:
        task = start_named(app, name)
    except (AsokError, TypeError, ValueError) as error:
        _refuse(str(error))
    if not isinstance(task, RunnableTask):
        click.echo(f"A run of {name}, {task.id}, is already going on.", err=True)
        sys.exit(1)
    if state_of(app).backend.distributed:
        click.echo(f"Sent {task.id}.")
        return
    task.join()
    click.echo(f"{task.id} {task.state}")
    sys.exit(task.state != "succeeded")


def _last_state(app: Flask, one: PeriodicTask) -> str:
    if one.last_at is None or one.last_id is None:
        return "never"
    shared = shared_by(app)
    record = None if shared is None else shared.get(one.last_id)
    state = "over for a day, or forgotten" if record is None else record.state
    return f"{one.last_at:%Y-%m-%d %H:%M:%S} UTC  {state}  {one.last_id}"


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def _refuse(why: str) -> NoReturn:
    click.echo(why, err=True)
    sys.exit(2)
