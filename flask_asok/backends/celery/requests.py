"""The two generic tasks that Celery knows, and what its worker's main process hears of their ends."""

from __future__ import annotations

import contextlib
from typing import Any

from celery import Celery
from celery.exceptions import WorkerLostError
from celery.signals import task_revoked
from celery.worker.request import Request

from ...errors import BackendUnavailable
from .hub import RUN, RUN_ONCE
from .worker import Worker


def add_tasks(celery_app: Celery, worker: Worker) -> None:
    """
    Register the two generic tasks, which call `worker.handle(celery_task, message)`.

    There must be two: whether Celery acknowledges a message before or after the work depends on the task.
    """
    common: dict[str, Any] = {
        "bind": True,
        "ignore_result": True,
        "max_retries": None,
        "serializer": "json",
        "shared": False,
        # Flask-Asok logs them, with the function's name and without its arguments.
        "throws": (Exception,),
        "Request": watched(worker),
    }

    def on_revoked(sender: Any = None, request: Any = None, terminated: bool = False, **_: Any) -> None:
        with _never_raising():
            worker.revoked(request.id, "terminated" if terminated else "revoked")

    def run(self: Any, message: object = None) -> None:
        worker.handle(self, message)

    def run_once(self: Any, message: object = None) -> None:
        worker.handle(self, message)

    # With a store the message is needed no more once a process of the pool has it.
    is_kept = worker.has_store
    celery_app.task(run, name=RUN, acks_late=not is_kept, reject_on_worker_lost=not is_kept, **common)
    celery_app.task(run_once, name=RUN_ONCE, acks_late=False, **common)
    for name in (RUN, RUN_ONCE):
        task_revoked.connect(on_revoked, sender=celery_app.tasks[name], weak=False)


def watched(worker: Worker) -> type[Request]:
    """Return the class of Celery's requests, which lives in the worker's main process, for this worker."""

    class WatchedRequest(Request):  # type: ignore[misc]
        """Tells the worker of a task that is ended from outside: by its time limit, or the loss of its process."""

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            error = exc_info.exception
            if isinstance(getattr(error, "exc", error), (SystemExit, WorkerLostError)):
                # Before the message goes back to the broker.
                with _never_raising():
                    if worker.has_store:
                        worker.lost(self.id, self.worker_pid)
                    elif not self.task.acks_late:
                        worker.lost_once(self.id, _signed(self))
            return super().on_failure(exc_info, *args, **kwargs)

        def on_timeout(self, soft: bool, timeout: float) -> None:
            super().on_timeout(soft, timeout)
            if not soft:
                with _never_raising():
                    worker.stopped(self.id, _signed(self), timeout)

    return WatchedRequest


def _never_raising() -> contextlib.AbstractContextManager[None]:
    # The whole worker hangs on the loop that calls this: it must not end, nor wait, because Redis is down.
    return contextlib.suppress(BackendUnavailable)


def _signed(request: Any) -> object:
    return request.args[0] if request.args else None
