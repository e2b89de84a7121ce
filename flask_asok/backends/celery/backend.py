"""Run tasks on Celery workers: the same call, when one process is no longer enough."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from flask import Flask
from flask.ctx import AppContext

from ...attempt import RunnableTask
from ...errors import BackendUnavailable
from ...messages.message import Message, size_of
from ...options import Options
from ...record_writer import attach, record_of
from ...store.shared import Ticks
from ...summaries import SETTLED, TaskSummary
from ...task_log import log_of
from ..base import KEY_TAKEN, Backend
from . import commands
from .checks import check_worker
from .engine_store import EngineStore
from .fallback import Fallback
from .hub import Hub
from .key_probe import tell_key
from .redis_server import REDIS_URLS
from .requests import add_tasks
from .run_worker import run_worker
from .sending import sending
from .task import CeleryTask, Remote, update
from .task_record import DeferredRecord
from .worker import Worker

LARGE = 1024 * 1024
"""The bytes from which on a message that could not be sent proves nothing about the broker."""

DOWN_SECONDS = 5.0
"""How long a broker that could not be reached is not asked again."""


class CeleryBackend(Backend):
    """
    Sends each task as one signed message to a queue of Celery; `flask asok worker` runs them.

    At least once: a task whose worker is killed runs again, so it must tolerate that; `current_task().id` is then the
    same. Tasks with `at_most_once=True` are not run again. Nothing is connected before the first task.
    """

    name: ClassVar[str] = "celery"
    distributed: ClassVar[bool] = True
    in_process: ClassVar[bool] = False
    task_class: type[RunnableTask[Any]] = CeleryTask

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        if not (config["ASOK_STORE"] or REDIS_URLS[0]).startswith(REDIS_URLS):
            raise ValueError(
                "ASOK_STORE must be the URL of a Redis on celery, whose workers may run on other machines: set it to "
                "'redis://...', or to None for the result backend of ASOK_CELERY, or else the broker."
            )
        self.app: Flask = app
        self._config = config
        self.hub: Hub = Hub(app, config, lambda celery_app: add_tasks(celery_app, self.worker))
        self.worker: Worker = Worker(self.hub, self.task_class, self._recent.append)
        self._remote = Remote(self.hub)
        # Filled by setdefault: another thread could hold a lock when the process forks.
        self._fallbacks: dict[str, Fallback] = {}
        self._down_until = float("-inf")

    # In the process that calls background()

    def runner(self, queue: str) -> Remote:
        """Return the one runner, for every known queue."""
        self.queues[queue]
        return self._remote

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        """Make the Task and its message; a call that cannot be sent raises here."""
        # Invalid settings raise here as well, also where the task starts later.
        self.hub.publisher, self.hub.store  # noqa: B018
        task = super().create(fn, args, kwargs, options, context)
        assert isinstance(task, CeleryTask) and task.call is not None
        try:
            if options.unique is not None:
                self.hub.need_store()
            task.message = self.hub.packer.pack(task.call, options, task.summary)
            task.message.recorded = self.hub.store is not None
            task.message.unique_until = options.unique_until
        except Exception:
            with contextlib.suppress(ValueError):
                self._recent.remove(task.summary)
            raise
        if options.when != "now":
            self._write_deferred(task)
        return task

    def reserve(self, task: RunnableTask[Any], key: str) -> str:
        """Take the unique key of a task now, or where that waits for a response or a commit when it is started."""
        assert isinstance(task, CeleryTask)
        task.key = key
        if task.options.when != "now":
            return task.id
        try:
            return self._write_down(task)
        except BackendUnavailable:
            task.mark_abandoned()
            raise

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """Send the message; where the broker cannot be reached, do what `ASOK_FALLBACK` says."""
        assert isinstance(task, CeleryTask)
        try:
            holder = task.id if task.is_written else self._write_down(task)
            if holder != task.id:
                # It has waited for a response or a commit.
                task.withdraw(KEY_TAKEN if holder else "another process cancelled it")
                return
            self._send(task)
        except BackendUnavailable as error:
            if self._has_begun(task):
                # Only the confirmation was lost.
                self._down_until = float("-inf")
                return
            # On threads of this process no other one would see its unique key.
            if self._config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                task.mark_abandoned()
                raise
            log_of(task, logging.WARNING, "%s Background task %s runs in this process.", error, task.name)
            fallback = self._fallbacks.get("") or self._fallbacks.setdefault("", Fallback(self.app, self._config))
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
        """Return the store, for every process to look at; None without a Redis."""
        return self.hub.store

    def ticks(self) -> Ticks:
        """Return the ticks, which lie in the store; NotConfigured without a Redis."""
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
        """Finish the tasks that run on threads here since the broker was down; the workers have the others."""
        for fallback in self._fallbacks.values():
            fallback.close(timeout)

    # For the commands

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run Celery's worker on `queues`, all of `ASOK_QUEUES` when empty, with more of its own `arguments`."""
        unknown = set(queues) - set(self.queues)
        if unknown:
            raise ValueError(
                f"Unknown queue {', '.join(sorted(unknown))}. Queues are: {', '.join(sorted(self.queues))}."
            )
        check_worker(self.hub)
        if self._config["ASOK_METRICS"] and self._config["ASOK_METRICS_PORT"]:
            from .metrics import serve

            serve(self.hub, self.queues, self._config["ASOK_METRICS_PORT"])
        run_worker(self.hub, self.worker, queues or list(self.queues), arguments)

    def status(self) -> dict[str, Any]:
        """Return the workers that answer, and the number of messages in each queue."""
        return commands.status(self.hub)

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
        return self.hub.need_store().cancel(id)

    def discard(self, id: str) -> bool:
        """Forget a settled task; False if it is not settled, or unknown."""
        here = super().discard(id)
        return self.hub.need_store().discard(id) or here

    def _write_deferred(self, task: CeleryTask[Any]) -> None:
        """Let other processes know of a task that waits for a response or a commit."""
        call = task.call
        assert call is not None
        # Where Redis is away the task is written down when it is sent.
        with contextlib.suppress(BackendUnavailable):
            if self.hub.store is not None:
                store = self.hub.enter()
                store.add(record_of(task, self.app, call.fn, store.me))
                attach(task, DeferredRecord(self.hub, store))

    def _write_down(self, task: CeleryTask[Any]) -> str:
        """
        Write down the call of a task that is to be sent, and return its id, or the one of the task that has its key.

        "" where another process has settled it, which has waited for a response or a commit.
        """
        if time.monotonic() < self._down_until:
            raise BackendUnavailable("The broker could not be reached a moment ago.")
        message, delay = task.message, task.options.delay
        store, call = self.hub.store, task.call
        signed = task.signed = self.hub.packer.sign(message)
        if store is None or call is None:
            return task.id
        with self._noting_failure(message):
            tell_key(self.hub, store)
            store.tidy()
            if task.journal is not None:
                holder = store.release_in(task.id, delay, task.key, signed)
                task.journal = None
                task.sent = "" if delay or holder != task.id else store.sent_at(task.queue, task.id)
            else:
                record = record_of(task, self.app, call.fn, "")
                record.key = record.unique_key = task.key
                record.enqueued = task.summary.enqueued
                record.state = "waiting" if delay else "queued"
                holder, task.sent = store.accept(record, signed, delay)
        task.is_written = task.summary.is_stored = holder == task.id
        return holder

    def _send(self, task: CeleryTask[Any]) -> None:
        message, delay, is_kept = task.message, task.options.delay, self.hub.store is not None
        if not (delay and is_kept):
            trace = dict(message.trace)
            with self._noting_failure(message), sending(message, message.fn.replace(":", ".")):
                # What is kept has the caller's trace, what is sent that of the span in which it is.
                signed = task.signed if message.trace == trace else ""
                self.hub.publish(message, signed, wait=delay, sent=task.sent)
        task.summary.state = "waiting" if delay else "queued"

    def _has_begun(self, task: CeleryTask[Any]) -> bool:
        """Has a worker begun a task whose message was not confirmed? Where it cannot run here, it is cancelled else."""
        store = self.hub.store
        if store is None or not task.is_written:
            return False
        with contextlib.suppress(BackendUnavailable):
            if self._config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                return not store.cancel(task.id)
            record = store.read(task.id)
            return record is not None and record.state not in ("queued", "waiting")
        return False

    @contextlib.contextmanager
    def _noting_failure(self, message: Message) -> Iterator[None]:
        try:
            yield
        except BackendUnavailable:
            # A large message may itself be the cause: it takes too long, or is refused.
            if size_of(message.as_payload()) < LARGE:
                self._down_until = time.monotonic() + DOWN_SECONDS
            raise
