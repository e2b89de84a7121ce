"""The engine's rows, as its workers fetch and finish them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from procrastinate.jobs import Job, Notification, Status
from procrastinate.manager import JobManager, NotificationCallback, get_channel_for_queues


class EngineJobs(JobManager):
    """
    The rows of one engine, whose workers listen on one connection.

    What an attempt's end has deleted with the record, the engine need not delete again.
    """

    def __init__(self, connector: object, queues: Sequence[str]) -> None:
        super().__init__(connector)  # type: ignore[arg-type]
        self.gone: set[int | None] = set()
        """The numbers of the rows that are gone, and are still to be finished."""
        self._queues = queues
        self._wanted: dict[str, NotificationCallback] = {}

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
