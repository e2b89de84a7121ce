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
from ...logs import log
from ...messages.message import Message, size_of
from ...options import Options
from ...store.shared import Ticks
from ...summaries import SETTLED, TaskSummary
from ...task_log import log_of
from ..base import KEY_TAKEN, Backend
from ..threads import ThreadsBackend
from . import outcomes
from .app import queue_name, run_celery_worker
from .fields import summary_of, update
from .hub import Hub
from .lengths import lengths_on
from .records import KEEPS_MESSAGE
from .redis_server import REDIS_URLS
from .requests import add_tasks
from .sending import sending
from .shared_records import SharedRecords
from .task import CeleryTask, Remote
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
        self.hub.publisher, self.hub.records  # noqa: B018
        task = super().create(fn, args, kwargs, options, context)
        assert isinstance(task, CeleryTask) and task.call is not None
        try:
            if options.unique is not None:
                self.hub.need_records()
            self.hub.check_timeout(options.timeout)
            task.message = self.hub.packer.pack(task.call, options, task.summary)
        except Exception:
            with contextlib.suppress(ValueError):
                self._recent.remove(task.summary)
            raise
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
            if not task.is_written and self._write_down(task) != task.id:
                # It has waited for a response or a commit.
                task.withdraw(KEY_TAKEN)
                return
            self._send_first(task)
        except BackendUnavailable as error:
            # On threads of this process no other one would see its unique key.
            if self._config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                task.mark_abandoned()
                raise
            log_of(task, logging.WARNING, "%s Background task %s runs in this process.", error, task.name)
            fallback = self._fallbacks.get("") or self._fallbacks.setdefault("", Fallback(self.app, self._config))
            fallback.take(task)

    def tasks(self) -> list[TaskSummary]:
        """Return the recent tasks that this process has sent or run, the oldest first, each as it is by now."""
        recent = super().tasks()
        with contextlib.suppress(BackendUnavailable):
            for summary in recent:
                if summary.state not in SETTLED and (fields := self._fields(summary.id)):
                    update(summary, fields)
        return recent

    def get(self, id: str) -> TaskSummary | None:
        """Return the summary of the task with this id, in any process; None where it is unknown."""
        for fallback in self._fallbacks.values():
            if (found := fallback.get(id)) is not None:
                return found
        fields = self._fields(id)
        if not fields:
            return super().get(id)
        return summary_of(id, fields)

    def shared(self) -> SharedRecords | None:
        """Return the records, for every process to look at; None without a Redis."""
        records = self.hub.records
        return None if records is None else SharedRecords(self.hub, records, self._is_local)

    def ticks(self) -> Ticks:
        """Return the ticks, which lie beside the records; NotConfigured without a Redis."""
        return self.hub.ticks

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
        # Raises without a SECRET_KEY: such a worker would refuse every task.
        self.hub.packer.signer  # noqa: B018
        try:
            if self.hub.records is not None:
                self.hub.records.check()
        except BackendUnavailable as error:
            # Redis may come up later: the worker waits for its broker as well.
            log(logging.WARNING, "%s", error, app=self.app)
        if self._config["ASOK_METRICS"] and self._config["ASOK_METRICS_PORT"]:
            from .metrics import serve

            serve(self.hub, self.queues, self._config["ASOK_METRICS_PORT"])
        names = ",".join(queue_name(self.app, queue) for queue in (queues or self.queues))
        run_celery_worker(self.hub.celery_app, ["--queues", names, *arguments])

    def status(self) -> dict[str, Any]:
        """Return the workers that answer, and the number of messages in each queue."""
        with self.hub.publisher.connected() as connection:
            lengths = lengths_on(connection, self.app, self.queues)
            inspected = self.hub.celery_app.control.inspect(timeout=1, connection=connection)
            queues_of_workers = inspected.active_queues() or {}
        ours = {queue_name(self.app, queue) for queue in self.queues}
        # Workers of other applications on this broker answer too.
        workers = [name for name, queues in queues_of_workers.items() if ours & {queue["name"] for queue in queues}]
        return {"workers": sorted(workers), "queued": lengths}

    def failed(self) -> list[TaskSummary]:
        """Return the failed and abandoned tasks that are remembered, the latest first."""
        found = [self.get(id) for id in self.hub.need_records().failed()]
        return [summary for summary in found if summary is not None]

    def retry(self, id: str) -> bool:
        """
        Send a failed or abandoned task once more, from its first attempt on.

        False for any other, and for one whose unique key another task has by now.
        """
        records = self.hub.need_records()
        fields = records.read(id)
        if fields.get("state") not in KEEPS_MESSAGE or "message" not in fields:
            return False
        message = self.hub.packer.read_for(id, fields["message"])
        message.attempt, message.due = 1, time.time()
        if not records.renew(message, fields):
            return False
        try:
            self.hub.publish(message)
        except BackendUnavailable:
            records.finish(message, fields)
            raise
        return True

    def cancel(self, id: str) -> bool:
        """Keep a task from running; False when it runs, ran, or is unknown."""
        return outcomes.cancel(self.hub, id)

    def discard(self, id: str) -> bool:
        """Forget a settled task; False if it is not settled, or unknown."""
        records = self.hub.need_records()
        here = super().discard(id)
        if records.read(id).get("state") not in SETTLED:
            return here
        records.remove(id)
        return True

    def _is_local(self, id: str) -> bool:
        return any(fallback.get(id) is not None for fallback in self._fallbacks.values())

    def _fields(self, id: str) -> dict[str, str]:
        """Return what the records know of a task."""
        records = self.hub.records
        return {} if records is None else records.read(id)

    def _write_down(self, task: CeleryTask[Any]) -> str:
        """Make the record of a task that is to be sent, and return its id, or the one of the task that has its key."""
        if time.monotonic() < self._down_until:
            raise BackendUnavailable("The broker could not be reached a moment ago.")
        message, records = task.message, self.hub.records
        message.due = time.time() + task.options.delay
        with self._noting_failure(message):
            holder = task.id if records is None else records.add(message, task.key, task.options.unique_until)
        task.is_written = holder == task.id
        return holder

    def _send_first(self, task: CeleryTask[Any]) -> None:
        message, delay, records = task.message, task.options.delay, self.hub.records
        with self._noting_failure(message):
            try:
                with sending(message, message.fn.replace(":", ".")):
                    self.hub.publish(message, delay)
            except BackendUnavailable:
                # The record stays: if the message did reach the broker, its task is not run.
                if records is None or records.cancel(task.id):
                    raise
                # A worker has claimed it already: only the confirmation was lost.
        task.summary.state = "waiting" if delay else "queued"

    @contextlib.contextmanager
    def _noting_failure(self, message: Message) -> Iterator[None]:
        try:
            yield
        except BackendUnavailable:
            # A large message may itself be the cause: it takes too long, or is refused.
            if size_of(message.as_payload()) < LARGE:
                self._down_until = time.monotonic() + DOWN_SECONDS
            raise


class Fallback(ThreadsBackend):
    """Runs tasks on threads of this process while the broker cannot be reached."""

    def take(self, task: CeleryTask[Any]) -> None:
        """Run a task here whose message was not sent."""
        task.run_here(self.runner(task.queue))
        self._recent.append(task.summary)
        self.start(task)
