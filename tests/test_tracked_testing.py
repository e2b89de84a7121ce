"""Tracked and unique tasks under the `asok_tasks` fixture."""

import pytest

from flask_asok import FlaskAsok, background, report_progress

asok = FlaskAsok()

tracked = background.using(tracked=True)
unique = background.using(unique="export")


def add(a, b=0):
    report_progress(1, 1)
    return a + b


@pytest.fixture(params=["threads", "immediate"])
def app(make_app, request):
    app = make_app(ASOK_BACKEND=request.param, TESTING=True)
    with app.app_context():
        yield app


def test_tracked(app, asok_tasks):
    """A tracked task runs and is found by its id, with its result and progress."""
    task = tracked(add, 1, b=2)
    asok_tasks.wait()

    assert asok.get(task.id).result(10) == 3
    assert asok.get(task.id).progress.fraction == 1.0
    assert [found.id for found in asok.tasks()] == [task.id]


def test_captured(app, asok_tasks):
    """One that is captured is queued for whoever asks, until it is run."""
    asok_tasks.capture()
    task = tracked(add, 1)
    before = asok.get(task.id).state

    asok_tasks.run()

    assert (before, asok.get(task.id).state) == ("queued", "succeeded")


def test_captured_unique(app, asok_tasks):
    """A captured unique task holds its key until it is run: a second call is the same task, and is no call."""
    asok_tasks.capture()
    first, second = unique(add, 1), unique(add, 2)

    (ran,) = asok_tasks.run()

    assert second.id == first.id == ran.id
    assert ran.result() == 1
    assert unique(add, 3).id != first.id


def test_captured_and_cancelled(app, asok_tasks):
    """Cancelled, it never runs, and its key is free."""
    asok_tasks.capture()
    first = unique(add, 1)

    assert asok.cancel(first.id)
    assert unique(add, 2).id != first.id


def test_closed(app, asok_tasks):
    """The end of the test frees the key of what was never run."""
    asok_tasks.capture()
    first = unique(add, 1)

    asok_tasks.close()

    assert asok.get(first.id).state == "cancelled"
    again = unique(add, 2)
    assert again.id != first.id
    assert again.result(10) == 2


def test_call_that_gets_another_task(app, asok_tasks):
    """A call that gets the task which is there is nothing to wait for, and no call."""
    asok_tasks.capture()
    first, second = unique(add, 1), unique(add, 2)
    asok_tasks.run()

    assert [task.id for task in asok_tasks.wait(0.5)] == [first.id]
    assert len(asok_tasks.calls) == 1
    assert second.result(10) == 1
    asok_tasks.check()
