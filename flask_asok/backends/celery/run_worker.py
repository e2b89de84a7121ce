"""`flask asok worker` on Celery: Celery's own worker with a sweeper beside it, begun again when an error ends it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from celery.signals import worker_init, worker_ready
from celery.worker import state as celery_state

from ...logs import log
from .app import queue_name, run_celery_worker
from .hub import CeleryHub
from .sweeper import Sweeper
from .worker import Worker

AGAIN_SECONDS = 2.0
"""The pause before a worker begins again that an error has ended."""

BEGUN = "_ASOK_WORKER_HAS_BEGUN"
"""The variable by which such a worker knows that it had begun before: it goes on though Redis is still away."""


def run_worker(hub: CeleryHub, worker: Worker, queues: Sequence[str], arguments: Sequence[str]) -> None:
    """
    Run Celery's worker until it is told to stop.

    Where an error ends its main loop, as Redis does that is read-only or full, it begins again, in place of this
    process. SystemExit with a code that is not 0 for one that could not begin at all.
    """
    sweeper = Sweeper(hub, worker, queues)
    begun: list[Any] = []
    ready: list[Any] = []
    # Taken out, for no other program that a task starts is meant.
    had_begun = os.environ.pop(BEGUN, "") != ""

    def on_init(sender: Any = None, **_: Any) -> None:
        begun.append(sender)

    def on_ready(sender: Any = None, **_: Any) -> None:
        # Not before: the processes of the pool are forked by now.
        if not ready and hub.store is not None:
            sweeper.start()
        ready.append(sender)

    worker_init.connect(on_init, weak=False)
    worker_ready.connect(on_ready, weak=False)
    names = ",".join(queue_name(hub.app, queue) for queue in queues)
    try:
        run_celery_worker(hub.celery_app, ["--queues", names, *arguments])
    finally:
        sweeper.close()
        worker_init.disconnect(on_init)
        worker_ready.disconnect(on_ready)
    code = begun[-1].exitcode if begun else 0
    if not code:
        return
    if not (ready or had_begun) or _was_asked():
        raise SystemExit(code)
    log(logging.ERROR, "The worker has ended by an error, and begins again in %g s.", AGAIN_SECONDS, app=hub.app)
    hub.app.extensions["asok"].close(1)
    time.sleep(AGAIN_SECONDS)
    os.environ[BEGUN] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _was_asked() -> bool:
    asked = (celery_state.should_stop, celery_state.should_terminate)
    return any(one is not None and one is not False for one in asked)
