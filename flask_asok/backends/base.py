"""What a backend must do, for authors of one."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from sys import modules
from types import FunctionType
from typing import Any, ClassVar

from flask import Flask
from flask.ctx import AppContext

from ..attempt import RunnableTask
from ..callables import name_of
from ..calls import Parts
from ..context import Adapters, capture
from ..errors import NotConfigured
from ..options import Options
from ..settings import Setting
from ..store.shared import Shared, Ticks
from ..summaries import SETTLED, TaskSummary
from ..telemetry.tracing import published
from ..triggers import all_deferred
from ..waiting import Runner

NOT_SHARED = (
    "Tasks live in the memory of the web process, which no other process can see. "
    'Set ASOK_BACKEND = "postgres" or "celery" to share them.'
)
"""What a command says of a backend that is not distributed."""

NOT_DURABLE = (
    "ASOK_STORE is a Redis, which keeps no durable tasks of threads. Set ASOK_STORE to a path on this machine, or let "
    'an engine run them: ASOK_BACKEND = "postgres" or "celery".'
)
"""Why a task is not durable whose store several machines share."""

KEY_TAKEN = "another task has its unique key"
"""Why a task is cancelled that has waited for a response or a commit."""

NO_TABLES = 'This backend keeps no tables: `flask asok db` is for ASOK_BACKEND = "postgres".'


class Backend(ABC):
    """
    Runs the tasks of one application. Lives as long as that, is closed by `FlaskAsok.close()` or at exit.

    A backend of your own implements `start` and `runner`; it is made by `init_app` with the `ASOK_*` configuration and
    must start neither a thread nor a connection then.
    """

    name: ClassVar[str]
    """The word for it in `ASOK_BACKEND` and in `flask asok status`."""
    distributed: ClassVar[bool] = False
    """Do tasks run in other processes, so that arguments are sent there?"""
    settings: ClassVar[tuple[Setting, ...]] = ()
    """Its own configuration keys. The backend gets their checked values with those of all others."""
    task_class: type[RunnableTask[Any]] = RunnableTask
    """What `create` makes."""
    in_process: ClassVar[bool] = True
    """Do waiting tasks stay in this process, and hold no thread?"""

    transactional: ClassVar[bool] = False
    """Does `start` let a task with `when="commit"` into the open transaction of its caller, at once?"""
    works_in_web: ClassVar[bool] = False
    """Can a process that serves run the tasks as well, with `ASOK_WORKER = "web"`?"""

    is_closed: bool = False
    """Does it accept no tasks any more?"""

    def __init_subclass__(cls) -> None:
        # The name that `runner` had at first.
        if "lane" in vars(cls) and "runner" not in vars(cls):
            cls.runner = vars(cls)["lane"]  # type: ignore[method-assign]

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        self.app: Flask = app
        self.queues: dict[str, int] = config["ASOK_QUEUES"]
        """The number of threads or processes for each queue, by its name."""
        self._recent: deque[TaskSummary] = deque(maxlen=config["ASOK_RECENT_TASKS"])
        self._adapters: Adapters = {}
        if config.get("ASOK_METRICS"):
            from .measured import measured

            self.task_class = measured(self.task_class)

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        """Make the Task in the caller's thread, with what it captures of `context`; it is not started yet."""
        try:
            runner = self.runner(options.queue)
        except KeyError:
            known = ", ".join(sorted(self.queues))
            raise ValueError(
                f"Unknown queue {options.queue!r}. Queues are: {known}. "
                "Name it, and its number of threads, in ASOK_QUEUES."
            ) from None
        name = options.name or (fn.__name__ if type(fn) is FunctionType else name_of(fn))
        summary = TaskSummary(name, options.queue)
        summary.scheduled = options.scheduled
        self._recent.append(summary)
        captured = capture(context, self._adapters)
        task = self.task_class((fn, args, kwargs, captured), options, summary, runner, context.app)
        if captured[2] and "sentry_sdk" in modules and not self.distributed:
            published(task, fn, captured[2])
        return task

    def adopt(self, call: Parts, options: Options, summary: TaskSummary) -> RunnableTask[Any]:
        """Make the Task of a call that another process has left; KeyError for a queue that is not known here."""
        task = self.task_class(call, options, summary, self.runner(summary.queue), self.app)
        self._recent.append(summary)
        return task

    @abstractmethod
    def runner(self, queue: str) -> Runner:
        """Return what runs the tasks of `queue`; KeyError for a queue that `ASOK_QUEUES` does not name."""

    def reserve(self, task: RunnableTask[Any], key: str) -> str:
        """
        Take a unique key for `task`, which is not started yet, and return its id; or the id of the task that has it.

        Asked of distributed backends. A task with `when="response"` or "commit" takes its key in `start`.
        """
        raise NotConfigured(f"unique= does not work on {self.name}: tasks there have no keys.")

    @abstractmethod
    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        """
        Run `task` after the delay in its options.

        With `bounded` a full queue may make the caller run it, or raise QueueFull; without, it is accepted.
        """

    def shared(self) -> Shared | None:
        """Return what all processes know of the tasks of a distributed backend; None where they share nothing."""
        return None

    def ticks(self) -> Ticks | None:
        """Return where the ticks of periodic tasks are taken; None for the store of the application."""
        return None

    def forget_summary(self, task: RunnableTask[Any]) -> None:
        """Forget a task that was made, and is not to be started."""
        with contextlib.suppress(ValueError):
            self._recent.remove(task.summary)

    def tasks(self) -> list[TaskSummary]:
        """Return the recent tasks, the oldest first."""
        return list(self._recent)

    def get(self, id: str) -> TaskSummary | None:
        """Return the recent task with this id, or None."""
        return next((summary for summary in self.tasks() if summary.id == id), None)

    def alive(self) -> list[RunnableTask[Any]]:
        """Return the tasks of this process that are queued, running or waiting, not those that are deferred."""
        return []

    def unsettled(self) -> list[RunnableTask[Any]]:
        """Return the recent tasks that this process has made and not settled, those between two steps too."""
        made = [summary.task() for summary in self.tasks() if summary.task is not None]
        return [task for task in made if task is not None and task.is_alive()]

    def abandon(self, task: RunnableTask[Any], why: str) -> None:
        """Settle a task that is queued, waits or runs as abandoned; log it, and send `task_abandoned`."""
        task.abandon(why)

    def close(self, timeout: float | None = None) -> None:  # noqa: B027 - nothing to do by default
        """Finish the accepted tasks within `timeout` seconds; log those that were not, by name and id."""

    def find(self, id: str) -> RunnableTask[Any] | None:
        """Return the task with this id that this process runs, or will; None if it is settled or unknown."""
        deferred = (task for task in all_deferred() if task.app is self.app)
        task = next((task for task in (*self.alive(), *deferred) if task.id == id and task.is_alive()), None)
        if task is not None or self.distributed:
            return task
        # One between two steps, taken out of its queue and not yet begun for instance, is in none of these lists.
        return next((task for task in self.unsettled() if task.id == id), None)

    def joinable(self, id: str) -> RunnableTask[Any] | None:
        """Return the task with this id that a task of this process waits for, if this process can run it."""
        return self.find(id)

    # These answer for this process; in a distributed backend for all that run its tasks.

    def status(self) -> dict[str, Any]:
        """Return `workers`, the names of those that answer, and `queued`, the number of tasks in each queue."""
        queued = Counter(task.queue for task in self.alive() if task.summary.state == "queued")
        return {"workers": [f"process {os.getpid()}"], "queued": {queue: queued[queue] for queue in self.queues}}

    def failed(self) -> list[TaskSummary]:
        """Return the failed tasks that are remembered, the latest first."""
        found = [summary for summary in self.tasks() if summary.state == "failed"]
        return sorted(found, key=lambda summary: summary.finished_at or summary.enqueued_at, reverse=True)

    def cancel(self, id: str) -> bool:
        """Keep a task from running; False when it runs, ran, or is unknown."""
        task = self.find(id)
        return task is not None and task.cancel()

    def retry(self, id: str) -> bool:
        """Run a failed task once more; False when there is none with this id whose call is still known."""
        return False

    def discard(self, id: str) -> bool:
        """Forget a settled task; False if it is not settled, or unknown."""
        found = [summary for summary in self.tasks() if summary.id == id and summary.state in SETTLED]
        for summary in found:
            with contextlib.suppress(ValueError):
                self._recent.remove(summary)
        return bool(found)

    def start_worker(self) -> None:  # noqa: B027 - nothing to do by default
        """Let this process, which serves, run tasks from now on, if it is to."""

    def set_up_tables(self) -> list[str]:
        """Make the tables that are missing, and return what was made: for a backend whose tasks are in a database."""
        raise NotConfigured(NO_TABLES)

    def missing_tables(self) -> str:
        """Return the SQL that `set_up_tables` would run; "" where nothing is missing."""
        raise NotConfigured(NO_TABLES)

    def run_worker(self, queues: Sequence[str], arguments: Sequence[str]) -> None:
        """Run tasks of `queues` in this process, all queues when empty, with the engine's own `arguments`."""
        raise NotConfigured(NOT_SHARED)
