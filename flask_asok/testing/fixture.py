"""What the fixture gives a test: the handle on all of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import Flask

from ..attempt import RunnableTask
from ..extension import FlaskAsok
from ..periodic import start_named
from ..recipes.cache import warm_cache
from ..recipes.images import resize_image
from ..recipes.mail import Mail, send_mail, send_mails
from ..recipes.mail import recorded as recorded_mails
from ..recipes.webhooks import Delivery, send_webhook
from ..recipes.webhooks import recorded as recorded_webhooks
from ..signals import task_retried
from ..state import state_of
from ..tasks import Task
from ..triggers import release
from ..validate import a_kind
from .recorder import RecordedCall, Recorder

if TYPE_CHECKING:
    from flask_mail import Message

WAIT_SECONDS = 10.0

SHORTCUTS: dict[Callable[..., Any], Callable[..., Any]] = {
    FlaskAsok.send_webhook: send_webhook,
    FlaskAsok.resize_image: resize_image,
    FlaskAsok.warm_cache: warm_cache,
    FlaskAsok.send_mail: send_mail,
    Mail.send: send_mail,
    Mail.send_message: send_mail,
    Mail.send_many: send_mails,
}
"""What a view calls, and the function whose task that starts."""


class AsokTasks:
    """
    The tasks that `app` starts while it lives, which is one test.

    They run on the app's backend as ever, but wait for no delay and no backoff; `capture()` keeps them. An error that
    no `expect_error` announced fails the test when it ends.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._state = state_of(app)
        self._backend = self._state.backend
        self._state.backend = self._recorder = Recorder(app, self._state.config, self._backend)
        self._expected: set[Task[Any]] = set()
        self._next_tries: dict[Task[Any], float] = {}
        self._opened = ExitStack()
        self._mails = self._opened.enter_context(recorded_mails(app))
        self._deliveries = self._opened.enter_context(recorded_webhooks(app))
        self._opened.enter_context(task_retried.connected_to(self._note_next_try, sender=app))

    @property
    def calls(self) -> list[RecordedCall]:
        """Every call, the first one first. Their args and kwargs are those queued, after `prepare`."""
        return self._recorder.calls

    @property
    def real_delays(self) -> bool:
        """False: tasks wait for no delay, backoff or `Retry(after=...)`. True: those started from now on do."""
        return self._recorder.real_delays

    @real_delays.setter
    def real_delays(self, value: bool) -> None:
        self._recorder.real_delays = value

    @property
    def outbox(self) -> list[Message]:
        """The emails that were sent, as Flask-Mail Messages; waits for the tasks first, as `wait()` does."""
        self.wait()
        return self._mails

    @property
    def webhooks(self) -> list[Delivery]:
        """
        The webhooks that were delivered, in testing mode without being sent; waits for the tasks first, as `wait()`.

        Each has its `full_url` and `headers`, besides `id`, `body`, `json` and `reference`.
        """
        self.wait()
        return self._deliveries

    def capture(self, *functions: Callable[..., Any]) -> None:
        """
        Keep tasks from now on instead of running them: those of `functions`, or all of them without arguments.

        A recipe may be named by its shortcut, such as `Mail.send` or `asok.send_webhook`. A further call names more.
        """
        self._recorder.capture(_task_function(fn, "capture") for fn in functions)

    def run(self) -> list[Task[Any]]:
        """
        Run the kept tasks, and those kept that they start, one after the other, and return them, settled.

        Delays and backoffs are not waited for.
        """
        done: list[Task[Any]] = []
        while self._recorder.kept:
            task = self._recorder.kept.pop(0)
            self._recorder.perform(task)
            done.append(task)
        return done

    def run_periodic(self, name: str, at: datetime | None = None) -> Task[Any]:
        """
        Run the periodic task `name` for the tick `at`, an aware datetime (None: its latest one); return it, settled.

        No other way runs one in testing mode. One that `capture()` keeps is kept. ValueError for an unknown name.
        """
        task = start_named(self._app, name, None if at is None else at.timestamp())
        if not any(task is kept for kept in self._recorder.kept):
            task.join(WAIT_SECONDS)
        return task

    def wait(self, timeout: float = WAIT_SECONDS) -> list[Task[Any]]:
        """
        Wait until every started task is settled, and those they start; return all tasks.

        Raises AssertionError, naming the tasks and why they wait, after `timeout` seconds. Kept tasks, and those
        deferred to a response or a commit, are not waited for.
        """
        deadline = time.monotonic() + timeout
        for call in self.calls:  # grows as tasks start tasks
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._is_on_its_way(call):
                call.task.join(left)
        late = [call for call in self.calls if self._is_on_its_way(call)]
        if late:
            names = ", ".join({_named(call.fn): None for call in late})
            raise AssertionError(
                f"Not settled within {timeout:g} s: {'; '.join(map(self._delay_of, late))}. "
                f"asok_tasks.capture({names}) keeps what a test need not run; wait(timeout=...) waits longer."
            )
        return [call.task for call in self.calls]

    def release(self) -> list[Task[Any]]:
        """
        Start the tasks deferred with `when="response"`, and return them.

        In production the server does it when it closes the response; the Flask test client never does, unless the test
        calls `response.close()`.
        """
        deferred = [call.task for call in self.calls if call.options.when == "response" and call.task.is_deferred()]
        for task in deferred:
            release(task, self._recorder.start, bounded=True)
        return [*deferred]

    def assert_called(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RecordedCall:
        """Return the first call of `fn`, with exactly these arguments where any are given; AssertionError if none."""
        fn = _task_function(fn, "assert_called")
        for call in self.calls:
            if call.fn == fn and (not (args or kwargs) or (call.args, call.kwargs) == (args, kwargs)):
                return call
        text = f"No such call of background() with {_named(fn)}. {self._all_calls()}"
        if any(call.fn == fn and call.options.prepare is not None for call in self.calls):
            text += (
                f" These are the arguments that its `prepare` made: assert on {_named(fn)} alone, and look at "
                "asok_tasks.webhooks or asok_tasks.outbox."
            )
        raise AssertionError(text)

    def assert_not_called(self, fn: Callable[..., Any] | None = None) -> None:
        """Raise AssertionError where `fn`, or without it anything, was given to `background()`."""
        fn = None if fn is None else _task_function(fn, "assert_not_called")
        found = [call for call in self.calls if fn is None or call.fn == fn]
        assert not found, f"background() was called: {found!r}"

    @contextmanager
    def expect_error(self, *types: type[BaseException]) -> Iterator[list[BaseException]]:
        """
        Expect that a task which is started or run in this block fails with one of `types`.

        Leaving the block waits for its tasks; AssertionError where none failed so. The list given to `as` then holds
        the errors.
        """
        if not types or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types):
            raise TypeError("expect_error() takes the types of the errors to expect: expect_error(ValueError).")
        errors: list[BaseException] = []
        before = {call.task for call in self.calls if call.task.state == "failed"}
        yield errors
        self.wait()
        for call in self.calls:
            error = call.task.exception() if call.task.state == "failed" and call.task not in before else None
            if isinstance(error, types):
                self._expected.add(call.task)
                errors.append(error)
        if not errors:
            names = " or ".join(kind.__name__ for kind in types)
            others = [call for call in self.calls if call.task not in before]
            outcomes = "; ".join(map(self._outcome_of, others)) or "none was started"
            raise AssertionError(f"No task failed with {names}: {outcomes}.") from next(
                (call.task.exception() for call in others if call.task.state == "failed"), None
            )

    def check(self) -> None:
        """Wait for the tasks, and raise AssertionError, from the first error, where one failed unexpectedly."""
        self.wait()
        failed = [call for call in self.calls if call.task.state == "failed" and call.task not in self._expected]
        if failed:
            errors = "; ".join(f"{call!r}: {call.task.exception()!r}" for call in failed)
            raise AssertionError(
                f"Background tasks failed: {errors}. asok_tasks.expect_error(...) announces an error that belongs to "
                "the test."
            ) from failed[0].task.exception()

    def close(self) -> None:
        """Give the app its backend back; what is still kept or deferred is cancelled."""
        for call in self.calls:
            call.task.cancel()
        self._state.backend = self._backend
        self._opened.close()

    def _note_next_try(self, app: Flask, task: RunnableTask[Any], wait: float, **_: Any) -> None:
        if not task.skips_waits:
            self._next_tries[task] = time.monotonic() + wait

    def _is_on_its_way(self, call: RecordedCall) -> bool:
        return call.task.is_alive() and not call.task.is_deferred() and call.task not in self._recorder.kept

    def _delay_of(self, call: RecordedCall) -> str:
        """Say why a task is not settled yet."""
        task, state = call.task, call.task.state
        text = f"{call!r} is {state}"
        attempts = task.attempts - (state == "running")
        if attempts and task.summary.error:
            text += f"; attempt {attempts} failed with {task.summary.error}"
        if state == "waiting":
            begins = task.enqueued_at.timestamp() + task.options.delay - time.time()
            left = max(0.0, self._next_tries[task] - time.monotonic() if task in self._next_tries else begins)
            text += f"; next try in {left:.{0 if left >= 10 else 1}f} s"
        return text

    def _outcome_of(self, call: RecordedCall) -> str:
        """Say what became of a task, and what would start it where nothing has."""
        task = call.task
        if task in self._recorder.kept:
            return f"{call!r} is kept until asok_tasks.run()"
        if task.is_deferred():
            end = "asok_tasks.release()" if call.options.when == "response" else "the commit"
            return f"{call!r} is held until {end}"
        return f"{call!r} failed with {task.exception()!r}" if task.state == "failed" else f"{call!r} {task.state}"

    def _all_calls(self) -> str:
        return f"Calls were: {self.calls!r}" if self.calls else "There was no call at all."


def _task_function(fn: Callable[..., Any], method: str) -> Callable[..., Any]:
    """Return the function whose task a shortcut starts, any other one as it is; TypeError if it is no function."""
    if not callable(fn):
        raise TypeError(
            f"{method}() takes the functions that background() is given, one by one, not {a_kind(type(fn))}."
        )
    return next((recipe for shortcut, recipe in SHORTCUTS.items() if shortcut is fn), fn)


def _named(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else repr(fn)
