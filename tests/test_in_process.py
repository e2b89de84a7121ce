"""What a backend of this process knows of its tasks: the dashboard and the code of an application ask for it."""

import os

import pytest

from flask_asok import background
from flask_asok.backends.immediate import ImmediateBackend
from flask_asok.state import state_of

WAIT = 10


def fail():
    raise LookupError("nothing there")


def test_status(make_app, occupy):
    """`status()` names this process and counts the queued tasks of each queue, not those that run or wait."""
    app = make_app(ASOK_QUEUES={"default": 1})
    backend = state_of(app).backend

    with app.app_context():
        occupy()
        queued = [background(int) for _ in range(3)]
        waiting = background.using(delay=60)(int)
        found = backend.status()
        for task in (*queued, waiting):
            task.cancel()

    assert found["workers"] == [f"process {os.getpid()}"]
    assert found["queued"] == {**dict.fromkeys(backend.queues, 0), "default": 3}


def test_failed(app):
    """`failed()` gives the failed tasks that are remembered, the latest first."""
    with app.app_context():
        for name in ("first", "second"):
            background.using(name=name)(fail).exception(WAIT)
            background(int).result(WAIT)
        found = state_of(app).backend.failed()

    assert [(task.name, task.error) for task in found] == [
        ("second", "LookupError('nothing there')"),
        ("first", "LookupError('nothing there')"),
    ]


@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"when": "response"}], ids=["queued", "delayed", "deferred"])
def test_cancel(make_app, occupy, options):
    """`cancel(id)` finds a task that is queued, waits for its delay or is deferred; it never runs."""
    app = make_app(ASOK_QUEUES={"default": 1})
    backend = state_of(app).backend

    with app.test_request_context():
        occupy()
        task = background.using(**options)(fail)
        is_cancelled = backend.cancel(task.id)

    assert is_cancelled
    assert (task.state, task.attempts) == ("cancelled", 0)
    assert not backend.cancel(task.id)


def test_cancel_of_another_app(make_app, occupy):
    """A backend cancels the tasks of its own application only, deferred ones too."""
    app, other = make_app(ASOK_QUEUES={"default": 1}), make_app("blog")

    with app.test_request_context():
        occupy()
        tasks = [background(int), background.using(when="response")(int)]
        are_cancelled = [state_of(other).backend.cancel(task.id) for task in tasks]
        for task in tasks:
            task.cancel()

    assert are_cancelled == [False, False]


def test_not_to_be_cancelled(app):
    """A task that ran, and one that is unknown, cannot be cancelled."""
    backend = state_of(app).backend

    with app.app_context():
        done = background(int)
        done.join(WAIT)

    assert not backend.cancel(done.id)
    assert not backend.cancel("0" * 32)


def test_retry(app):
    """A failed task of this process is not run again: its call is gone."""
    with app.app_context():
        task = background(fail)
        task.exception(WAIT)

    assert not state_of(app).backend.retry(task.id)


def test_a_runner_by_its_old_name(threads_app):
    """A backend that was written when `runner` was called `lane` runs as before."""

    class Old(ImmediateBackend):
        def lane(self, queue):
            asked.append(queue)
            return self

    asked = []
    with threads_app.app_context():
        state_of(threads_app).backend = Old(threads_app, state_of(threads_app).config)
        task = background.using(queue="mail")(int)

    assert (task.state, asked) == ("succeeded", ["mail"])
