"""The pytest plugin: the `asok_tasks` fixture sees, keeps, runs and judges the tasks of a test."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, has_request_context, request
from flask.ctx import AppContext

from .backends.base import Backend
from .backends.immediate import ImmediateBackend
from .options import Options
from .recipes.mail import recorded
from .state import state_of
from .summaries import TaskSummary
from .tasks import Lane, Task
from .triggers import release

if TYPE_CHECKING:
    from flask_mail import Message

WAIT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call of `background()` as the test made it happen."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options
    task: Task[Any]

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.task.name}({', '.join(shown)})"


class AsokTasks:
    """
    The tasks that `app` starts while it lives, which is one test.

    They run on the app's backend as ever, until `capture()` is called. An error that no `expect_error` announced fails
    the test when it ends.
    """

    def __init__(self, app: Flask) -> None:
        self.calls: list[RecordedCall] = []
        """Every call, the first one first. Their args and kwargs are those queued, after `prepare`."""
        self._state = state_of(app)
        self._backend = self._state.backend
        self._state.backend = self._recorder = _Recorder(app, self, self._backend)
        self._expected: set[Task[Any]] = set()
        self._recording = recorded(app)
        self._mails = self._recording.__enter__()

    @property
    def outbox(self) -> list[Message]:
        """The mails that were sent, as Flask-Mail Messages; waits for the tasks first, as `wait()` does."""
        self.wait()
        return self._mails

    def capture(self) -> None:
        """Keep tasks from now on instead of running them."""
        self._recorder.capturing = True

    def run(self) -> list[Task[Any]]:
        """
        Run the kept tasks, and those they start, one after the other, and return them, settled.

        Delays and backoffs are not waited for.
        """
        done: list[Task[Any]] = []
        while self._recorder.kept:
            task = self._recorder.kept.pop(0)
            self._recorder.immediate.start(task)
            done.append(task)
        return done

    def wait(self, timeout: float = WAIT_SECONDS) -> list[Task[Any]]:
        """
        Wait until every started task is settled, and those they start; return all tasks.

        Raises AssertionError, naming the tasks, after `timeout` seconds. Kept tasks, and those held for a response or a
        commit, are not waited for.
        """
        deadline = time.monotonic() + timeout
        for call in self.calls:  # grows as tasks start tasks
            if self._is_on_its_way(call):
                call.task.join(max(0.0, deadline - time.monotonic()))
        late = [f"{call!r} is {call.task.state}" for call in self.calls if self._is_on_its_way(call)]
        assert not late, f"Not settled within {timeout:g} s: {'; '.join(late)}"
        return [call.task for call in self.calls]

    def release(self) -> list[Task[Any]]:
        """
        Start the tasks held with `when="response"`, and return them.

        In production the server does it when it closes the response; the Flask test client never does, unless the test
        calls `response.close()`.
        """
        held = [call.task for call in self.calls if call.options.when == "response" and call.task.is_held()]
        for task in held:
            release(task, self._recorder.start, bounded=True)
        return held

    def assert_called(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RecordedCall:
        """Return the first call of `fn`, with exactly these arguments where any are given; AssertionError if none."""
        for call in self.calls:
            if call.fn == fn and (not (args or kwargs) or (call.args, call.kwargs) == (args, kwargs)):
                return call
        raise AssertionError(f"No such call of background() with {_named(fn)}. {self._all_calls()}")

    def assert_not_called(self, fn: Callable[..., Any] | None = None) -> None:
        """Raise AssertionError where `fn`, or without it anything, was given to `background()`."""
        found = [call for call in self.calls if fn is None or call.fn == fn]
        assert not found, f"background() was called: {found!r}"

    @contextmanager
    def expect_error(self, *types: type[BaseException]) -> Iterator[list[BaseException]]:
        """
        Expect that a task which is started or run in this block fails with one of `types`.

        Leaving the block waits for its tasks; AssertionError where none failed so. The list given to `as` then holds
        the errors.
        """
        errors: list[BaseException] = []
        before = {call.task for call in self.calls if call.task.state == "failed"}
        yield errors
        self.wait()
        for call in self.calls:
            error = call.task.exception() if call.task.state == "failed" and call.task not in before else None
            if isinstance(error, types):
                self._expected.add(call.task)
                errors.append(error)
        names = " or ".join(kind.__name__ for kind in types)
        assert errors, f"No task failed with {names}. {self._all_calls()}"

    def check(self) -> None:
        """Wait for the tasks, and raise AssertionError, from the first error, where one failed unexpectedly."""
        self.wait()
        failed = [call for call in self.calls if call.task.state == "failed" and call.task not in self._expected]
        if failed:
            errors = "; ".join(f"{call!r}: {call.task.exception()!r}" for call in failed)
            raise AssertionError(f"Background tasks failed: {errors}") from failed[0].task.exception()

    def close(self) -> None:
        """Give the app its backend back; what is still kept or held is cancelled."""
        for call in self.calls:
            call.task.cancel()
        self._state.backend = self._backend
        self._recording.__exit__(None, None, None)

    def _is_on_its_way(self, call: RecordedCall) -> bool:
        return call.task.is_alive() and not call.task.is_held() and call.task not in self._recorder.kept

    def _all_calls(self) -> str:
        return f"Calls were: {self.calls!r}" if self.calls else "There was no call at all."


class _Recorder(Backend):
    """Stands before the app's backend, and tells of each call."""

    def __init__(self, app: Flask, tasks: AsokTasks, backend: Backend) -> None:
        config = tasks._state.config
        super().__init__(app, config)
        self.name = backend.name  # type: ignore[misc]
        self.distributed = backend.distributed  # type: ignore[misc]
        self.in_process = backend.in_process  # type: ignore[misc]
        self.immediate = ImmediateBackend(app, config)
        self.capturing = False
        self.kept: list[Task[Any]] = []
        self._environs: list[object] = []
        self._tasks = tasks
        self._backend = backend

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> Task[Any]:
        if options.when == "response" and has_request_context():
            # Else a test client's response that nobody keeps would start the task, at a moment of its own.
            self._environs.append(request.environ)
        backend = self.immediate if self.capturing else self._backend
        task = backend.create(fn, args, kwargs, options, context)
        call = RecordedCall(fn=fn, args=args, kwargs=kwargs, options=options, task=task)
        self._tasks.calls.append(call)
        return task

    def lane(self, queue: str) -> Lane:
        return self._backend.lane(queue)

    def start(self, task: Task[Any], *, bounded: bool = True) -> None:
        if task.lane is self.immediate:
            self.kept.append(task)
        else:
            self._backend.start(task, bounded=bounded)

    def tasks(self) -> list[TaskSummary]:
        return [call.task.summary for call in self._tasks.calls]

    def close(self, timeout: float | None = None) -> None:
        self._backend.close(timeout)


def _named(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", repr(fn))


_key = pytest.StashKey[AsokTasks]()


def pytest_collection_finish() -> None:
    """
    Import what the recipes import late, now and in one thread.

    pytest compiles every module of a package with a plugin by itself; in several worker threads at once that ends in a
    SystemError on Python 3.11.
    """
    for recipe in ("images.pipeline", "mail.delivery", "webhooks.sender", "webhooks.transport"):
        importlib.import_module(f".recipes.{recipe}", __package__)


@pytest.fixture
def asok_tasks(request: pytest.FixtureRequest, app: Flask) -> Iterator[AsokTasks]:
    """See and steer the background tasks of the `app` fixture, which is yours; an unexpected error fails the test."""
    tasks = AsokTasks(app)
    request.node.stash[_key] = tasks
    yield tasks
    tasks.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge the tasks as part of the test, so that it fails, and not in the teardown, where it would be an error."""
    outcome = yield
    if _key in item.stash:
        item.stash[_key].check()
    return outcome
