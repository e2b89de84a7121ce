"""What a worker on PostgreSQL does with a task that the engine delivers."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from ...attempt import RunnableTask
from ...errors import BackendUnavailable
from ...logs import log
from ...store.base import Record
from ...summaries import TaskSummary
from ..base import KEY_TAKEN
from ..distributed.engine_store import EngineStore, new_claim
from ..distributed.hub import insist
from ..distributed.task import Remote
from ..distributed.worker import RemoteWorker
from .engine_jobs import Begun
from .engine_store import KEY_WAS_TAKEN, PostgresEngineStore
from .hub import PostgresHub
from .task import PostgresRemote


class PostgresWorker(RemoteWorker):
    """
    Runs the attempts that the engine asks for, each in the thread that calls it.

    The record is the truth: whatever goes wrong here, the engine may forget its row, and a sweeper sends another one.
    """

    hub: PostgresHub
    remote_class: type[Remote] = PostgresRemote
    has_scopes: bool = False

    def __init__(self, hub: PostgresHub, task_class: type[Any], remember: Callable[[TaskSummary], None]) -> None:
        super().__init__(hub, task_class, remember)
        self.running: dict[RunnableTask[Any], None] = {}
        """The tasks whose attempt is under way in this process."""
        self.is_closed: bool = False
        """Is this process about to end?"""

    def handle(self, id: object, begun: Begun | None = None) -> bool:
        """
        Run the attempt of the task `id` that has begun, or is due, if there is one.

        Then it is True: the engine's row is gone.
        """
        if not isinstance(id, str):
            log(logging.ERROR, "Refused a message for background tasks: it names no task.", app=self.hub.app)
            return False
        try:
            return self._handle(id, begun)
        except BackendUnavailable as error:
            log(
                logging.WARNING, "Background task %s is left to another worker: %s", id, error,
                app=self.hub.app, extra={"task_id": id},
            )  # fmt: skip
            return False

    def _handle(self, id: str, begun: Begun | None) -> bool:
        store = self.hub.store
        claim = new_claim() if begun is None else begun.claim
        try:
            return self._run(store, id, claim, begun)
        finally:
            # Whatever has ended it: a sweeper gives others what the record still says of an attempt here.
            store.claims.discard(claim)

    def _run(self, store: PostgresEngineStore, id: str, claim: int, begun: Begun | None) -> bool:
        if begun is None:
            self.hub.enter()
            attempt, signed = insist(lambda: store.take(id, store.me, claim), self._is_ending)
        else:
            attempt, signed = begun.attempt, begun.signed
        if attempt == KEY_WAS_TAKEN:
            self._refuse(store, id)
        elif not attempt and store.read(id) is None:
            log(logging.ERROR, "Refused a message for background tasks: the task %r is unknown.", id, app=self.hub.app)
        if attempt <= 0:
            return False
        message = None
        try:
            message = self.hub.packer.read_for(id, signed)
            task = self.restored(message)
        except Exception as error:  # of a message that this code does not know, or of the application's code
            insist(lambda: store.put_back(id, claim), self._is_ending)
            if message is None:
                self.leave(id, str(error))
            else:
                self.leave(id, f"{error!r}", message.name)
            return False
        task.has_begun(store, claim, attempt)
        self.remember(task.summary)
        self.running[task] = None
        try:
            task.perform_begun(threading.current_thread())
        finally:
            self.running.pop(task, None)
        return True

    def take_back(self, store: EngineStore, record: Record) -> None:
        """As on every backend; what this process itself has claimed, and does not run, no lost process had."""
        assert isinstance(store, PostgresEngineStore)
        if record.owner != store.me:
            super().take_back(store, record)
        elif record.claim in store.claims:
            return
        elif record.stopping:
            self.stop(store, record)
        else:
            store.hand_over(record.id, record.claim)

    def _is_ending(self) -> bool:
        return self.is_closed

    def _refuse(self, store: PostgresEngineStore, id: str) -> None:
        """Cancel a task whose unique key another one has by now."""
        signed = store.refuse(id)
        message = None if signed is None else self.kept_message(id, signed)
        if message is not None:
            with contextlib.suppress(Exception):  # of the application's code
                self.restored(message).withdraw(KEY_TAKEN)
