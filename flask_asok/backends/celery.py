"""Run tasks on Celery workers: the same call, when one process is no longer enough."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from flask import Flask
from flask.ctx import AppContext

from ..attempt import RunnableTask
from ..context import Carried
from ..errors import BackendUnavailable, MessageRefused, NotConfigured
from ..logs import log
from ..options import Options, options_of
from ..summaries import SETTLED, TaskSummary
from .base import Backend
from .celery_task import CeleryTask, Remote, facts_of, fill
from .celery_worker import CeleryWorker
from .engine import (
    HOP_SECONDS,
    RUN,
    RUN_ONCE,
    Publisher,
    add_tasks,
    make_engine,
    queue_name,
    start_worker,
    time_limits,
    trace_headers,
)
from .message import Codec, Names, Seal, check_size, size_of
from .records import Records
from .redis_server import REDIS_URLS, RedisServer, find_server, urls_of
from .threads import ThreadsBackend

LARGE = 1024 * 1024
"""Bytes from which a message that was not sent says nothing about the broker."""

DOWN_SECONDS = 5.0
"""How long a broker that could not be reached is not asked again."""

NO_SERVER = RedisServer((), {}, {}, {}, "")
"""There is no Redis for the records; unlike None, that has been looked up."""

PLAIN = (str, int, float, bool, type(None))
"""Values of `g` that travel."""


class CeleryBackend(Backend):
    """
    Sends each task as one signed message to a queue of Celery; `flask asok worker` runs them.

    At least once: a task whose worker is killed runs again, so it has to bear that; `current_task().id` is the same
    then. Tasks with `at_most_once=True` are not run again. Nothing is connected before the first task.
    """

    name: ClassVar[str] = "celery"
    distributed: ClassVar[bool] = True
    task_class: ClassVar[type[RunnableTask[Any]]] = CeleryTask
    in_process: ClassVar[bool] = False

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.app: Flask = app
        self._config = config
        # Filled by setdefault: a lock could be held by another thread when the process forks.
        self._engines: dict[str, Any] = {}
        self._locals: dict[str, ThreadsBackend] = {}
        self._down_until = float("-inf")
        self._servers: dict[str, RedisServer] = {}
        self.worker: CeleryWorker = CeleryWorker(self)
        self._lane = Remote(self)
        root = app.import_name.partition(".")[0]
        modules = config["ASOK_TASK_MODULES"]
        self.names: Names = Names({"flask_asok", *([root] if modules is None else modules)})
        self.codec: Codec = Codec(self.names)

    # In the process that calls background()

    def lane(self, queue: str) -> Remote:
        """Return the one lane, for every known queue."""
        self.queues[queue]
        return self._lane

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        """Make the Task and the message: what cannot travel raises here, at the call."""
        # Raise at the call what is wrong with their settings, also where the task starts later.
        self.publisher, self.records  # noqa: B018
        task = super().create(fn, args, kwargs, options, context)
        assert isinstance(task, CeleryTask) and task.call is not None
        try:
            task.message = self._message(task, *task.call)
            check_size(task.message, self.most_bytes)
        except Exception:
            with contextlib.suppress(ValueError):
                self._recent.remove(task.summary)
            raise
        return task

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """Send the message; where the broker cannot be reached, do what `ASOK_FALLBACK` says."""
        assert isinstance(task, CeleryTask)
        try:
            self._send_first(task)
        except BackendUnavailable as error:
            if self._config["ASOK_FALLBACK"] != "threads":
                task.lose()
                raise
            log(logging.WARNING, "%s Background task %s runs in this process.", error, task.name, app=self.app)
            self._run_locally(task)

    def tasks(self) -> list[TaskSummary]:
        """Return the recent tasks that this process has sent or run, the oldest first, each as it is by now."""
        recent = super().tasks()
        with contextlib.suppress(BackendUnavailable):
            for summary in recent:
                fields = self.records.read(summary.id) if self.records and summary.state not in SETTLED else {}
                if fields:
                    fill(summary, fields)
        return recent

    def get(self, id: str) -> TaskSummary | None:
        """Return what is known of the task with this id, in any process; None when nothing is."""
        for local in self._locals.values():
            if (found := local.get(id)) is not None:
                return found
        fields = self.records.read(id) if self.records is not None else {}
        if not fields:
            return super().get(id)
        summary = TaskSummary(fields["name"], fields["queue"], id)
        summary.enqueued = float(fields["enqueued"])
        return fill(summary, fields)

    def close(self, timeout: float | None = None) -> None:
        """Finish what runs on local threads for want of a broker; what was sent is the workers'."""
        for local in self._locals.values():
            local.close(timeout)

    # For the commands

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run Celery's worker on `queues`, all of `ASOK_QUEUES` when empty, with more of its own `arguments`."""
        unknown = set(queues) - set(self.queues)
        if unknown:
            raise ValueError(
                f"Unknown queue {', '.join(sorted(unknown))}. Queues are: {', '.join(sorted(self.queues))}."
            )
        # Raises where there is no key: such a worker would refuse every task.
        Seal(self.app)
        try:
            if self.records is not None:
                self.records.check()
        except BackendUnavailable as error:
            # It may come up later: the worker waits for its broker as well.
            log(logging.WARNING, "%s", error, app=self.app)
        names = ",".join(queue_name(self.app, queue) for queue in (queues or self.queues))
        start_worker(self.engine, ["--queues", names, *arguments])

    def status(self) -> dict[str, Any]:
        """Return the workers that answer, and the number of messages in each queue."""
        with self.publisher.connected() as connection:
            channel = connection.default_channel
            lengths = {queue: _length(channel, queue_name(self.app, queue)) for queue in self.queues}
            consumed = self.engine.control.inspect(timeout=1, connection=connection).active_queues() or {}
        ours = {queue_name(self.app, queue) for queue in self.queues}
        # Workers of other applications on this broker answer too.
        workers = [worker for worker, found in consumed.items() if ours & {queue["name"] for queue in found}]
        return {"workers": sorted(workers), "queued": lengths}

    def failed(self) -> list[TaskSummary]:
        """Return the failed tasks that are remembered, the latest first."""
        found = [self.get(failed) for failed in self.need_records().failed()]
        return [summary for summary in found if summary is not None]

    def retry(self, id: str) -> bool:
        """Send a failed task once more, from its first attempt on, under the same id; False when it has not failed."""
        records = self.need_records()
        fields = records.read(id)
        if fields.get("state") != "failed" or "message" not in fields:
            return False
        message = {**self.seal.open(fields["message"], "call"), "attempt": 1, "due": time.time()}
        if message["id"] != id:
            raise MessageRefused("The record holds the message of another task.")
        records.remove(id)
        self._add_record(message)
        try:
            self.publish(message, 0)
        except BackendUnavailable:
            records.finish(id, fields)
            raise
        return True

    def cancel(self, id: str) -> bool:
        """Keep a task from running; False when it runs, ran, or is unknown."""
        return self.need_records().cancel(id)

    # Parts made on first use

    @property
    def engine(self) -> Any:
        """The Celery application."""
        try:
            return self._engines[""]
        except KeyError:
            engine = make_engine(self.app, self._config["ASOK_CELERY"])
            add_tasks(engine, self)
            return self._engines.setdefault("", engine)

    @property
    def seal(self) -> Seal:
        """What signs messages; made anew each time, so that a key may be rotated."""
        return Seal(self.app)

    @property
    def publisher(self) -> Publisher:
        """What sends messages."""
        state = self.app.extensions["asok"]
        return state.shared("celery.publisher", lambda: Publisher(self.engine))  # type: ignore[no-any-return]

    @property
    def records(self) -> Records | None:
        """The records in Redis; None where neither the result backend nor the broker is a Redis."""
        server = self._servers.get("")
        if server is None:
            # Looked up once: Celery is slow to tell its settings.
            server = self._servers.setdefault("", find_server(self.engine.conf) or NO_SERVER)
        if server is NO_SERVER:
            return None
        state = self.app.extensions["asok"]
        return state.shared("celery.records", lambda: Records(server, self.app.name))  # type: ignore[no-any-return]

    def need_records(self) -> Records:
        if self.records is None:
            raise NotConfigured(
                "This needs a Redis for the records of tasks: ASOK_CELERY['result_backend'] = 'redis://...'."
            )
        return self.records

    # The way of a message

    def _message(
        self,
        task: CeleryTask[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        carried: Carried,
    ) -> dict[str, Any]:
        _, values, _, adapter = carried
        encode = self.codec.encode
        name = task.name
        return {
            "v": 1,
            "id": task.id,
            "fn": self.names.of(fn),
            "args": [encode(arg, f"Argument {n} of {name}") for n, arg in enumerate(args, 1)],
            "kwargs": {key: encode(arg, f"Argument {key!r} of {name}") for key, arg in kwargs.items()},
            "g": {key: encode(value, key) for key, value in values.items() if type(value) in PLAIN},
            "url": adapter and [adapter.server_name, adapter.script_name, adapter.subdomain, adapter.url_scheme],
            "trace": trace_headers(),
            "name": name,
            "queue": task.queue,
            "options": self._told_options(fn, task.options),
            "once": task.options.at_most_once,
            "timeout": self._checked_timeout(task.options.timeout),
            "attempt": 1,
            "enqueued": task.summary.enqueued,
            "due": 0.0,
        }

    def _told_options(self, fn: Callable[..., Any], options: Options) -> dict[str, Any]:
        """Return the options that the worker does not find on the function."""
        own = options_of(fn)
        told: dict[str, Any] = {}
        for name in ("retries", "timeout"):
            if getattr(options, name) != getattr(own, name):
                told[name] = getattr(options, name)
        if options.retry_on != own.retry_on:
            told["retry_on"] = [self.names.of_error(kind) for kind in options.retry_on]
        if options.backoff != own.backoff:
            told["backoff"] = self.codec.encode(options.backoff, "The backoff")
        return told

    def _checked_timeout(self, timeout: float | None) -> float | None:
        if timeout is None:
            return None
        limit = self._visibility_timeout()
        if limit is not None and timeout >= limit:
            raise ValueError(
                f"timeout must be below {limit} s, the broker's visibility_timeout: past that Redis hands the task to "
                "a second worker while the first one still runs it. Raise "
                "ASOK_CELERY['broker_transport_options']['visibility_timeout']."
            )
        return timeout

    def _visibility_timeout(self) -> float | None:
        conf = self.engine.conf
        urls = urls_of(conf.broker_url or conf.broker_write_url)
        if not any(url.startswith((*REDIS_URLS, "sentinel://")) for url in urls):
            return None
        limit: float = (conf.broker_transport_options or {}).get("visibility_timeout", 3_600)
        return limit

    def _longest_hop(self) -> float:
        limit = self._visibility_timeout()
        # Half of it, so that a message which is due has time left to be run.
        return HOP_SECONDS if limit is None else min(HOP_SECONDS, limit / 2)

    def _send_first(self, task: CeleryTask[Any]) -> None:
        if time.monotonic() < self._down_until:
            raise BackendUnavailable("The broker could not be reached a moment ago.")
        delay = task.options.delay
        task.message["due"] = time.time() + delay
        try:
            self._add_record(task.message)
            try:
                self.publish(task.message, delay)
            except BackendUnavailable:
                # Not removed: should the message have gone through all the same, it is not run.
                if self.records is None or self.records.cancel(task.id):
                    raise
                # A worker has it already: it was the confirmation that did not come.
        except BackendUnavailable:
            # What is large may itself be the reason: it takes too long to send, or is refused.
            if size_of(task.message) < LARGE:
                self._down_until = time.monotonic() + DOWN_SECONDS
            raise
        task.summary.state = "waiting" if delay else "queued"

    def _add_record(self, message: dict[str, Any]) -> None:
        if self.records is None:
            return
        self.records.add(message["id"], facts_of(message), max(0.0, message["due"] - time.time()))

    def publish(self, message: dict[str, Any], wait: float) -> None:
        """Hand a message to the broker, to be delivered in `wait` seconds, or to wait once more by then."""
        hard, soft = time_limits(message["timeout"])
        self.publisher.send(
            self.engine.tasks[RUN_ONCE if message["once"] else RUN],
            args=(self.seal.close(message, "call"),),
            task_id=message["id"],
            queue=queue_name(self.app, message["queue"]),
            countdown=min(wait, self._longest_hop()) if wait > 0 else None,
            soft_time_limit=soft,
            time_limit=hard,
            shadow=message["name"],
            argsrepr="(...)",
            kwargsrepr="{}",
        )

    def _run_locally(self, task: CeleryTask[Any]) -> None:
        local = self._locals.get("") or self._locals.setdefault("", ThreadsBackend(self.app, self._config))
        task.__class__ = RunnableTask  # type: ignore[assignment]
        task.lane = local.lane(task.queue)  # type: ignore[assignment]
        local._recent.append(task.summary)
        local.start(task)

    @property
    def most_bytes(self) -> int:
        """The largest message, and the largest outcome."""
        return self._config["ASOK_MESSAGE_MAX_BYTES"]  # type: ignore[no-any-return]

    def sealed_outcome(self, id: str, outcome: dict[str, Any]) -> str:
        return self.seal.close(outcome, f"outcome:{id}")

    def outcome(self, id: str, sealed: str | None) -> tuple[Any, BaseException | None]:
        """Return the value and the error that the record of this task, and no other, holds."""
        outcome = self.seal.open(sealed, f"outcome:{id}")
        if "error" in outcome:
            return None, self.codec.decode_error(outcome["error"])
        return self.codec.decode(outcome["value"]), None


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except Exception:
        # Not declared yet: no worker has started, and nothing was sent.
        return 0
