"""The backend of a test: it stands before the app's own, records each call, and keeps the captured tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, has_request_context, request
from flask.ctx import AppContext

from ..attempt import RunnableTask, running_task
from ..backends.base import Backend
from ..backends.immediate import ImmediateBackend
from ..callables import decorated
from ..options import Options
from ..summaries import TaskSummary
from ..waiting import Runner


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call of `background()` as the test made it happen."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options
    task: RunnableTask[Any]

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.task.name}({', '.join(shown)})"


class KeptTask(RunnableTask[Any]):
    """A captured task. Only its test runs it, so a test that joins it before is told, and does not hang."""

    tester: int | None = None
    """The thread of the test."""

    def join(self, timeout: float | None = None) -> None:
        """As of every Task; RuntimeError where the thread waits, without a limit, for what it has to do itself."""
        is_tester = self.tester == threading.get_ident() and running_task() is None
        if is_tester and timeout is None and self.state == "queued":
            raise RuntimeError(
                f"Task {self.name} is kept until asok_tasks.run(): joining it before would never end. "
                "capture(...) with the functions to keep lets all others run."
            )
        super().join(timeout)


class Keeper(ImmediateBackend):
    """Runs captured tasks, when the test says so."""

    task_class: type[RunnableTask[Any]] = KeptTask


class Recorder(Backend):
    """Hands each call on to `backend`, or keeps its task; made and closed by the fixture, for one test."""

    def __init__(self, app: Flask, config: Mapping[str, Any], backend: Backend) -> None:
        super().__init__(app, config)
        self.name: str = backend.name  # type: ignore[misc]
        self.distributed: bool = backend.distributed  # type: ignore[misc]
        self.calls: list[RecordedCall] = []
        self.kept: list[RunnableTask[Any]] = []
        self.real_delays: bool = False
        self._backend = backend
        self._immediate = Keeper(app, config)
        self._tester = threading.get_ident()
        self._captures_all = False
        self._captured: list[Callable[..., Any]] = []
        self._environs: list[object] = []

    @property
    def in_process(self) -> bool:  # type: ignore[override]
        """A task that was captured holds the thread that runs it while it waits."""
        task = running_task()
        return self._backend.in_process and not (task is not None and task.runner is self._immediate)

    def capture(self, functions: Iterable[Callable[..., Any]]) -> None:
        """Keep from now on the tasks of `functions` too, or all of them where there are none."""
        captured = list(functions)
        self._captured += captured
        self._captures_all = self._captures_all or not captured

    def perform(self, task: RunnableTask[Any]) -> None:
        """Run a task that was kept, and wait for it."""
        self._immediate.start(task)

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        if options.when == "response" and has_request_context():
            # Otherwise the garbage collection of a test client's response would start the task, at any moment.
            self._environs.append(request.environ)
        known = decorated(fn)
        backend = self._immediate if self._captures_all or known in self._captured else self._backend
        task = backend.create(fn, args, kwargs, options, context)
        if isinstance(task, KeptTask):
            task.tester = self._tester
        if not self.real_delays:
            task.skips_waits = True
            if options.delay and not self._is_begun_by_itself(known):
                task.options = options.replace(delay=0)
        self.calls.append(RecordedCall(fn=known, args=args, kwargs=kwargs, options=options, task=task))
        return task

    def runner(self, queue: str) -> Runner:
        return self._backend.runner(queue)

    def start(self, task: RunnableTask[Any], *, bounded: bool = True) -> None:
        if task.runner is self._immediate:
            self.kept.append(task)
        else:
            self._backend.start(task, bounded=bounded)

    def forget_summary(self, task: RunnableTask[Any]) -> None:
        """Forget the call too: another task has its unique key, so nothing was started that a test could wait for."""
        self.calls[:] = [call for call in self.calls if call.task is not task]
        for backend in (self._immediate, self._backend):
            backend.forget_summary(task)

    def alive(self) -> list[RunnableTask[Any]]:
        return [*self.kept, *self._immediate.alive(), *self._backend.alive()]

    def tasks(self) -> list[TaskSummary]:
        return [call.task.summary for call in self.calls]

    def close(self, timeout: float | None = None) -> None:
        self._backend.close(timeout)

    def _is_begun_by_itself(self, fn: Callable[..., Any]) -> bool:
        """Return True in a task of `fn`: without its delay it would begin itself again, and again, for ever."""
        task = running_task()
        return any(call.task is task and call.fn == fn for call in self.calls)
