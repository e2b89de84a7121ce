"""The Task of a call that a Celery worker runs."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from ...attempt import RunnableTask
from ...calls import Parts
from ...errors import BackendUnavailable
from ..distributed.hub import keep_trying
from ..distributed.task import Remote, RemoteTask

R = TypeVar("R", covariant=True)

KILLED = range(-255, -191)
"""The exit codes with which billiard ends a worker's process on a signal: the signal's number less 256."""


class CeleryRemote(Remote):
    """The runner of the tasks that Celery's workers run; Celery watches their timeouts."""

    def wait(self, task: RunnableTask[Any], seconds: float) -> None:
        """Leave the next attempt to the store, whose sweeper sends it; without one the broker has it meanwhile."""
        assert isinstance(task, CeleryTask)
        if self.hub.store is None:
            task.send_next(seconds)


class CeleryTask(RemoteTask[R]):
    """A Task whose state is looked up in Redis each time: in its caller's process, its worker, and any other."""

    def send_next(self, seconds: float) -> None:
        """Send the next attempt, which is due in `seconds`, where no store has it."""
        hub, message = self.remote_hub, self.message
        message.attempt = self.attempts + 1
        message.due = time.time() + seconds
        try:
            keep_trying(lambda: hub.publish(message, wait=seconds))
        except BackendUnavailable:
            if not message.once:
                # The message of this attempt is not acknowledged yet, and serves for the next one too.
                raise
            self.abandon("not tried again: its retry could not be sent")

    def _fail_or_wait(self, call: Parts, error: BaseException) -> None:
        if isinstance(self.runner, Remote) and isinstance(error, SystemExit) and error.code in KILLED:
            # The worker was told to end, which this error does; the message goes to another one.
            raise error
        super()._fail_or_wait(call, error)
