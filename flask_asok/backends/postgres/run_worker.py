"""`flask asok worker` on PostgreSQL."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence

import click

from ...errors import BackendUnavailable
from ...key_probe import check_key
from ...logs import log
from .engine import Lines
from .hub import PostgresHub
from .process_worker import ProcessWorker, warn_of_pool
from .worker import PostgresWorker


def run_worker(hub: PostgresHub, worker: PostgresWorker, queues: Sequence[str], arguments: Sequence[str]) -> None:
    """
    Run the tasks of `queues` until SIGTERM or Ctrl-C; then finish what runs, or at a second signal leave it to others.

    NotConfigured for a worker that could run no task. A database that is away is waited for.
    """
    sizes = _sizes(hub, queues, arguments)
    # Raises without a SECRET_KEY: such a worker would refuse every task.
    hub.packer.signer  # noqa: B018
    hub.is_worker = True
    try:
        hub.store.check()
        check_key(hub.packer, hub.store.read_probe())
    except BackendUnavailable as error:
        log(logging.WARNING, "%s", error, app=hub.app)
    if hub.config["ASOK_METRICS"] and hub.config["ASOK_METRICS_PORT"]:
        from .metrics import serve

        serve(hub, hub.config["ASOK_METRICS_PORT"])
    # The built-in jobs need no connection of SQLAlchemy, and have most of the threads if nobody changed that.
    own = {"default", *hub.app.config["ASOK_QUEUES"]}
    warn_of_pool(hub, sum(size for queue, size in sizes.items() if queue in own))
    told = threading.Event()
    again = threading.Event()

    def end(number: int, frame: object) -> None:
        (again if told.is_set() else told).set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    lines: Lines = {(hub.store.lines[queue],): size for queue, size in sizes.items()}
    running = ProcessWorker(hub, worker, lines)
    log(
        logging.INFO, "The worker %s runs the tasks of: %s.",
        os.getpid(), ", ".join(f"{queue} ({size})" for queue, size in sizes.items()), app=hub.app,
    )  # fmt: skip
    # Flask logs no INFO by default, and a command that says nothing looks as if it hung.
    click.echo(f"Running the tasks of {', '.join(sizes)}. Ctrl-C to quit.")
    running.start("worker", queues)
    try:
        # With a limit, over and over: without one a signal may not be heard on every system.
        while not told.wait(1.0):
            pass
        timeout = hub.config["ASOK_SHUTDOWN_TIMEOUT"]
        log(
            logging.INFO, "The worker %s finishes what it runs, for up to %g s; a second signal ends it at once.",
            os.getpid(), timeout, app=hub.app,
        )  # fmt: skip
        closing = threading.Thread(target=running.close, args=(timeout,), name="asok-close", daemon=True)
        closing.start()
        while closing.is_alive() and not again.is_set():
            closing.join(0.1)
        if again.is_set():
            running.close(0.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    hub.app.extensions["asok"].close(0)


def _sizes(hub: PostgresHub, queues: Sequence[str], arguments: Sequence[str]) -> dict[str, int]:
    """Return the threads of each queue, by ASOK_QUEUES or `--concurrency`."""
    sizes = {queue: hub.config["ASOK_QUEUES"][queue] for queue in queues}
    match list(arguments):
        case []:
            return sizes
        case ["--concurrency", number] if number.isdecimal() and int(number) > 0:
            return dict.fromkeys(sizes, int(number))
        case ["--concurrency", *_]:
            raise ValueError("--concurrency is the number of threads of each queue, 1 or more.")
        case [first, *_]:
            raise ValueError(f"A worker on postgres takes no {first}: ASOK_QUEUES sets the threads of each queue.")
    return sizes
