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
from ...key_probe import tell_key
from ...messages.message import Message, size_of
from ...options import Options
from ...record_writer import record_of
from ...task_log import log_of
from ..base import KEY_TAKEN
from ..distributed.backend import DistributedBackend
from ..distributed.sending import sending
from . import commands
from .checks import check_worker
from .hub import CeleryHub
from .redis_server import REDIS_URLS
from .requests import add_tasks
from .run_worker import run_worker
from .task import CeleryRemote, CeleryTask
from .worker import Worker

LARGE = 1024 * 1024
"""The bytes from which on a message that could not be sent proves nothing about the broker."""

DOWN_SECONDS = 5.0
"""How long a broker that could not be reached is not asked again."""


class CeleryBackend(DistributedBackend):
    """Sends each task as one signed message to a queue of Celery; see `DistributedBackend`."""

    name: ClassVar[str] = "celery"
    task_class: type[RunnableTask[Any]] = CeleryTask

    hub: CeleryHub
    worker: Worker

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        if not (config["ASOK_STORE"] or REDIS_URLS[0]).startswith(REDIS_URLS):
            raise ValueError(
                "ASOK_STORE must be the URL of a Redis on celery, whose workers may run on other machines: set it to "
                "'redis://...', or to None for the result backend of ASOK_CELERY, or else the broker."
            )
        super().__init__(app, config)
        self._down_until = float("-inf")
        self._why_down = ""

    def make_remote(self) -> CeleryRemote:
        """Make the hub, and what the tasks have as their runner."""
        self.hub = CeleryHub(self.app, self.config, lambda celery_app: add_tasks(celery_app, self.worker))
        self.worker = Worker(self.hub, self.task_class, self._recent.append)
        return CeleryRemote(self.hub)

    # In the process that calls background()

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
        assert isinstance(task, CeleryTask)
        if options.is_deferred:
            self.write_deferred(task)
        return task

    def reserve(self, task: RunnableTask[Any], key: str) -> str:
        """Take the unique key of a task now, or where that waits for a response or a commit when it is started."""
        assert isinstance(task, CeleryTask)
        task.key = key
        if task.options.is_deferred:
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
            if self.config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                task.mark_abandoned()
                raise
            log_of(task, logging.WARNING, "%s Background task %s runs in this process.", error, task.name)
            self.run_here(task)

    # For the commands

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run Celery's worker on `queues`, all of `ASOK_QUEUES` when empty, with more of its own `arguments`."""
        self.check_queues(queues)
        check_worker(self.hub)
        if self.config["ASOK_METRICS"] and self.config["ASOK_METRICS_PORT"]:
            from .metrics import serve

            serve(self.hub, self.queues, self.config["ASOK_METRICS_PORT"])
        run_worker(self.hub, self.worker, queues or list(self.queues), arguments)

    def status(self) -> dict[str, Any]:
        """Return the workers that answer, and the number of messages in each queue."""
        return commands.status(self.hub)

    def _write_down(self, task: CeleryTask[Any]) -> str:
        """
        Write down the call of a task that is to be sent, and return its id, or the one of the task that has its key.

        "" where another process has settled it, which has waited for a response or a commit.
        """
        if time.monotonic() < self._down_until:
            raise BackendUnavailable(f"The broker could not be reached a moment ago: {self._why_down}")
        message, delay = task.message, task.options.delay
        store, call = self.hub.store, task.call
        signed = task.signed = self.hub.packer.sign(message)
        if store is None or call is None:
            return task.id
        with self._noting_failure(message):
            tell_key(self.app, self.hub.packer, store)
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
            with self._noting_failure(message), sending(task):
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
            if self.config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                return not store.cancel(task.id)
            record = store.read(task.id)
            return record is not None and record.state not in ("queued", "waiting")
        return False

    @contextlib.contextmanager
    def _noting_failure(self, message: Message) -> Iterator[None]:
        try:
            yield
        except BackendUnavailable as error:
            # A large message may itself be the cause: it takes too long, or is refused.
            if size_of(message.as_payload()) < LARGE:
                self._down_until, self._why_down = time.monotonic() + DOWN_SECONDS, str(error)
            raise
