"""The Task of a call that a worker on PostgreSQL runs."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

from ...attempt import RunnableTask
from ...store.postgres.statements import CANCEL
from ..distributed.task import Remote, RemoteTask
from ..pool import warn_of_timeout
from .hub import PostgresHub
from .session import execute, repeat_before_commit

R = TypeVar("R", covariant=True)


class PostgresRemote(Remote):
    """The runner of the tasks that workers on PostgreSQL run, on threads."""

    hub: PostgresHub

    def watch(self, task: RunnableTask[Any], timeout: float) -> None:
        """Log where the attempt is when its timeout is over: a thread cannot be stopped."""
        with contextlib.suppress(RuntimeError):
            self.hub.timeouts.at(timeout, warn_of_timeout, task, weak=True)


class PostgresTask(RemoteTask[R]):
    """A Task whose state is looked up in PostgreSQL each time: in its caller's process, its worker, and any other."""

    text: str = ""
    """Its message as JSON, until it is signed."""
    is_in_transaction: bool = False
    """Was it enqueued in a transaction of its caller? Until the commit nobody else sees it."""

    def cancel(self) -> bool:
        """
        Keep the task from running. False when it already runs, or ran.

        Before the commit only where its session is: elsewhere nobody may touch that, and it is False.
        """
        if not (self.is_in_transaction and self.trigger is not None):
            return super().cancel()
        hub = self.remote_hub
        assert isinstance(hub, PostgresHub)
        if not self.trigger.is_ours():
            return False
        transactions, values = hub.transactions, hub.store.bound({"id": self.id})

        def cancel(session: Any) -> None:
            execute(transactions.connection(session), CANCEL, values)

        session = transactions.need_session()
        cancel(session)
        # What is settled here stays so.
        repeat_before_commit(session, cancel)
        return super().cancel()
