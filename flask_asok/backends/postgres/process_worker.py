"""What a process that runs tasks consists of: the engine's thread, the sweeper, and an orderly end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ...logs import log
from .engine import Engine, Lines
from .hub import PostgresHub
from .sweeper import PostgresSweeper
from .worker import PostgresWorker


class ProcessWorker:
    """Runs tasks in this process, from `start` to `close`."""

    def __init__(self, hub: PostgresHub, worker: PostgresWorker, lines: Lines) -> None:
        self._hub = hub
        self._worker = worker
        self._sweeper = PostgresSweeper(hub, worker)
        self._engine = Engine(hub, lines, worker.handle)

    def start(self, kind: str, queues: Sequence[str]) -> None:
        """Run tasks from now on; `kind` is "web" or "worker"."""
        self._worker.is_closed = False
        self._sweeper.enters_as(kind, queues)
        self._sweeper.start()
        self._engine.start()

    def close(self, timeout: float) -> None:
        """Fetch no more, finish within `timeout` seconds what runs, and leave the rest to other processes."""
        self._worker.is_closed = True
        self._sweeper.close()
        self._engine.close(timeout)
        for task in list(self._worker.running):
            task.abandon(f"not finished {timeout:g} s after the shutdown began")
        self._sweeper.give_back()


def warn_of_pool(hub: PostgresHub, threads: int) -> None:
    """Warn if the functions that run at once may wait for each other's connections of SQLAlchemy."""
    most = hub.transactions.most_connections
    if most is not None and most < threads:
        log(
            logging.WARNING,
            "The worker runs up to %s of your functions at once, and SQLAlchemy's pool has %s connections for them: "
            'set "pool_size" in SQLALCHEMY_ENGINE_OPTIONS to %s or more.',
            threads, most, threads, app=hub.app,
        )  # fmt: skip
