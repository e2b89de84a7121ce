"""The end of an app or a process: tasks are finished in time, or abandoned by name."""

import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from flask_asok import FlaskAsok, TaskAbandoned, background
from flask_asok.backends import shutdown
from flask_asok.signals import task_abandoned, task_retried, task_succeeded

WAIT = 10
ONE_THREAD = {"default": 1}


def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asok-default-")]


def fail():
    raise ValueError("no stock")


def test_close_drains(make_app):
    """Closing finishes what is queued and running, and ends the threads."""
    app = make_app(ASOK_QUEUES={"default": 30})
    start = threading.Event()

    with app.app_context():
        tasks = [background(start.wait, WAIT) for _ in range(100)]
        start.set()
        FlaskAsok().close(app)

    assert {each.state for each in tasks} == {"succeeded"}
    assert workers() == []


def test_close_finishes_the_tasks_of_threads_just_started(make_app):
    """A thread that starts while the app closes gets to finish its task too."""
    for _ in range(20):
        app = make_app(ASOK_QUEUES={"default": 30})
        with app.app_context():
            tasks = [background(int) for _ in range(60)]
            FlaskAsok().close(app)

        assert {each.state for each in tasks} == {"succeeded"}


def test_close_abandons_what_takes_too_long(make_app, gate, caplog, busy):
    """What is not finished in time is abandoned, and logged by name and id."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    with app.app_context(), busy(gate) as (running,):
        queued = background.using(name="letter")(int)
        delayed = background.using(name="reminder", delay=60)(int)
        FlaskAsok().close(app, timeout=0.01)
        states = running.state, queued.state, delayed.state
        late = "not finished 0.01 s after the shutdown began."

        assert states == ("abandoned", "abandoned", "abandoned")
        assert caplog.messages == [
            f"Background task reminder ({delayed.id}) abandoned while waiting: the application shuts down.",
            f"Background task letter ({queued.id}) abandoned while queued: {late}",
            f"Background task hold ({running.id}) abandoned while running: {late}",
        ]
        with pytest.raises(TaskAbandoned, match="Task letter was abandoned: its process ended or was forked"):
            queued.result(0)


def test_abandoned_stays_abandoned(make_app, gate, busy):
    """The outcome of an abandoned task comes too late to change anything."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    abandoned = []

    def listen(sender, task):
        abandoned.append(task)

    with app.app_context(), task_abandoned.connected_to(listen, app), busy(gate) as (running,):
        FlaskAsok().close(app, timeout=0)
    for thread in threading.enumerate():
        if thread.name == "asok-default-1":
            thread.join(WAIT)

    assert running.state == "abandoned"
    assert abandoned == [running]


def test_close_names_what_is_between_two_attempts(make_app, gate, caplog, busy):
    """A task whose attempt has just failed, while those that are told of it still work, is abandoned by name too."""
    app = make_app(ASOK_QUEUES={"default": 2})
    told, others = threading.Event(), threading.Event()

    def wait(sender, task, **_):
        told.set()
        others.wait(WAIT)

    def listen(sender, task):
        others.set()

    task_retried.connect(wait, app)
    task_abandoned.connect(listen, app)
    with app.app_context(), busy(gate) as (running,):
        failing = background.using(name="letter", retries=1, backoff=3600)(fail)
        assert told.wait(WAIT)
        FlaskAsok().close(app, timeout=0.01)
        states = running.state, failing.state
        lines = list(caplog.messages)

    assert states == ("abandoned", "abandoned")
    assert lines[-1] == f"Background task letter ({failing.id}) abandoned while waiting: the application shuts down."


def test_close_names_all_before_it_waits_for_a_receiver(make_app, gate, monkeypatch):
    """What is left in any queue is named before the end waits for a thread that still tells a receiver of its task."""
    app = make_app()
    monkeypatch.setattr(shutdown, "SETTLE_SECONDS", 2 * WAIT)
    told, named, begun = threading.Event(), threading.Event(), threading.Event()
    answers = []

    def wait(sender, task):
        told.set()
        answers.append(named.wait(WAIT))

    def listen(sender, task):
        named.set()

    def hold():
        begun.set()
        gate.wait(WAIT)

    with app.app_context(), task_succeeded.connected_to(wait, app), task_abandoned.connected_to(listen, app):
        background(int)
        assert told.wait(WAIT)
        running = background.using(queue="mail")(hold)
        assert begun.wait(WAIT)
        FlaskAsok().close(app, timeout=0)

    assert running.state == "abandoned"
    assert answers == [True]


def test_after_close_the_caller_runs(make_app):
    """The caller waits for a task started after the end, on a queue that was never used too; no worker is started."""
    app = make_app()
    FlaskAsok().close(app)
    FlaskAsok().close(app)

    with app.app_context():
        late = background(threading.current_thread)

    assert late.result(0).name == "asok-default"
    assert not late.result(0).is_alive()
    assert workers() == []


@pytest.mark.parametrize("used", [False, True], ids=["unused queue", "used queue"])
def test_no_retry_after_close(make_app, used):
    """A task that fails after the end is not retried, but abandoned."""
    app = make_app()
    with app.app_context():
        if used:
            background(int).join(WAIT)
        FlaskAsok().close(app)

        late = background.using(retries=1)(fail)

    assert late.state == "abandoned"


def test_no_delay_after_close(make_app, caplog):
    """A task with a delay that is started after the end is abandoned, by name: it must not run too early."""
    app = make_app()
    FlaskAsok().close(app)

    with app.app_context():
        late = background.using(delay=3600, timeout=60)(int)

    assert late.state == "abandoned"
    assert caplog.messages == [f"Background task int ({late.id}) abandoned while waiting: the application shuts down."]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("asok")] == []


def test_close_inside_a_task(make_app):
    """A task may close its app: it does not wait for itself."""
    app = make_app()

    with app.app_context():
        closing = background(FlaskAsok().close, app, 5)
        closing.join(WAIT)

    assert not closing.is_alive()


@pytest.mark.parametrize("waited_for", ["asok-default-1", "asok-scheduler"])
def test_interrupted_close(make_app, gate, monkeypatch, caplog, waited_for, busy):
    """Ctrl-C while the app closes abandons the rest at once, by name, and goes on up."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    join = threading.Thread.join

    def interrupted(self, timeout=None):
        if self.name == waited_for and self.is_alive():
            raise KeyboardInterrupt
        join(self, timeout)

    with app.app_context(), busy(gate) as (running,), monkeypatch.context() as patch:
        background.using(delay=0.001)(int).cancel()
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FlaskAsok().close(app, WAIT)

    assert running.state == "abandoned"
    assert caplog.messages == [
        f"Background task hold ({running.id}) abandoned while running: the shutdown was interrupted."
    ]


def test_interrupted_close_names_what_is_between_two_attempts(make_app, gate, monkeypatch, caplog):
    """So does a task whose retry is still told of: it is named, though nothing is waited for any more."""
    app = make_app()
    told = threading.Event()

    def wait(sender, task, **_):
        told.set()
        gate.wait(WAIT)

    join = threading.Thread.join

    def interrupted(self, timeout=None):
        if self.name.startswith("asok"):
            raise KeyboardInterrupt
        join(self, timeout)

    with app.app_context(), task_retried.connected_to(wait, app), monkeypatch.context() as patch:
        failing = background.using(retries=1, backoff=3600)(fail)
        assert told.wait(WAIT)
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FlaskAsok().close(app, WAIT)
        state, line = failing.state, caplog.messages[-1]

    assert state == "abandoned"
    assert line == f"Background task fail ({failing.id}) abandoned while waiting: the application shuts down."


AT_EXIT = """
import logging, sys, threading
from flask import Flask
from flask_asok import FlaskAsok, background

app = Flask("shop")
app.config.update(ASOK_SHUTDOWN_TIMEOUT=float(sys.argv[1]))
FlaskAsok(app)
gate = threading.Event()

def ship(seconds):
    gate.wait(seconds)
    print("shipped", flush=True)

with app.app_context():
    task = background(ship, float(sys.argv[2]))
    background.using(delay=60, name="reminder")(print)
app.test_request_context().push()
held = background.using(when="response", name="letter")(print)
print(task.id)
"""


@pytest.mark.parametrize(("limit", "seconds", "shipped"), [("20", "0.1", True), ("0.1", "60", False)])
def test_at_exit(limit, seconds, shipped):
    """A process that ends finishes its tasks within the limit, and names those that it abandons."""
    ended = subprocess.run(
        [sys.executable, "-c", AT_EXIT, limit, seconds], capture_output=True, text=True, timeout=50, check=True
    )

    assert ("shipped" in ended.stdout) is shipped
    assert "Background task reminder" in ended.stderr
    assert "Background task letter" in ended.stderr
    assert ("Background task ship (" + ended.stdout.split()[0] in ended.stderr) is not shipped


@pytest.mark.parametrize(
    ("timeout", "error"), [("5", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_bad_timeout_of_close(make_app, timeout, error):
    """A timeout of `close` that is no number of seconds is refused, and nothing is closed."""
    app = make_app()

    with pytest.raises(error, match="timeout must"):
        FlaskAsok().close(app, timeout)
    with app.app_context():
        assert background(threading.current_thread).result(WAIT).name == "asok-default-1"


@pytest.mark.parametrize("timeout", [1e300, timedelta(days=100_000_000)])
def test_endless_timeout_of_close(make_app, timeout):
    """However long the end may take, the application closes once its tasks are done."""
    app = make_app(ASOK_SHUTDOWN_TIMEOUT=timeout)

    with app.app_context():
        task = background(int)
        FlaskAsok().close(app)

    assert task.result(0) == 0
