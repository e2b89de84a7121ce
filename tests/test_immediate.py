"""The immediate backend: every task is over when `background()` returns."""

import threading

import pytest
from flask import request

from flask_asok import FlaskAsok, background

WAIT = 10


@pytest.fixture
def app(make_app):
    return make_app(ASOK_BACKEND="immediate")


def test_over_at_once(app):
    """The task is settled when `background()` returns."""
    with app.app_context():
        task = background(int)

    assert (task.state, task.is_alive()) == ("succeeded", False)


def test_in_a_thread_of_its_own(app):
    """It runs in another thread, so that code which leans on the caller's fails as it would in production."""
    local = threading.local()
    local.user = 42

    with app.test_request_context():
        thread = background(threading.get_ident).result()
        of_the_thread = background(getattr, local, "user", None).result()
        of_the_request = background(lambda: request.path).exception()

    assert thread != threading.get_ident()
    assert of_the_thread is None
    assert isinstance(of_the_request, RuntimeError)


def test_no_delay(app):
    """Delays and backoffs are not waited for."""
    with app.app_context():
        delayed = background.using(delay=3600)(int)
        retried = background.using(retries=3, backoff=3600)(int, "seven")

    assert delayed.state == "succeeded"
    assert (retried.state, retried.attempts) == ("failed", 4)


def test_an_error_stays_in_the_task(app):
    """An error, of whatever kind, is kept by the task and not raised at the caller."""

    def leave():
        raise KeyboardInterrupt

    with app.app_context():
        task = background(leave)

    assert isinstance(task.exception(), KeyboardInterrupt)


def test_a_receiver_may_cancel(app):
    """A task that a receiver cancels before it starts does not run."""
    from flask_asok.signals import task_queued

    def cancel(sender, task):
        task.cancel()

    ran = []
    with app.app_context(), task_queued.connected_to(cancel, app):
        task = background(ran.append, 1)

    assert task.state == "cancelled"
    assert ran == []


def test_unknown_queue(app):
    """Queues are those of the configuration, as on any other backend."""
    with app.app_context():
        assert background.using(queue="mail")(int).queue == "mail"
        with pytest.raises(ValueError, match="Unknown queue 'mails'"):
            background.using(queue="mails")(int)


def test_remembers_tasks(app):
    """Recent tasks are remembered, as on any other backend."""
    with app.app_context():
        task = background(int)

        assert FlaskAsok().tasks() == [task.summary]
        assert FlaskAsok().get(task.id) is task
        assert FlaskAsok().get("unknown") is None


def test_nothing_to_close(app):
    """Closing has nothing to wait for, and tasks run afterwards too."""
    FlaskAsok().close(app)

    with app.app_context():
        assert background(int).result() == 0
