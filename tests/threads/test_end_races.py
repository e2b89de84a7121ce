"""The end of an app while other threads start tasks or workers: nothing is forgotten."""

import threading

import pytest

from flask_asok import FlaskAsok, Retry, background
from flask_asok.backends import scheduler as scheduler_module
from flask_asok.signals import task_abandoned

WAIT = 10
ONE_THREAD = {"default": 1}


def test_close_waits_for_a_thread_that_is_being_started(make_app, monkeypatch):
    """Closing while another thread is starting a worker waits for that worker and its task."""
    app = make_app()
    start, entered, go = threading.Thread.start, threading.Event(), threading.Event()

    def slow_start(self):
        if self.name == "asok-default-1":
            entered.set()
            go.wait(WAIT)
        start(self)

    def call():
        with app.app_context():
            tasks.append(background(int))

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    tasks = []
    caller = threading.Thread(target=call)
    caller.start()
    entered.wait(WAIT)
    closer = threading.Thread(target=FlaskAsok().close, args=(app, WAIT))
    closer.start()
    go.set()
    caller.join(WAIT)
    closer.join(WAIT)

    assert tasks[0].state == "succeeded"


def test_close_names_what_no_thread_has_taken_yet(make_app, gate, monkeypatch, caplog):
    """While a worker starts another one, which may take long, the task that it will run is not forgotten."""
    app = make_app(ASOK_QUEUES={"default": 2})
    start, begun, entered, go = threading.Thread.start, threading.Event(), threading.Event(), threading.Event()

    def hold():
        begun.set()
        gate.wait(WAIT)

    def slow_start(self):
        if self.name == "asok-default-2":
            entered.set()
            go.wait(WAIT)
        start(self)

    def no_start(self):
        if self.name == "asok-default-2":
            raise RuntimeError("can't start new thread")
        start(self)

    with app.app_context():
        held = background(hold)
        assert begun.wait(WAIT)
        monkeypatch.setattr(threading.Thread, "start", no_start)
        tasks = [background(int), background(int)]
        monkeypatch.setattr(threading.Thread, "start", slow_start)
        gate.set()
        entered.wait(WAIT)
        FlaskAsok().close(app, timeout=0.01)
        states = held.state, *(task.state for task in tasks)
        go.set()

    assert states == ("succeeded", "abandoned", "abandoned")
    assert len(caplog.messages) == 2


def test_abandoned_on_its_first_step(make_app, monkeypatch):
    """A task that is abandoned when its attempt is just about to begin is not begun, and stays abandoned."""
    app = make_app()
    ran = []

    class Busy(dict):
        """The attempts that are under way; an end of the app comes right after one is noted."""

        def __setitem__(self, task, context):
            super().__setitem__(task, context)
            backend.abandon(task, "the application shuts down")

    backend = app.extensions["asok"].backend
    monkeypatch.setattr(backend.runner("default"), "running", Busy())
    with app.app_context():
        plain = background(ran.append, 1)
        plain.join(WAIT)
        tracked = background.using(tracked=True)(ran.append, 2)
        tracked.join(WAIT)
        FlaskAsok().close(app, WAIT)
        stored = FlaskAsok().get(tracked.id)

    assert (plain.state, tracked.state, stored.state) == ("abandoned",) * 3
    assert (plain.attempts, ran) == (0, [])


def test_retry_during_close(make_app, gate):
    """A running task that asks for a retry while the app closes is abandoned."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    cancelled = threading.Event()

    def ask():
        gate.wait(WAIT)
        raise Retry

    def closing(sender, task):
        cancelled.set()

    with app.app_context(), task_abandoned.connected_to(closing, app):
        asking = background.using(retries=1)(ask)
        waiting = background.using(delay=60)(int)
        closer = threading.Thread(target=FlaskAsok().close, args=(app, WAIT))
        closer.start()
        # The waiting task is abandoned first of all: from then on the app is closing.
        cancelled.wait(WAIT)
        gate.set()
        closer.join(WAIT)

    assert (asking.state, waiting.state) == ("abandoned", "abandoned")


def test_delayed_during_close(make_app, monkeypatch):
    """A delayed task whose caller found the app still open, while another thread closes it, is abandoned, not lost."""
    app = make_app()
    at, entered, go = scheduler_module.Scheduler.at, threading.Event(), threading.Event()

    def slow_at(*args, **kwargs):
        entered.set()
        go.wait(WAIT)
        at(*args, **kwargs)

    def call():
        with app.app_context():
            tasks.append(background.using(delay=60)(int))

    def closing(sender, task):
        if task is waiting:
            # The app has just looked for tasks that wait.
            go.set()
            caller.join(WAIT)

    tasks = []
    caller = threading.Thread(target=call)
    with app.app_context(), task_abandoned.connected_to(closing, app):
        waiting = background.using(delay=60)(int)
        monkeypatch.setattr(scheduler_module.Scheduler, "at", slow_at)
        caller.start()
        entered.wait(WAIT)
        FlaskAsok().close(app, WAIT)

    assert tasks[0].state == "abandoned"


@pytest.mark.parametrize("options", [{}, {"delay": 60}], ids=["worker", "scheduler"])
def test_close_meets_a_thread_on_its_first_steps(make_app, monkeypatch, options):
    """A thread that runs already, but is not yet known to be started, cannot be joined; closing the app still works."""
    app = make_app()
    set_, entered, go = threading.Event.set, threading.Semaphore(0), threading.Semaphore(0)
    called, closed = threading.Event(), threading.Event()

    def slow_set(self):
        if threading.get_ident() not in known:
            entered.release()
            go.acquire(timeout=WAIT)
        set_(self)

    def call():
        called.wait(WAIT)
        with app.app_context():
            tasks.append(background.using(**options)(int))

    def close():
        closed.wait(WAIT)
        FlaskAsok().close(app, WAIT)
        ended.append(True)

    tasks, ended = [], []
    caller, closer = threading.Thread(target=call), threading.Thread(target=close)
    caller.start()
    closer.start()
    # Those that other tests have left among them, which are not to be held.
    known = {thread.ident for thread in threading.enumerate()}
    monkeypatch.setattr(threading.Event, "set", slow_set)
    called.set()
    entered.acquire(timeout=WAIT)
    closed.set()
    closer.join(0.05)
    # Several threads may be held by then.
    go.release(100)
    caller.join(WAIT)
    closer.join(WAIT)

    assert ended == [True]
    assert tasks[0].state == ("abandoned" if options else "succeeded")
