"""Run tasks by the application's PostgreSQL: a task exists if and only if the commit does."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from flask import Flask
from flask.ctx import AppContext

from ... import process
from ...attempt import RunnableTask
from ...errors import AsokError, BackendUnavailable
from ...key_probe import tell_key
from ...options import Options
from ...record_writer import key_of, record_of
from ...store.base import Record
from ...task_log import log_of
from ...triggers import defer_to_commit, innermost, is_committed
from ..base import KEY_TAKEN
from ..distributed.backend import DistributedBackend
from ..distributed.sending import sending
from ..distributed.task import RemoteTask
from . import engine_statements, tables
from .hub import PostgresHub
from .process_worker import ProcessWorker, warn_of_pool
from .run_worker import run_worker
from .session import commits_each, execute, has_failed, has_written, note_failure, watch_sessions
from .task import PostgresRemote, PostgresTask
from .worker import PostgresWorker


class PostgresBackend(DistributedBackend):
    """
    Writes each call into PostgreSQL, in the transaction of its caller where that has written something.

    `flask asok worker` runs the tasks, and with `ASOK_WORKER = "web"` each process that serves; see
    `DistributedBackend`.
    """

    name: ClassVar[str] = "postgres"
    transactional: ClassVar[bool] = True
    works_in_web: ClassVar[bool] = True
    task_class: type[RunnableTask[Any]] = PostgresTask

    hub: PostgresHub
    worker: PostgresWorker

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        if config["ASOK_STORE"] is not None:
            raise ValueError("ASOK_STORE must be None on postgres, whose records are in the same PostgreSQL.")
        super().__init__(app, config)
        watch_sessions()
        note_failure(app)
        self._worker_in_web: ProcessWorker | None = None
        self._starting = process.LateLock()
        process.after_fork(self._forget)
        _backends.add(self)

    def make_remote(self) -> PostgresRemote:
        """Make the hub, and what the tasks have as their runner."""
        self.hub = PostgresHub(self.app, self.config)
        self.worker = PostgresWorker(self.hub, self.task_class, self._recent.append)
        return PostgresRemote(self.hub)

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
        # What is not set up raises here as well, also where the task starts later.
        self.hub.store  # noqa: B018
        task = super().create(fn, args, kwargs, options, context)
        assert isinstance(task, PostgresTask)
        if options.when == "response":
            self.write_deferred(task)
        return task

    def write_message(self, task: RemoteTask[Any]) -> None:
        """Write the message as it is kept; most tasks need no Message for that. Raises as in `DistributedBackend`."""
        assert isinstance(task, PostgresTask) and task.call is not None
        packer = self.hub.packer
        text = packer.plain_text_of(task.call, task.options, task.summary)
        task.text = packer.text_of(task.message) if text is None else text

    def reserve(self, task: RunnableTask[Any], key: str) -> str:
        """Take the unique key of a task now, or when its response is sent; in a transaction its first attempt does."""
        assert isinstance(task, PostgresTask)
        task.key = key
        if task.options.when == "response":
            return task.id
        try:
            connection, waits_for_commit = self._connection_of(task)
            return task.id if waits_for_commit else self._write_down(task, connection)
        except BaseException:
            task.mark_abandoned()
            raise

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """Write down a task: at once, or in the open transaction of the caller. Then the engine has it too."""
        assert isinstance(task, PostgresTask)
        if task.is_written or task.is_in_transaction:
            return
        try:
            connection, waits_for_commit = self._connection_of(task)
            if waits_for_commit:
                defer_to_commit(task, self.app, self._start_alone, _level_of_loss)
                return
        except BaseException:
            task.mark_abandoned()
            raise
        self._start_in(task, connection)

    def _start_alone(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        assert isinstance(task, PostgresTask)
        self._start_in(task, None)

    def _start_in(self, task: PostgresTask[Any], connection: Any) -> None:
        try:
            holder = self._write_down(task, connection)
        except BackendUnavailable as error:
            # On threads of this process no other one would see its unique key.
            if self.config["ASOK_FALLBACK"] != "threads" or task.options.unique is not None:
                task.mark_abandoned()
                raise
            log_of(task, logging.WARNING, "%s Background task %s runs in this process.", error, task.name)
            self.run_here(task)
            return
        except BaseException:
            task.mark_abandoned()
            raise
        if holder != task.id:
            # It has waited for a response.
            task.withdraw(KEY_TAKEN if holder else "another process cancelled it")

    def _write_down(self, task: PostgresTask[Any], connection: Any) -> str:
        """Write down a call, and return its id, or the one of the task that has its key; "" if it is settled by now."""
        store, delay = self.hub.store, task.options.delay
        call = task.call
        assert call is not None
        record = self._record(task, call.fn)
        with sending(task):
            signed = self._signed(task)
            if connection is not None:
                statement = engine_statements.ENQUEUE_UNIQUE if record.key else engine_statements.ENQUEUE
                holder = execute(connection, statement, store.acceptance(record, signed, delay)) or task.id
                if holder == task.id:
                    task.is_in_transaction = True
                    defer_to_commit(task, self.app, self._committed, _level_of_loss)
                return holder
            tell_key(self.app, self.hub.packer, store)
            store.tidy()
            if task.journal is not None:
                holder = store.release_in(task.id, delay, task.key, signed)
                task.journal = None
            else:
                holder = store.accept(record, signed, delay)
        if holder == task.id:
            self._note_written(task)
        return holder

    def _signed(self, task: PostgresTask[Any]) -> str:
        text, task.text = task.text, ""
        if not text or (task.has_message and task.message.trace):
            # Since then it has its span.
            text = task.message.as_text()
        return self.hub.packer.sign_text(text)

    def _session_of(self, task: PostgresTask[Any]) -> Any:
        """Return the session in whose transaction the task goes, or None for a transaction of our own."""
        match task.options.when:
            case "commit":
                session = self.hub.transactions.need_session()
                return session if session.in_transaction() else None
            case None:
                session = self.hub.transactions.session()
                return session if session is not None and has_written(session) else None
        return None

    def _connection_of(self, task: PostgresTask[Any]) -> tuple[Any, bool]:
        """
        Return the connection in whose transaction the task goes, or None for one of our own.

        And is that one to wait for the commit of the session, since no statement of ours can be part of it?
        """
        session = self._session_of(task)
        if session is None:
            return None, False
        if is_committed(innermost(session)):
            return None, True
        connection = self.hub.transactions.connection(session)
        # In AUTOCOMMIT others would see the task before what it belongs to; what the engine notifies can be no part of
        # a commit in two phases.
        return (None, True) if session.twophase or commits_each(connection) else (connection, False)

    def _record(self, task: PostgresTask[Any], fn: Callable[..., Any]) -> Record:
        record = record_of(task, self.app, fn, "")
        record.key = record.unique_key = key_of(fn, task.options.unique)
        return record

    def _committed(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """Note that a task is there for everybody: nothing is left to do that could fail."""
        assert isinstance(task, PostgresTask)
        self._note_written(task)
        with contextlib.suppress(AsokError):
            tell_key(self.app, self.hub.packer, self.hub.store)

    def _note_written(self, task: PostgresTask[Any]) -> None:
        task.is_written = task.summary.is_stored = True
        task.summary.state = "waiting" if task.options.delay else "queued"

    # In a process that serves

    def start_worker(self) -> None:
        """Run tasks in this process from now on, where `ASOK_WORKER` says so; harmless where it does already."""
        if self.config["ASOK_WORKER"] != "web" or self.app.testing or self.is_closed:
            return
        process.renew()
        process.end_before_executors()
        with self._starting.of_process():
            if self._worker_in_web is None:
                warn_of_pool(self.hub, self.config["ASOK_WORKER_THREADS"])
                lines = {tuple(self.hub.store.lines.values()): self.config["ASOK_WORKER_THREADS"]}
                self._worker_in_web = ProcessWorker(self.hub, self.worker, lines)
                self._worker_in_web.start("web", list(self.queues))

    def close(self, timeout: float | None = None) -> None:
        """Let the worker of this process finish what it runs, and leave the rest to others."""
        self.is_closed = True
        worker, self._worker_in_web = self._worker_in_web, None
        if worker is not None:
            worker.close(self.config["ASOK_SHUTDOWN_TIMEOUT"] if timeout is None else timeout)
        super().close(timeout)

    def _forget(self) -> None:
        """Be another process, in a forked child: the thread of the parent's worker is not here."""
        if self._worker_in_web is not None:
            # Not to be collected here: its loop shares what it waits for with the parent.
            _of_parents.append(self._worker_in_web)
        self._worker_in_web = None
        self.worker.running.clear()

    # For the commands

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run the tasks of `queues`, all of `ASOK_QUEUES` when empty, until SIGTERM or Ctrl-C."""
        self.check_queues(queues)
        run_worker(self.hub, self.worker, queues or list(self.queues), arguments)

    def set_up_tables(self) -> list[str]:
        """Make what the database lacks, and return what was made."""
        return tables.set_up(self.hub)

    def missing_tables(self) -> str:
        """Return the SQL that `set_up_tables` would run."""
        return tables.missing_sql(self.hub)

    def status(self) -> dict[str, Any]:
        """Return the workers that live, and per queue how many tasks are queued, how many wait, and since when."""
        kinds = ("worker", "web") if self.config["ASOK_WORKER"] == "web" else ("worker",)
        counts = self.hub.store.counts()
        return {
            "workers": [f"{one.host} {one.pid}" for one in self.hub.store.processes() if one.kind in kinds],
            "queued": {queue: queued for queue, (queued, _, _) in counts.items()},
            "delayed": {queue: waiting for queue, (_, waiting, _) in counts.items() if waiting},
            "oldest": {queue: f"{age:.1f} s" for queue, (_, _, age) in counts.items() if age},
        }


def _level_of_loss(session: Any) -> int:
    return logging.INFO if has_failed(session) else logging.WARNING


_backends: weakref.WeakSet[PostgresBackend] = weakref.WeakSet()
_of_parents: list[ProcessWorker] = []


def _close_at_exit() -> None:
    for backend in list(_backends):
        backend.close()


process.at_exit(_close_at_exit)
