"""Signals: what is sent when, and that the sender is the application."""

import threading

import pytest

from flask_asok import FlaskAsok, Retry, background, current_task
from flask_asok.signals import (
    task_abandoned,
    task_cancelled,
    task_failed,
    task_queued,
    task_retried,
    task_started,
    task_succeeded,
)

WAIT = 10
SIGNALS = (task_queued, task_started, task_succeeded, task_failed, task_retried, task_cancelled, task_abandoned)


class Ears:
    """Notes every signal of the tasks, whatever its sender."""

    def __init__(self):
        self.heard = []
        self.receivers = {signal: self._receiver(signal.name) for signal in SIGNALS}

    def _receiver(self, name):
        def receive(sender, task, **rest):
            self.heard.append((name, sender, task, rest))

        return receive

    def names(self):
        return [name for name, *_ in self.heard]


@pytest.fixture
def ears():
    ears = Ears()
    for signal, receiver in ears.receivers.items():
        signal.connect(receiver)
    yield ears
    for signal, receiver in ears.receivers.items():
        signal.disconnect(receiver)


def fail():
    raise ValueError("no stock")


def test_a_task_that_succeeds(app, ears):
    """A task that goes well is queued, started and succeeded; the sender is the application itself."""
    with app.app_context():
        task = background(int)
        task.join(WAIT)

    assert ears.names() == ["task-queued", "task-started", "task-succeeded"]
    assert all(sender is app and heard is task and rest == {} for _, sender, heard, rest in ears.heard)


def test_a_task_that_fails(app, ears):
    """Of a task that fails the receivers get the error."""
    with app.app_context():
        task = background(fail)
        error = task.exception(WAIT)

    assert ears.names() == ["task-queued", "task-started", "task-failed"]
    assert ears.heard[-1] == ("task-failed", app, task, {"error": error})


def test_a_task_that_is_retried(app, ears):
    """Of a retry the receivers get the error and the seconds to wait; each attempt is started."""

    def flaky():
        if current_task().attempts == 1:
            raise Retry(after=0.001)

    with app.app_context():
        background.using(retries=1)(flaky).join(WAIT)

    assert ears.names() == ["task-queued", "task-started", "task-retried", "task-started", "task-succeeded"]
    retried = ears.heard[2][3]
    assert retried["wait"] == 0.001
    assert isinstance(retried["error"], Retry)


def test_a_task_that_is_cancelled(threads_app, ears):
    """A task that is cancelled says so, once."""
    with threads_app.app_context():
        task = background.using(delay=3600)(int)
        task.cancel()
        task.cancel()

    assert ears.names() == ["task-queued", "task-cancelled"]


def test_a_task_that_is_abandoned(threads_app, ears):
    """A task that a shutdown leaves behind says so."""
    with threads_app.app_context():
        background.using(delay=3600)(int)
        FlaskAsok().close(threads_app)

    assert ears.names() == ["task-queued", "task-abandoned"]


def test_states_while_they_are_sent(app):
    """While a signal is sent, the task is in the state that it tells of."""
    states = []

    def note(sender, task, **rest):
        states.append(task.state)

    with app.app_context():
        with task_started.connected_to(note, app), task_succeeded.connected_to(note, app):
            background(int).join(WAIT)
        with task_failed.connected_to(note, app), task_retried.connected_to(note, app):
            background.using(retries=1, backoff=0)(fail).join(WAIT)

    assert states == ["running", "succeeded", "waiting", "failed"]


def test_queued_in_the_callers_thread(app):
    """`task_queued` is sent in the caller's thread, the others in the one that runs the task."""
    threads = []

    def note(sender, task, **rest):
        threads.append(threading.get_ident())

    with app.app_context(), task_queued.connected_to(note, app), task_succeeded.connected_to(note, app):
        task = background(threading.get_ident)
        task.join(WAIT)

    assert threads == [threading.get_ident(), task.result()]


def test_one_app_only(make_app, backend):
    """A receiver that is connected to one app hears of that app's tasks only."""
    shop, blog = make_app("shop", **backend), make_app("blog", **backend)
    heard = []

    def note(sender, task):
        heard.append(sender)

    with task_succeeded.connected_to(note, shop):
        for app in (shop, blog):
            with app.app_context():
                background(int).join(WAIT)

    assert heard == [shop]
