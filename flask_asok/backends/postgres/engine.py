"""Procrastinate's own workers, in a thread of this process that goes on whatever happens to the database."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any

import procrastinate
import psycopg
from procrastinate.job_context import JobContext
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool

from ...logs import log, log_exception
from ...store.postgres.connections import OPTIONS, PREPARES_AFTER, cause_of, has_ended, options_of
from .engine_jobs import Begun, EngineJobs, Fetched
from .engine_statements import RUN
from .hub import PostgresHub
from .slots import Slots
from .threads import Threads

PAUSES = (1.0, 2.0, 5.0, 15.0)
"""Seconds before the workers begin again; after the last one, over and over."""

STEADY_SECONDS = 30.0
"""How long they have to work before the pauses begin anew, and how long the database has to answer."""

WARN_SECONDS = 60.0

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 3.0
"""How long the connections may take to be opened, and to be closed."""

LOST_AFTER = 86_400.0

POOL = "asok-engine"
"""The name of the engine's connections, in what their library logs."""

ALIVE = """
SELECT count(*) AS alive FROM procrastinate_workers
WHERE id = ANY(%(ids)s) AND last_heartbeat > clock_timestamp() - make_interval(secs => %(seconds)s)
"""

Lines = Mapping[tuple[str, ...], int]
"""The engine's names of queues, in groups, and how many tasks of each group run at once."""


class Engine:
    """
    Fetches tasks and calls `handle(id, begun)` for each, in a thread of its own, until it is closed. That returns True
    where the engine's row is gone by then; `begun` is None where it has to claim the attempt.

    Each task that is fetched runs at once: where it would wait for a thread, nobody else could take it.
    """

    def __init__(
        self, hub: PostgresHub, lines: Mapping[tuple[str, ...], int], handle: Callable[[object, Begun | None], bool]
    ) -> None:
        self._hub = hub
        self._lines = lines
        self._handle = handle
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: list[Worker] = []
        self._threads = Threads()
        self._slots = Slots(lines)
        self._jobs: EngineJobs
        self._grace = 0.0
        self._warned_at = float("-inf")
        self._thread = threading.Thread(target=self._supervise, name="asok-engine", daemon=True)

    def start(self) -> None:
        """Work from now on."""
        _silence()
        Context().run(self._thread.start)

    def close(self, timeout: float) -> None:
        """Fetch no more, and wait up to `timeout` seconds for the tasks that run."""
        deadline = time.monotonic() + timeout
        self._closing.set()
        self._grace = timeout
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stop)
        if self._thread.is_alive():
            self._thread.join(timeout + CLOSE_SECONDS)
        # Those that were fetched before the database went away, by a run that has ended since.
        self._slots.wait_until_free(deadline)
        self._threads.close()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.shutdown_graceful_timeout = self._grace
            worker.stop()  # type: ignore[no-untyped-call]

    def _supervise(self) -> None:
        failures = 0
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                asyncio.run(self._work())
                why = "the database went away"
            except TimeoutError:
                why = "it does not answer"
            except Exception as error:
                why = cause_of(error.__cause__ or error)
            if self._closing.is_set():
                return
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            if time.monotonic() - self._warned_at > WARN_SECONDS:
                self._warned_at = time.monotonic()
                log(logging.WARNING, "The worker of background tasks waits for PostgreSQL: %s", why, app=self._hub.app)
            self._closing.wait(PAUSES[min(failures, len(PAUSES)) - 1] if failures else PAUSES[0])

    async def _work(self) -> None:
        """Run the workers until one of them ends: by an error, or since this is closed."""
        self._loop = asyncio.get_running_loop()
        # What it would tell of: a row that is gone, since another worker has the task by now. That is as it should be.
        self._loop.set_exception_handler(lambda loop, context: None)
        connector = self._connector()
        app = procrastinate.App(connector=connector)
        names = [name for names in self._lines for name in names]
        self._jobs = app.job_manager = EngineJobs(connector, names, self._hub.store, self._slots)
        app.task(name=RUN, pass_context=True)(self._run)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await app.open_async()
            self._workers = [self._worker(app, names, threads) for names, threads in self._lines.items()]
            await self._run_workers(connector)
        finally:
            self._jobs.leave_all()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(app.close_async(), CLOSE_SECONDS)

    async def _run_workers(self, connector: Any) -> None:
        workers: list[Any] = list(self._workers)
        runs = [asyncio.create_task(worker.run()) for worker in workers]
        watch = asyncio.create_task(self._watch(connector))
        # A worker that begins forgets that it was told to stop.
        await asyncio.sleep(0)
        if self._closing.is_set():
            self._stop()
        await asyncio.wait([*runs, watch], return_when=asyncio.FIRST_COMPLETED)
        if not self._closing.is_set():
            # The tasks that run go on in their threads, and write down how they end.
            self._stop()
        done = await asyncio.gather(*runs, return_exceptions=True)
        watch.cancel()
        done += await asyncio.gather(watch, return_exceptions=True)
        for error in done:
            if isinstance(error, Exception):
                raise error

    async def _watch(self, connector: Any) -> None:
        """Raise where the workers do not say any more that they live, whatever has ended that."""
        beat = self._hub.settings["dead_after"] / 5
        while True:
            await asyncio.sleep(2 * beat)
            ids = [worker.worker_id for worker in self._workers]
            values = {"ids": ids, "seconds": self._hub.settings["dead_after"]}
            async with asyncio.timeout(STEADY_SECONDS):
                found = await connector.execute_query_one_async(ALIVE, **values)
            if found["alive"] < len(ids):
                raise RuntimeError("it was taken for lost")

    async def _run(self, context: JobContext, /, **arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        fetched = self._jobs.fetched.pop(context.job.id)
        try:
            self._threads.call(functools.partial(self._call, arguments.get("id"), fetched, loop, done))
        except BaseException:  # where no thread can be started
            self._jobs.leave(fetched)
            raise
        if await done:
            self._jobs.gone.add(context.job.id)

    def _call(self, id: object, fetched: Fetched, loop: asyncio.AbstractEventLoop, done: asyncio.Future[bool]) -> None:
        is_gone = False
        try:
            is_gone = self._handle(id, fetched.begun)
        except BaseException as error:
            log_exception("A background task could not be run: %r", error, app=self._hub.app)
        finally:
            self._slots.give(fetched.line)
            # Once the loop is closed nobody waits for it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_end, done, is_gone)

    def _connector(self) -> Any:
        settings = self._hub.session_settings(is_worker=True)
        if self._hub.settings["listen"]:
            # What the engine writes need not be on the disk: its rows can be made again from the records. Behind a
            # pooler, which takes no settings of a connection, it is.
            settings["synchronous_commit"] = "off"
        options = {**OPTIONS, **options_of(self._hub.url, settings)}
        prepares_after = PREPARES_AFTER if self._hub.prepares else None
        return procrastinate.PsycopgConnector(
            conninfo=self._hub.url, kwargs={**options, "prepare_threshold": prepares_after}, name=POOL,
            # One does: a task takes one statement. With as many as the store has, they would be twice as many.
            min_size=1, max_size=1, timeout=5.0, reconnect_timeout=5.0,
            pool_factory=_pool, configure=_commit_each,
        )  # fmt: skip

    def _worker(self, app: Any, names: Sequence[str], threads: int) -> Worker:
        settings = self._hub.settings
        return Worker(
            app, queues=list(names), name=None, concurrency=threads, wait=True,
            fetch_job_polling_interval=settings["poll"], abort_job_polling_interval=LOST_AFTER,
            shutdown_graceful_timeout=0.0, listen_notify=settings["listen"], delete_jobs="always",
            install_signal_handlers=False, update_heartbeat_interval=settings["dead_after"] / 5,
            # Our sweepers look to the rows of lost workers, before the engine forgets whose they are.
            stalled_worker_timeout=LOST_AFTER,
        )  # fmt: skip


class Connection(psycopg.AsyncConnection[Any]):
    """A connection of the engine, whose `repr`, which the library logs, says so."""


def _pool(**options: Any) -> AsyncConnectionPool[Any]:
    # The engine would ask the server each time whether the connection has ended.
    return AsyncConnectionPool(**{**options, "check": _check, "connection_class": Connection})


async def _check(connection: psycopg.AsyncConnection[Any]) -> None:
    if has_ended(connection):
        raise psycopg.OperationalError("the server has closed the connection")


async def _commit_each(connection: psycopg.AsyncConnection[Any]) -> None:
    # Each of the engine's statements is a transaction: to begin and to end it would be two more round trips.
    await connection.set_autocommit(True)


def _end(done: asyncio.Future[bool], is_gone: bool) -> None:
    if not done.done():
        done.set_result(is_gone)


def _silence() -> None:
    """Silence what the engine logs, which is of no use to the application, unless that has said what it wants."""
    engine = logging.getLogger("procrastinate")
    if engine.level == logging.NOTSET:
        engine.setLevel(logging.CRITICAL)
    pool = logging.getLogger("psycopg.pool")
    if _is_not_ours not in pool.filters:
        pool.addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return POOL not in message and Connection.__module__ not in message
