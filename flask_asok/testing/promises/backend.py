"""What every backend promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g

from ...dispatch import background
from ...errors import TaskAbandoned, TaskCancelled
from ...signals import task_abandoned, task_cancelled, task_failed, task_queued, task_succeeded
from ...state import state_of
from ...tasks import Task
from .app import MakeApp, WithApp, asok
from .jobs import WAIT, add, add_all, ask_for_retry, echo, fail, note, note_attempt, see, wait_for_file


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.exists() else []


class BackendPromises(WithApp):
    """What every backend promises. Override `make_app`."""

    def test_result(self, ctx: Flask) -> None:
        """The task answers with what the function returned."""
        task = background(add, 1, b=2)

        assert task.result(WAIT) == 3
        assert (task.state, task.attempts, task.is_alive()) == ("succeeded", 1, False)
        assert isinstance(task, threading.Thread)
        assert task.started_at is not None
        assert task.finished_at is not None
        assert task.enqueued_at <= task.started_at <= task.finished_at

    def test_arguments(self, ctx: Flask) -> None:
        """Arguments and result arrive as they were."""
        values = [None, True, 1, 1.5, "é", [1, [2]], {"a": {"b": 1}}, (1, 2), b"\x00"]

        *returned, keywords = background(echo, *values, key="value").result(WAIT)

        assert returned == values
        assert [type(value) for value in returned] == [type(value) for value in values]
        assert keywords == {"key": "value"}

    def test_error(self, ctx: Flask) -> None:
        """The error of the function is raised where the result is asked for, and is in the summary."""
        task = background(fail, "on purpose")

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            task.result(WAIT)
        assert task.state == "failed"
        found = asok.get(task.id)
        assert found is not None
        assert found.error == "ZeroDivisionError('on purpose')"

    def test_options(self, ctx: Flask) -> None:
        """A task runs in the queue and under the name that its options give."""
        task = background.using(queue="mail", name="letter")(add, 1)

        assert task.result(WAIT) == 1
        assert (task.queue, task.name) == ("mail", "letter")

    def test_unknown_queue(self, ctx: Flask) -> None:
        """An unknown queue is an error at the call."""
        with pytest.raises(ValueError, match="Unknown queue 'nowhere'"):
            background.using(queue="nowhere")(add, 1)

    def test_what_a_task_sees(self, app: Flask) -> None:
        """The caller's plain values of `g`, links to the caller's host, its own Task, and no request."""
        with app.test_request_context("/", base_url="https://shop.example/prefix"):
            g.user = 7
            task = background.using(queue="mail")(see)

            seen = task.result(WAIT)

        assert seen == {
            "user": 7,
            "link": "https://shop.example/prefix/page",
            "id": task.id,
            "queue": "mail",
            "request": False,
        }

    def test_retries(self, ctx: Flask, tmp_path: Path) -> None:
        """A task is tried again, under the same id, as often as asked for."""
        task = background.using(retries=3, backoff=[0.05, 0.1], retry_on=ConnectionError)(
            note_attempt, str(tmp_path / "runs"), succeed_at=3
        )

        assert task.result(WAIT) == 3
        assert task.attempts == 3
        assert _lines(tmp_path / "runs") == ["1", "2", "3"]

    def test_retries_run_out(self, ctx: Flask, tmp_path: Path) -> None:
        """With no retry left the task fails with its last error; an error that is not named is not retried."""
        task = background.using(retries=1, backoff=0.05)(note_attempt, str(tmp_path / "runs"), succeed_at=9)
        other = background.using(retries=5, retry_on=OSError)(fail, "at once")

        assert repr(task.exception(WAIT)) == "ConnectionError('attempt 2')"
        assert _lines(tmp_path / "runs") == ["1", "2"]
        assert isinstance(other.exception(WAIT), ZeroDivisionError)
        assert other.attempts == 1

    def test_retry_asked_for(self, ctx: Flask, tmp_path: Path) -> None:
        """A task that raises Retry runs again."""
        task = background.using(retries=1)(ask_for_retry, str(tmp_path / "runs"))

        assert task.result(WAIT) == "done"
        assert _lines(tmp_path / "runs") == ["1", "2"]

    def test_waiting_in_a_task_cannot_deadlock(self, ctx: Flask) -> None:
        """Tasks that wait for tasks of their own fill every queue, and come to an end."""
        assert background(add_all, 3).result(2 * WAIT) == 8

    def test_too_late_to_cancel(self, ctx: Flask) -> None:
        """A task that ran cannot be cancelled."""
        task = background(add, 1)
        task.join(WAIT)

        assert not task.cancel()
        assert task.state == "succeeded"

    def test_cancel(self, ctx: Flask, tmp_path: Path) -> None:
        """A task that waits for its delay can be cancelled, and never runs."""
        if not state_of(ctx).backend.in_process and not state_of(ctx).backend.distributed:
            pytest.skip("Nothing waits on this backend.")
        task = background.using(delay=1)(note, str(tmp_path / "runs"))
        before = task.state

        assert task.cancel()

        assert before == "waiting"
        with pytest.raises(TaskCancelled):
            task.result(WAIT)
        assert background.using(delay=1.3)(add, 1).result(WAIT) == 1
        assert _lines(tmp_path / "runs") == []

    def test_response(self, app: Flask, tmp_path: Path) -> None:
        """A task of `when="response"` begins once the response is closed."""
        tasks: list[Task[Any]] = []

        @app.get("/deferred")
        def deferred() -> str:
            tasks.append(background.using(when="response")(note, str(tmp_path / "runs")))
            return "answered"

        response = app.test_client().get("/deferred")
        before = tasks[0].state, _lines(tmp_path / "runs")
        response.close()

        with app.app_context():
            tasks[0].join(WAIT)
        assert before == ("waiting", [])
        assert _lines(tmp_path / "runs") == ["ran"]

    def test_known_by_its_id(self, ctx: Flask) -> None:
        """A task is found by its id, and an unknown id is None."""
        task = background(add, 1)
        task.join(WAIT)

        found = asok.get(task.id)

        assert found is not None
        assert (found.id, found.name, found.state, found.attempts) == (task.id, "add", "succeeded", 1)
        assert asok.get("0" * 32) is None

    def test_discard(self, ctx: Flask) -> None:
        """A settled task can be forgotten, and is unknown then."""
        task = background(add, 1)
        task.join(WAIT)

        gone, again = asok.discard(task.id), asok.discard(task.id)

        assert (gone, again) == (True, False)
        assert asok.get(task.id) is None
        assert not asok.discard("0" * 32)

    def test_signals(self, app: Flask) -> None:
        """The caller's process hears of each task that is queued; where a task runs hears of its end, once."""
        told: list[str] = []
        distributed = state_of(app).backend.distributed

        def tell(name: str) -> Callable[..., None]:
            return lambda app, **_: told.append(name)

        receivers = {name: tell(name) for name in ("queued", "succeeded", "failed", "cancelled", "abandoned")}
        signals = (task_queued, task_succeeded, task_failed, task_cancelled, task_abandoned)
        for signal, (_, receiver) in zip(signals, receivers.items(), strict=True):
            signal.connect(receiver, app)

        with app.app_context():
            background(add, 1).join(WAIT)
            background(fail, "x").join(WAIT)

        assert told.count("queued") == 2
        assert [name for name in told if name != "queued"] == ([] if distributed else ["succeeded", "failed"])

    def test_closed(self, make_app: MakeApp, tmp_path: Path) -> None:
        """What a backend of this process cannot finish when it closes is abandoned; what it can is finished."""
        app = make_app()
        if state_of(app).backend.distributed or not state_of(app).backend.in_process:
            pytest.skip("The tasks of this backend do not wait in this process.")
        told: list[Task[Any]] = []

        def tell(app: Flask, task: Task[Any]) -> None:
            told.append(task)

        task_abandoned.connect(tell, app)
        with app.app_context():
            done = background(add, 1)
            # A durable one goes on in another process.
            late = background.using(delay=600, durable=False)(note, str(tmp_path / "runs"))

        asok.close(app, WAIT)

        assert done.state == "succeeded"
        assert late.state == "abandoned"
        assert told == [late]
        with pytest.raises(TaskAbandoned):
            late.result(WAIT)

    def test_closed_while_one_runs(self, make_app: MakeApp, tmp_path: Path) -> None:
        """A running task that outlasts the shutdown is abandoned, and its outcome comes too late."""
        app = make_app()
        if state_of(app).backend.distributed or not state_of(app).backend.in_process:
            pytest.skip("The tasks of this backend do not wait in this process.")
        gate = tmp_path / "gate"
        with app.app_context():
            running = background(wait_for_file, str(gate))
            deadline = time.monotonic() + WAIT
            while running.state != "running" and time.monotonic() < deadline:
                running.join(0.01)

        asok.close(app, 0.05)
        gate.touch()

        assert running.state == "abandoned"
        with pytest.raises(TaskAbandoned):
            running.result(WAIT)
