"""A backend whose tasks run in other processes: what it answers from the store, whatever engine delivers them."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from flask import Flask
from flask.ctx import AppContext

from ...attempt import RunnableTask
from ...errors import BackendUnavailable
from ...options import Options
from ...record_writer import attach, record_of
from ...store.shared import Ticks
from ...summaries import SETTLED, TaskSummary
from ..base import Backend
from . import commands
from .engine_store import EngineStore
from .fallback import Fallback
from .hub import Hub
from .task import Remote, RemoteTask, update
from .task_record import DeferredRecord
from .worker import RemoteWorker


class DistributedBackend(Backend):
    """
    Sends each task as one signed message; `flask asok worker` runs them.

    At least once: a task whose worker is killed runs again, so it must tolerate that; `current_task().id` is then the
    same. Tasks with `at_most_once=True` are not run again. Nothing is connected before the first task.
    """

    distributed: ClassVar[bool] = True
    in_process: ClassVar[bool] = False

    hub: Hub
    worker: RemoteWorker

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.app: Flask = app
        self.config: Mapping[str, Any] = config
        self.remote: Remote = self.make_remote()
        # Filled by setdefault: another thread could hold a lock when the process forks.
        self._fallbacks: dict[str, Fallback] = {}

    @abstractmethod
    def make_remote(self) -> Remote:
        """Make what the tasks of this backend have as their runner, and with it the hub."""

    # In the process that calls background()

    def runner(self, queue: str) -> Remote:
        """Return the one runner, for every known queue."""
        self.queues[queue]
        return self.remote

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        """Make the Task and its message; a call that cannot be sent raises here."""
        task = super().create(fn, args, kwargs, options, context)
        assert isinstance(task, RemoteTask)
        try:
            if options.unique is not None:
                self.hub.need_store()
            self.write_message(task)
        except Exception:
            self.forget_summary(task)
            raise
        return task

    def write_message(self, task: RemoteTask[Any]) -> None:
        """Make the message of a task; TypeError, or ValueError for its size, for a call that cannot be sent."""
        task.message.recorded = self.hub.store is not None
        self.hub.packer.check(task.message)

    def write_deferred(self, task: RemoteTask[Any]) -> None:
        """Let other processes know of a task that waits for a response or a commit."""
        call = task.call
        assert call is not None
        # Where the store is away the task is written down when it is sent.
        with contextlib.suppress(BackendUnavailable):
            if self.hub.store is not None:
                store = self.hub.enter()
                store.add(record_of(task, self.app, call.fn, store.me))
                attach(task, DeferredRecord(self.hub, store))

    def run_here(self, task: RemoteTask[Any]) -> None:
        """Run a task on threads of this process, since the engine is away."""
        fallback = self._fallbacks.get("") or self._fallbacks.setdefault("", Fallback(self.app, self.config))
        fallback.take(task, self.hub)

    def tasks(self) -> list[TaskSummary]:
        """Return the recent tasks that this process has sent or run, the oldest first, each as it is by now."""
        recent = super().tasks()
        unsettled = {summary.id: summary for summary in recent if summary.state not in SETTLED}
        with contextlib.suppress(BackendUnavailable):
            if unsettled and self.hub.store is not None:
                for record in self.hub.store.read_all(list(unsettled)):
                    update(unsettled[record.id], record, time.time())
        return recent

    def get(self, id: str) -> TaskSummary | None:
        """Return the summary of the task with this id, in any process; None where it is unknown."""
        record = None if self.hub.store is None else self.hub.store.get(id)
        return super().get(id) if record is None else commands.summary_of(record)

    def shared(self) -> EngineStore | None:
        """Return the store, for every process to look at; None without one."""
        return self.hub.store

    def ticks(self) -> Ticks:
        """Return the ticks, which lie in the store; NotConfigured without one."""
        return self.hub.need_store()

    def joinable(self, id: str) -> RunnableTask[Any] | None:
        """Return the Task of a call that a task of this process waits for, and may run in place."""
        found = self.find(id)
        if found is None and self.hub.store is not None and (signed := self.hub.store.message_of(id)):
            with contextlib.suppress(Exception):  # of a message that is not ours, or of the application's code
                return self.worker.restored(self.hub.packer.read_for(id, signed))
        return found

    def alive(self) -> list[RunnableTask[Any]]:
        """Return the tasks that this process holds or runs, and does not know as settled."""
        held = [summary.task() for summary in self._recent if summary.task is not None]
        ours = [task for task in held if task is not None and task.summary.state not in SETTLED]
        return [*ours, *(task for fallback in self._fallbacks.values() for task in fallback.alive())]

    def close(self, timeout: float | None = None) -> None:
        """Finish the tasks that run on threads here since the engine was down; the workers have the others."""
        for fallback in self._fallbacks.values():
            fallback.close(timeout)

    # For the commands

    def check_queues(self, queues: Sequence[str]) -> None:
        """Raise ValueError for queues of a worker that `ASOK_QUEUES` does not name."""
        unknown = set(queues) - set(self.queues)
        if unknown:
            raise ValueError(
                f"Unknown queue {', '.join(sorted(unknown))}. Queues are: {', '.join(sorted(self.queues))}."
            )

    def failed(self) -> list[TaskSummary]:
        """Return the failed and abandoned tasks that are remembered, the latest first."""
        return commands.failed(self.hub)

    def retry(self, id: str) -> bool:
        """
        Send a failed or abandoned task once more, from its first attempt on.

        False for any other, and for one whose unique key another task has by now.
        """
        return commands.retry(self.hub, id)

    def cancel(self, id: str) -> bool:
        """Keep a task from running; False when it runs, ran, or is unknown."""
        store = self.hub.need_store()
        record = store.read(id)
        if record is None or not store.cancel(id):
            return False
        self.worker.tell_cancelled(record, "cancel() was called")
        return True

    def discard(self, id: str) -> bool:
        """Forget a settled task; False if it is not settled, or unknown."""
        here = super().discard(id)
        return self.hub.need_store().discard(id) or here
