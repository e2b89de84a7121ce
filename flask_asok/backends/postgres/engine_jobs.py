"""The engine's rows, as its workers fetch and finish them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from procrastinate.jobs import Job, Notification, Status
from procrastinate.manager import JobManager, NotificationCallback, get_channel_for_queues

from ..distributed.engine_store import new_claim
from .engine_statements import FETCH
from .engine_store import PostgresEngineStore


class Begun(NamedTuple):
    """An attempt that was claimed with the engine's row."""

    claim: int
    attempt: int
    signed: str
    """The message."""


class EngineJobs(JobManager):
    """
    The rows of one engine, whose workers listen on one connection.

    With a row the attempt of its task is claimed. What an attempt's end has deleted with the record, the engine need
    not delete again.
    """

    def __init__(self, connector: object, queues: Iterable[str], store: PostgresEngineStore) -> None:
        super().__init__(connector)  # type: ignore[arg-type]
        self.gone: set[int | None] = set()
        """The numbers of the rows that are gone, and are still to be finished."""
        self.begun: dict[int | None, Begun] = {}
        """The attempts that nobody makes yet, by the numbers of their rows."""
        self._queues = list(queues)
        self._store = store
        self._wanted: dict[str, NotificationCallback] = {}

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Return the next row, and claim the attempt of its task where that can be done in the same step."""
        store, claim = self._store, new_claim()
        is_begun = False
        store.claims.add(claim)
        try:
            row = await self.connector.execute_query_one_async(
                FETCH, app=store.app_name, lines=queues, worker=worker_id, owner=store.me, claim=claim,
                now=store.time_of_test(),
            )  # fmt: skip
            is_begun = row["attempt"] is not None
        finally:
            if not is_begun:
                store.claims.discard(claim)
        if row["job"] is None:
            return None
        if is_begun:
            self.begun[row["job"]] = Begun(claim, row["attempt"], row["signed"])
        return Job(
            id=row["job"], queue=row["line"], lock=None, queueing_lock=None, task_name=row["task"],
            task_kwargs=row["args"], worker_id=worker_id,
        )  # fmt: skip

    def leave(self, *attempts: Begun | None) -> None:
        """Let a sweeper give attempts to others that are not made here."""
        for begun in attempts:
            if begun is not None:
                self._store.claims.discard(begun.claim)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Delete the row of a job, if it is there."""
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
