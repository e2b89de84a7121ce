"""The engine's rows, as its workers fetch and finish them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Notification, Status
from procrastinate.manager import JobManager, NotificationCallback, get_channel_for_queues

from ...store.postgres.connections import CLASH_SECONDS, CLASHES, MOST_CLASHES
from ..distributed.engine_store import new_claim
from .engine_statements import FETCH
from .engine_store import PostgresEngineStore
from .slots import Slots


class Begun(NamedTuple):
    """An attempt that was claimed with the engine's row."""

    claim: int
    attempt: int
    signed: str
    """The message."""


class Fetched(NamedTuple):
    """A row that was fetched, and whose task does not run yet."""

    line: str
    """The engine's name of its queue, in which it has a slot."""
    begun: Begun | None


class EngineJobs(JobManager):
    """
    The rows of one engine, whose workers listen on one connection.

    With a row the attempt of its task is claimed. What an attempt's end has deleted with the record, the engine need
    not delete again.
    """

    def __init__(self, connector: object, queues: Iterable[str], store: PostgresEngineStore, slots: Slots) -> None:
        super().__init__(connector)  # type: ignore[arg-type]
        self.gone: set[int | None] = set()
        """The numbers of the rows that are gone, and are still to be finished."""
        self.fetched: dict[int | None, Fetched] = {}
        """What waits for its thread, by the numbers of the rows."""
        self._queues = list(queues)
        self._store = store
        self._slots = slots
        self._wanted: dict[str, NotificationCallback] = {}

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Return the next row, and claim the attempt of its task where that can be done in the same step."""
        lines = list(queues or self._queues)
        # Tasks that were fetched before the database went away may have all of them: then the next look, within
        # `poll` seconds, finds what is there.
        if not self._slots.take(lines):
            return None
        is_fetched = False
        try:
            job = await self._fetch(lines, worker_id)
            is_fetched = job is not None
            return job
        finally:
            if not is_fetched:
                self._slots.give(lines[0])

    async def _fetch(self, lines: list[str], worker_id: int) -> Job | None:
        store, claim = self._store, new_claim()
        is_begun = False
        store.claims.add(claim)
        try:
            row = await self._row(
                app=store.app_name, lines=lines, worker=worker_id, owner=store.me, claim=claim,
                now=store.time_of_test(),
            )  # fmt: skip
            is_begun = row["attempt"] is not None
        finally:
            if not is_begun:
                store.claims.discard(claim)
        if row["job"] is None:
            return None
        begun = Begun(claim, row["attempt"], row["signed"]) if is_begun else None
        self.fetched[row["job"]] = Fetched(row["line"], begun)
        return Job(
            id=row["job"], queue=row["line"], lock=None, queueing_lock=None, task_name=row["task"],
            # Of a forged row it may be anything, which the library could not even log.
            task_kwargs=row["args"] if isinstance(row["args"], dict) else {}, worker_id=worker_id,
        )  # fmt: skip

    async def _row(self, **values: Any) -> dict[str, Any]:
        for _ in range(MOST_CLASHES):
            try:
                return await self.connector.execute_query_one_async(FETCH, **values)
            except ConnectorException as error:
                # Behind a pooler, where the level of a transaction is the database's, it may clash with others.
                if not isinstance(error.__cause__, CLASHES):
                    raise
                await asyncio.sleep(random.uniform(0.0, CLASH_SECONDS))
        return await self.connector.execute_query_one_async(FETCH, **values)

    def leave(self, fetched: Fetched) -> None:
        """Let a sweeper give what was fetched to others: it is not run here."""
        self._slots.give(fetched.line)
        if fetched.begun is not None:
            self._store.claims.discard(fetched.begun.claim)

    def leave_all(self) -> None:
        """Leave all that has no thread yet."""
        while self.fetched:
            self.leave(self.fetched.popitem()[1])

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Delete the row of a job, if it is there."""
        if job.id in self.fetched:
            # Of another program: it was not run.
            self.leave(self.fetched.pop(job.id))
        if job.id in self.gone:
            self.gone.discard(job.id)
        else:
            await super().finish_job(job, status, delete_job)

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Call a worker whenever there is something in its queues. The first one listens for all of them."""
        is_first = not self._wanted
        self._wanted.update(dict.fromkeys(get_channel_for_queues(queues), on_notification))
        if is_first:
            await super().listen_for_jobs(on_notification=self._tell, queues=self._queues)
        # Until the worker cancels it. All of an engine's workers end together.
        await asyncio.Event().wait()

    async def _tell(self, *, channel: str, notification: Notification) -> None:
        # One that has not begun to listen is going to look for tasks by itself.
        if channel in self._wanted:
            await self._wanted[channel](channel=channel, notification=notification)
