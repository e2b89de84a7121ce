"""Run tasks on Celery workers: the same call, when one process is no longer enough."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Any, ClassVar, Literal, TypeVar

from celery.exceptions import Ignore, Reject
from flask import Flask
from flask.ctx import AppContext

from ..context import Carried, Variables
from ..errors import BackendUnavailable, MessageRefused, NotConfigured, TaskAbandoned
from ..logs import log
from ..options import DEFAULT, Options
from ..signals import emit, task_abandoned
from ..summaries import SETTLED, TaskSummary
from ..tasks import Call, Task
from .base import Backend
from .engine import (
    HOP_SECONDS,
    ONCE,
    RUN,
    RUN_ONCE,
    Publisher,
    add_tasks,
    make_engine,
    queue_name,
    start_worker,
    trace_headers,
)
from .message import Codec, Names, Seal
from .records import REDIS_URLS, Records
from .threads import ThreadsBackend

R = TypeVar("R", covariant=True)
T = TypeVar("T")

MOST_DELIVERIES = 3
"""Workers that one attempt may cost before it is given up."""

DOWN_SECONDS = 5.0
"""How long a broker that could not be reached is not asked again."""

WATCH_SECONDS = 5.0
"""When a message is looked at again whose attempt another process has."""

INSIST_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses of a worker between its tries to reach the broker."""

KILLED = range(-255, -191)
"""Exit codes with which billiard ends a worker's process on a signal: the signal's number less 256."""

PLAIN = (str, int, float, bool, type(None))
"""Values of `g` that travel."""


class Remote:
    """The lane of a task in the process that has sent it: it runs elsewhere."""

    def __init__(self, backend: CeleryBackend) -> None:
        self.backend = backend
        self.running: dict[Task[Any], Flask] = {}

    def watch(self, task: Task[Any], timeout: float) -> None:
        """Leave it to Celery, which knows of the timeout."""

    def wait(self, task: Task[Any], seconds: float) -> None:
        """Send the next attempt."""
        assert isinstance(task, CeleryTask)
        self.backend.send_next(task, seconds)


class CeleryTask(Task[R]):
    """
    A Task whose state is looked up in Redis, by whoever asks.

    In the process that called `background()`, in the worker that runs it, and in any other that knows its id.
    """

    message: dict[str, Any]
    lane: Remote

    @property
    def state(self) -> Any:
        """As on every Task; asks Redis until the task is settled."""
        self._look()
        return self.summary.state

    def is_alive(self) -> bool:
        """Return True until the task is settled; asks Redis."""
        self._look()
        return not self._done

    def __repr__(self) -> str:
        # Without asking Redis: this is for logs, and for when Redis is down.
        return f"<Task {self.name} {self.summary.state} {self.id}>"

    def cancel(self) -> bool:
        """Keep it from running, wherever it is queued. False when it already runs, or ran. Needs what `join` needs."""
        if self._done or self._hold is not None:
            return super().cancel()
        if self.lane.backend.need_records().cancel(self.id):
            self._look()
        return self.summary.state == "cancelled"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the task is settled; without a Redis for the records nobody could tell: NotConfigured."""
        if not self._done and self not in self.lane.running:
            self.lane.backend.need_records()
        super().join(timeout)

    def _is_claimable(self) -> bool:
        return not self._done and bool(self._box) and self.summary.state == "queued"

    def perform(self, thread: threading.Thread) -> BaseException | None:
        """Run the attempt here, in a worker that waits for it, unless another worker has it."""
        backend = self.lane.backend
        if backend.claim(self) != "ours":
            self._look()
            return None
        try:
            return backend.perform(self, thread)
        except BackendUnavailable as error:
            # Its message, which some worker has meanwhile, is good for one more attempt.
            log(logging.WARNING, "Background task %s (%s) goes on elsewhere: %s", self.name, self.id, error)
            return None

    def _fail_or_wait(self, call: Call, error: BaseException) -> None:
        if isinstance(error, SystemExit) and error.code in KILLED:
            # The worker was told to end, and will be once this has gone on up; its message goes to another one.
            raise error
        super()._fail_or_wait(call, error)

    def _wait_for_change(self, seconds: float, in_task: bool) -> None:
        """Look at Redis now and then: five milliseconds after the start, a tenth of a second later on."""
        deadline = None if seconds < 0 else time.monotonic() + seconds
        pause = 0.005
        gate = threading.Event()
        while not (self._done or (in_task and self._is_claimable())):
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if left <= 0:
                return
            gate.wait(left)
            pause = min(pause * 1.5, 0.1)
            self._look()

    def _look(self) -> None:
        """Take over from the record what has happened meanwhile."""
        records = self.lane.backend.records
        if self._done or records is None or self._hold is not None or self in self.lane.running:
            return
        fields = records.read(self.id)
        if fields:
            self._take_over(fields)

    def _take_over(self, fields: Mapping[str, str]) -> None:
        fill(self.summary, fields)
        self.message["attempt"] = int(fields.get("attempt", 1))
        if self.summary.state not in SETTLED:
            return
        if self.summary.state != "cancelled":
            try:
                self._value, self._error = self.lane.backend.outcome(self.id, fields.get("outcome"))
            except MessageRefused as refused:
                # Signed with a key that is gone, or by somebody else; only who asks for the result shall hear of it.
                self._error = refused
        self._box.clear()
        self._done = True
        self.wake()


def facts_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record tells of a task from the start; written again with its end, should it be lost meanwhile."""
    return {key: message[key] for key in ("name", "queue", "enqueued", "attempt")}


def fill(summary: TaskSummary, fields: Mapping[str, str]) -> TaskSummary:
    """Write a record, which has its `state` and `attempt`, into a summary."""
    summary.state = fields["state"]  # type: ignore[assignment]
    summary.attempts = int(fields.get("attempts", int(fields["attempt"]) - 1))
    claim = fields.get(f"claim:{fields.get('attempt')}", "").split(" ")
    if len(claim) == 2:
        summary._started = float(claim[1])
        summary.attempts = int(fields["attempt"])
    summary._finished = float(fields.get("finished", 0))
    summary.error = fields.get("error")
    return summary


class CeleryBackend(Backend):
    """
    Sends each task as one signed message to a queue of Celery; `flask asok worker` runs them.

    At least once: a task whose worker is killed runs again, so it has to bear that; `current_task().id` is the same
    then. Tasks with `at_most_once=True` are not run again. Nothing is connected before the first task.
    """

    name: ClassVar[str] = "celery"
    distributed: ClassVar[bool] = True

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self._app = app
        self._config = config
        # Filled by setdefault: a lock could be held by another thread when the process forks.
        self._engines: dict[str, Any] = {}
        self._locals: dict[str, ThreadsBackend] = {}
        self._down_until = float("-inf")
        self._records_url: str | None = ""
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
    ) -> Task[Any]:
        """Make the Task and the message: what cannot travel raises here, at the call."""
        made = super().create(fn, args, kwargs, options, context)
        (call,) = made._box
        task: CeleryTask[Any] = CeleryTask(call, options, made.summary, self._lane)
        try:
            task.message = self._message(task, fn, args, kwargs, call[3])
        except Exception:
            with contextlib.suppress(ValueError):
                self._recent.remove(made.summary)
            raise
        return task

    def start(self, task: Task[Any], *, bounded: bool = True) -> None:
        """Send the message; where the broker cannot be reached, do what `ASOK_FALLBACK` says."""
        assert isinstance(task, CeleryTask)
        try:
            self._send_first(task)
        except BackendUnavailable as error:
            if self._config["ASOK_FALLBACK"] != "threads":
                task.lose()
                raise
            log(logging.WARNING, "%s Background task %s runs in this process.", error, task.name)
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
        summary = TaskSummary(fields["name"], fields["queue"])
        summary._id = id
        summary._enqueued = float(fields["enqueued"])
        return fill(summary, fields)

    def close(self, timeout: float | None = None) -> None:
        """Finish what runs on local threads for want of a broker; what was sent is the workers'."""
        for local in self._locals.values():
            local.close(timeout)

    # In a worker

    def work(self, celery_task: Any, sealed: object) -> None:
        """Run the attempt that a message asks for; called by the two generic Celery tasks."""
        request = celery_task.request
        try:
            message = self.seal.open(sealed, "call")
            if message["id"] != request.id:
                raise MessageRefused("The message carries the id of another one.")
        except (MessageRefused, KeyError) as error:
            # Acknowledged and dropped: it would be no better the next time.
            log(logging.ERROR, "Refused a message for background tasks: %r", error)
            raise Ignore from None
        try:
            self._go_on(message)
        except BackendUnavailable as error:
            self.leave(request.id)
            log(
                logging.ERROR,
                "Background task %s (%s) is left to another worker: %s",
                message["name"], request.id, error,
            )  # fmt: skip
            raise Reject(error, requeue=True) from None

    def _go_on(self, message: dict[str, Any]) -> None:
        """
        Run the attempt, or send its message on where it is not due, or where a live process has it.

        Celery acknowledges the message after Ignore too, and does not log that something has succeeded.
        """
        try:
            task = self._restore(self.names.find(message["fn"]), message)
        except Exception as error:
            # Signed, yet not to be run by this code: an older one perhaps. Kept, for `flask asok retry`.
            self.give_up(message, f"refused by its worker: {error!r}")
            raise Ignore from None
        wait = message["due"] - time.time()
        if wait > 1:
            insist(lambda: self._publish(message, wait))
            raise Ignore
        match insist(lambda: self.claim(task)):
            case "ours":
                self.perform(task, threading.current_thread())
                self._tell_celery(task)
                return
            case "taken":
                # Handed out twice, or run in place by a task that waits for it. Should that process be lost, this is
                # the only message there is.
                insist(lambda: self._publish(message, WATCH_SECONDS))
            case "over":
                insist(lambda: self._send_lost_retry(task))
        raise Ignore

    def claim(self, task: CeleryTask[Any]) -> Literal["ours", "taken", "over"]:
        """Claim the attempt whose turn it is: "ours", to be run at once; "taken" by another; "over", not to be run."""
        message, records = task.message, self.records
        if records is None:
            return "ours"
        found = records.claim(task.id, message["attempt"], facts_of(message))
        if found != "lost":
            return found
        if message["once"]:
            why = ONCE
        elif records.delivered_again(task.id, message["attempt"]) >= MOST_DELIVERIES:
            why = f"given up: {MOST_DELIVERIES} workers were lost with it"
        else:
            return "ours"
        self.give_up(message, why)
        emit(task_abandoned, self._app, task=task)
        return "over"

    def _send_lost_retry(self, task: CeleryTask[Any]) -> None:
        """Send the next attempt again: a worker may have been lost between writing that it is due and sending it."""
        fields = self.need_records().read(task.id)
        attempt = task.message["attempt"] + 1
        # Sent twice it does no harm: the second finds it claimed.
        if fields.get("state") in ("waiting", "queued") and fields["attempt"] == str(attempt) and "due" in fields:
            due = float(fields["due"])
            self._publish({**task.message, "attempt": attempt, "due": due}, max(0.0, due - time.time()))

    def perform(self, task: CeleryTask[Any], thread: threading.Thread) -> BaseException | None:
        """Run a claimed attempt in this process and keep what came out, for all to see."""
        try:
            error = Task.perform(task, thread)
            if task._done:
                insist(lambda: self._record(task))
        except BaseException:
            # Nothing came out of it: told to end, or out of reach of the broker. Another may take it over at once.
            self.leave(task.id)
            raise
        return error

    def leave(self, id: str, pid: int | None = None) -> None:
        """Give up the lease on an attempt, of process `pid` where that is lost; if this fails it runs out by itself."""
        with contextlib.suppress(BackendUnavailable):
            if self.records is not None:
                self.records.release(id, pid or os.getpid())

    def send_next(self, task: CeleryTask[Any], seconds: float) -> None:
        """Send the next attempt of a task that waits for it."""
        task.message["attempt"] = task.attempts + 1
        task.message["due"] = time.time() + seconds
        records = self.records
        if records is not None:
            insist(lambda: records.wait(task.id, task.attempts + 1, task.summary.error or "", seconds))
        try:
            insist(lambda: self._publish(task.message, seconds))
        except BackendUnavailable:
            if not task.options.at_most_once:
                # The message of this attempt, which is not acknowledged yet, is good for the next one too.
                raise
            self.give_up(task.message, "not tried again: its retry could not be sent")

    def give_up(self, message: Mapping[str, Any], why: str) -> None:
        """Settle as failed a task that was ended from outside, unless it is settled."""
        id, records = message["id"], self.records
        if records is not None and records.read(id).get("state") in SETTLED:
            return
        log(logging.ERROR, "Background task %s (%s) failed: %s", message["name"], id, why)
        if records is not None:
            error = self.codec.encode_error(TaskAbandoned(f"The task was {why}."))
            records.finish(
                id,
                {
                    **facts_of(message),
                    "state": "failed",
                    "error": why,
                    "outcome": self._sealed_outcome(id, {"error": error}),
                    "message": self.seal.close(message, "call"),
                },
            )

    def stopped(self, id: str, sealed: object, why: str) -> None:
        """Give up the task of a message, in the worker's main process, which knows nothing else of it."""
        with contextlib.suppress(MessageRefused):
            message = self.seal.open(sealed, "call")
            if message["id"] == id:
                self.give_up(message, why)

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run Celery's worker on `queues`, all of `ASOK_QUEUES` when empty, with more of its own `arguments`."""
        unknown = set(queues) - set(self.queues)
        if unknown:
            raise ValueError(
                f"Unknown queue {', '.join(sorted(unknown))}. Queues are: {', '.join(sorted(self.queues))}."
            )
        # Raises where there is no key: such a worker would refuse every task.
        Seal(self._app)
        names = ",".join(queue_name(self._app, queue) for queue in (queues or self.queues))
        start_worker(self.engine, ["--queues", names, *arguments])

    # For the commands

    def status(self) -> dict[str, Any]:
        """Return the workers that answer, and the number of messages in each queue."""
        with self.publisher.connected() as connection:
            channel = connection.default_channel
            lengths = {queue: _length(channel, queue_name(self._app, queue)) for queue in self.queues}
            consumed = self.engine.control.inspect(timeout=1, connection=connection).active_queues() or {}
        ours = {queue_name(self._app, queue) for queue in self.queues}
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
            self._publish(message, 0)
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
            engine = make_engine(self._app, self._config["ASOK_CELERY"])
            add_tasks(engine, self)
            return self._engines.setdefault("", engine)

    @property
    def seal(self) -> Seal:
        """What signs messages; made anew each time, so that a key may be rotated."""
        return Seal(self._app)

    @property
    def publisher(self) -> Publisher:
        """What sends messages."""
        state = self._app.extensions["asok"]
        return state.shared("celery.publisher", lambda: Publisher(self.engine))  # type: ignore[no-any-return]

    @property
    def records(self) -> Records | None:
        """The records in Redis; None where neither the result backend nor the broker is a Redis."""
        if self._records_url == "":
            # Looked up once: Celery is slow to tell its settings.
            conf = self.engine.conf
            urls = [str(url) for url in (conf.result_backend, conf.broker_url) if url]
            self._records_url = next((url for url in urls if url.startswith(REDIS_URLS)), None)
        url = self._records_url
        if url is None:
            return None
        state = self._app.extensions["asok"]
        return state.shared("celery.records", lambda: Records(url, self._app.name))  # type: ignore[no-any-return]

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
            "enqueued": task.summary._enqueued,
            "due": 0.0,
        }

    def _told_options(self, fn: Callable[..., Any], options: Options) -> dict[str, Any]:
        """Return the options that the worker does not find on the function."""
        own = getattr(fn, "__asok_options__", DEFAULT)
        told: dict[str, Any] = {}
        for name in ("retries", "timeout"):
            if getattr(options, name) != getattr(own, name):
                told[name] = getattr(options, name)
        if options.retry_on != own.retry_on:
            told["retry_on"] = [_error_name(self.names, kind) for kind in options.retry_on]
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
        if not str(conf.broker_url).startswith(("redis", "sentinel")):
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
                self._publish(task.message, delay)
            except BackendUnavailable:
                if self.records is not None:
                    # Not removed: should the message have gone through all the same, it is not run.
                    self.records.cancel(task.id)
                raise
        except BackendUnavailable:
            self._down_until = time.monotonic() + DOWN_SECONDS
            raise
        task.summary.state = "waiting" if delay else "queued"

    def _add_record(self, message: dict[str, Any]) -> None:
        if self.records is None:
            return
        self.records.add(message["id"], facts_of(message), max(0.0, message["due"] - time.time()))

    def _publish(self, message: dict[str, Any], wait: float) -> None:
        """Hand a message to the broker, to be delivered in `wait` seconds, or to wait once more by then."""
        timeout = message["timeout"]
        self.publisher.send(
            self.engine.tasks[RUN_ONCE if message["once"] else RUN],
            args=(self.seal.close(message, "call"),),
            task_id=message["id"],
            queue=queue_name(self._app, message["queue"]),
            countdown=min(wait, self._longest_hop()) if wait > 0 else None,
            soft_time_limit=timeout,
            time_limit=None if timeout is None else timeout + 5,
            shadow=message["name"],
            argsrepr="(...)",
            kwargsrepr="{}",
        )

    def _run_locally(self, task: CeleryTask[Any]) -> None:
        local = self._locals.get("") or self._locals.setdefault("", ThreadsBackend(self._app, self._config))
        task.__class__ = Task  # type: ignore[assignment]
        task.lane = local.lane(task.queue)  # type: ignore[assignment]
        local._recent.append(task.summary)
        local.start(task)

    def _restore(self, fn: Callable[..., Any], message: dict[str, Any]) -> CeleryTask[Any]:
        """Make the worker's Task of a message."""
        decode = self.codec.decode
        told = dict(message["options"])
        if "retry_on" in told:
            told["retry_on"] = tuple(_find_error(self.names, name) for name in told["retry_on"])
        if "backoff" in told:
            told["backoff"] = decode(told["backoff"])
        options = getattr(fn, "__asok_options__", DEFAULT).replace(**told)
        options = dataclasses.replace(options, name=message["name"], queue=message["queue"])
        url = message["url"]
        adapter = url and self._app.url_map.bind(url[0], url[1], url[2], url[3])
        carried: Carried = (self._app, decode(message["g"]), _trace_variables(message.get("trace")), adapter)
        args = tuple(decode(arg) for arg in message["args"])
        kwargs = {key: decode(arg) for key, arg in message["kwargs"].items()}
        summary = TaskSummary(message["name"], message["queue"])
        summary._id = message["id"]
        summary._enqueued = float(message["enqueued"])
        summary.attempts = int(message["attempt"]) - 1
        task: CeleryTask[Any] = CeleryTask((fn, args, kwargs, carried), options, summary, Remote(self))
        task.message = message
        self._recent.append(summary)
        return task

    def _record(self, task: CeleryTask[Any]) -> None:
        if self.records is None:
            return
        error = task._error
        try:
            value = None if error is not None else self.codec.encode(task._value, f"What {task.name} returned")
            wrong = error
        except TypeError as unfit:
            value, wrong = None, unfit
        outcome = {"value": value} if wrong is None else {"error": self.codec.encode_error(wrong)}
        fields = {
            **facts_of(task.message),
            "state": task.summary.state,
            "attempts": task.attempts,
            "error": task.summary.error or "",
            "outcome": self._sealed_outcome(task.id, outcome),
        }
        if error is not None:
            # For `flask asok retry`.
            fields["message"] = self.seal.close(task.message, "call")
        self.records.finish(task.id, fields)

    def _sealed_outcome(self, id: str, outcome: dict[str, Any]) -> str:
        return self.seal.close(outcome, f"outcome:{id}")

    def outcome(self, id: str, sealed: str | None) -> tuple[Any, BaseException | None]:
        """Return the value and the error that the record of this task, and no other, holds."""
        outcome = self.seal.open(sealed, f"outcome:{id}")
        if "error" in outcome:
            return None, self.codec.decode_error(outcome["error"])
        return self.codec.decode(outcome["value"]), None

    def _tell_celery(self, task: CeleryTask[Any]) -> None:
        """Have Celery's own events tell what happened, for Flower and its like."""
        from celery.exceptions import Retry

        if not task._done:
            raise Retry(when=max(0.0, task.message["due"] - time.time()))
        if task._error is not None:
            # Never a SystemExit or the like: it would be meant for the worker.
            raise RuntimeError(task.summary.error) from None


def insist(do: Callable[[], T]) -> T:
    """Do it, and where Redis or the broker is out of reach try again for a quarter of a minute: workers have time."""
    for pause in INSIST_SECONDS:
        try:
            return do()
        except BackendUnavailable:
            time.sleep(pause)
    return do()


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except Exception:
        # Not declared yet: no worker has started, and nothing was sent.
        return 0


def _error_name(names: Names, kind: type[BaseException]) -> str:
    return f"builtins:{kind.__name__}" if kind.__module__ == "builtins" else names.of(kind)


def _find_error(names: Names, name: str) -> type[BaseException]:
    module, _, kind = name.partition(":")
    found = getattr(sys.modules["builtins"], kind, None) if module == "builtins" else names.find(name)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise MessageRefused(f"{name!r} is no exception.")
    return found


def _trace_variables(headers: Mapping[str, str] | None) -> Variables:
    """Return the context variables with which a task goes on with the caller's OpenTelemetry trace."""
    if not headers or "opentelemetry.propagate" not in sys.modules:
        return ()

    def attached() -> Variables:
        context = sys.modules["opentelemetry.propagate"].extract(headers)
        sys.modules["opentelemetry.context"].attach(context)
        return tuple(copy_context().items())

    return Context().run(attached)
