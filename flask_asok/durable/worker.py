"""`flask asok worker` on threads: a process that runs the durable tasks which others have left."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence

import click
from flask import Flask

from ..errors import BackendUnavailable, NotConfigured
from ..handles import retry_task
from ..logs import log
from ..sharing import enter_as_web, existing_store
from ..state import state_of
from ..store.durable import DurableStore
from .home import durable_store
from .sweeper import Sweeper, sweeper_of


def run_worker(app: Flask, queues: Sequence[str], arguments: Sequence[str]) -> None:
    """Run what is left in `queues`, all of them when empty, until SIGTERM or Ctrl-C; then finish as a server does."""
    state = state_of(app)
    unknown = next((queue for queue in queues if queue not in state.backend.queues), None)
    if unknown is not None:
        raise ValueError(f"Unknown queue {unknown!r}. Queues are: {', '.join(sorted(state.backend.queues))}.")
    if arguments:
        raise ValueError(f"A worker on threads takes no {arguments[0]}: ASOK_QUEUES sets the threads of each queue.")
    store = durable_store(app)
    if not store.is_shared:
        raise NotConfigured("The store is the memory of one process: set ASOK_STORE to a path.")
    sweeper = state.shared("worker", lambda: Sweeper(app, queues))
    store.enter("worker", queues or state.backend.queues)
    ended = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: object) -> None:
        # A second one ends at once.
        signal.signal(number, before[signal.Signals(number)])
        ended.set()

    for number in before:
        signal.signal(number, end)
    names = ", ".join(queues or state.backend.queues)
    text = "The worker %s runs the durable tasks that others have left, in: %s."
    log(logging.INFO, text, os.getpid(), names, app=app)
    # Flask logs no INFO by default, and a command that says nothing looks as if it hung.
    click.echo(f"Running the durable tasks that others have left, in: {names}. Ctrl-C to quit.")
    sweeper.start()
    ended.wait()
    try:
        log(
            logging.INFO, "The worker %s finishes what it runs, for up to %g s; a second signal ends it at once.",
            os.getpid(), state.config["ASOK_SHUTDOWN_TIMEOUT"], app=app,
        )  # fmt: skip
        sweeper.close()
        state.close()
    except KeyboardInterrupt:
        # Wherever that comes, the end of the process must not wait once more.
        state.close(0)
        raise


def start_worker(app: Flask) -> None:
    """Take over what others have left from now on, before the first request. A store that is away is asked again."""
    if state_of(app).backend.distributed:
        state_of(app).backend.start_worker()
        return
    try:
        store = durable_store(app)
        store.enter("web", state_of(app).backend.queues)
    except BackendUnavailable as error:
        # A site must come up though its disk is full: the sweeper looks again, and the first request enters the store.
        log(logging.ERROR, "Background tasks that others have left must wait: %s", error, app=app)
        state_of(app).serving.on_first_request(enter_as_web)
    else:
        if not store.is_shared:
            return
    sweeper_of(app).start()


def retry_here(app: Flask, id: str) -> bool:
    """Let a failed or abandoned task run once more; in this process, where the store is its memory."""
    if not retry_task(app, id):
        return False
    store = existing_store(app)
    if isinstance(store, DurableStore) and not store.is_shared:
        # There is no other process, and tests do not sweep.
        sweeper_of(app).look()
    return True
