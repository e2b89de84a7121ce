"""The record of a task as its caller and its worker write it: what was done once must be written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...attempt import RunnableTask
from ...errors import BackendUnavailable
from ...record_writer import RecordWriter, traceback_of
from ...store.away import warn_of_store
from ...summaries import State
from ...task_log import ASKED_TO_STOP, log_cancelled, log_of
from .engine_store import EngineStore, ForeignRecord
from .hub import Hub
from .outcomes import signed_outcome

T = TypeVar("T")

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between two tries to write down what was done."""


class RemoteRecord(RecordWriter):
    """The record of a task that this process runs on its own threads."""

    __slots__ = ("_engine_store", "_hub")

    def __init__(self, hub: Hub, store: EngineStore, claim: int = 0) -> None:
        super().__init__(store, "", False, claim=claim)
        self._hub = hub
        self._engine_store = store

    def outcome(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> str | None:
        """Return the value or the error as signed text."""
        return signed_outcome(self._hub, task.id, task.name, state, value, error)


class DeferredRecord(RemoteRecord):
    """The record of a task that waits for a response or a commit: `start` of its backend releases it."""

    __slots__ = ()

    def release(self, task: RunnableTask[Any]) -> bool:
        """Return True: it is released when it is sent."""
        return True


class AttemptRecord(RemoteRecord):
    """
    The record of a task whose attempt this process has claimed.

    An outcome is written however long the store is away: the process does nothing else meanwhile, and one that is
    killed is lost with its attempt, which another one repeats.
    """

    __slots__ = ("_once",)

    def __init__(self, hub: Hub, store: EngineStore, claim: int, *, once: bool) -> None:
        super().__init__(hub, store, claim)
        self._once = once

    def begin(self, task: RunnableTask[Any], fn: Callable[..., Any]) -> State | None:
        """Return None: it has begun with the claim."""
        return None

    def hand_over(self, task: RunnableTask[Any]) -> bool:
        """Leave the attempt, which the end of this process interrupts, to another worker; False if none may make it."""
        if not self._once:
            self.give_back(task)
        return not self._once

    def free(self, task: RunnableTask[Any]) -> None:
        """Free the unique key of the task."""

        def do() -> bool:
            self._store.free(task.id)
            return True

        self._write(task, do, ())

    def give_back(self, task: RunnableTask[Any]) -> None:
        """Leave the attempt, of which there is no outcome, to another worker, unless it was asked to stop."""
        try:
            record = self._store.read(task.id)
            if record is not None and record.stopping and self._stop(task):
                return
            self._engine_store.hand_over(task.id, self._claim)
        except BackendUnavailable as error:
            # Its lease runs out.
            warn_of_store(task, error)

    def _stop(self, task: RunnableTask[Any]) -> bool:
        is_stopped = self._store.settle(task.id, self._claim, "cancelled", error=ASKED_TO_STOP)
        if is_stopped:
            log_cancelled(task, ASKED_TO_STOP)
        return is_stopped

    def wait(self, task: RunnableTask[Any], seconds: float, error: BaseException | None) -> None:
        """Note that the task waits for its next attempt, which a sweeper sends when it is due."""
        said, frames = task.summary.error or "", traceback_of(error)
        self._write(
            task,
            lambda: self._engine_store.put_off(
                task.id, self._claim, seconds, attempts=task.summary.attempts, error=said, traceback=frames
            ),
            ("waiting", "queued"),
        )

    def settle(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> None:
        """Record the last state of the task, with its value or error."""
        # It leads back to the task.
        task.reporter = None
        outcome = self.outcome(task, state, value, error)
        frames, progress = traceback_of(error), task.summary.progress

        def write() -> bool:
            if progress is not None:
                self._store.report(task.id, self._claim, progress)
            said = task.summary.error or ""
            return self._store.settle(task.id, self._claim, state, error=said, traceback=frames, outcome=outcome)

        self._write(task, write, (state,))

    def _write(self, task: RunnableTask[Any], do: Callable[[], bool], states: Sequence[State]) -> None:
        """Write down what makes the state of the record one of `states`; warn where it does not count any more."""
        pause = FIRST_PAUSE
        is_sure = True
        while True:
            try:
                written = do() or not (is_sure or self._is_lost(task, states))
                break
            except ForeignRecord as error:
                warn_of_store(task, error)
                return
            except BackendUnavailable as error:
                warn_of_store(task, error)
                # It may be written down all the same.
                is_sure = False
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        if not written:
            log_of(
                task, logging.WARNING,
                "Background task %s (%s) was taken for lost, and goes on in another process: what was done here does "
                "not count.",
                task.name, task.id,
            )  # fmt: skip

    def _is_lost(self, task: RunnableTask[Any], states: Sequence[State]) -> bool:
        record = self._store.read(task.id)
        return record is None or record.claim != self._claim or record.state not in states
