"""Threads come with the tasks and leave when there are none."""

import gc
import threading
import weakref

import pytest
from flask import Flask

from flask_asok import FlaskAsok, TaskAbandoned, background
from flask_asok.backends import pool as pool_module
from flask_asok.backends import scheduler as scheduler_module

WAIT = 10
ONE_THREAD = {"default": 1}


def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asok-default-")]


def test_nothing_starts_at_init(make_app):
    """Setting an app up starts no thread; the first task of a queue does."""
    app = make_app()
    before = workers()

    with app.app_context():
        background(int).join(WAIT)

    assert before == []
    assert workers() == ["asok-default-1"]


def test_as_many_threads_as_the_queue_has(make_app, gate, busy):
    """A queue runs as many tasks at once as it has threads, and no more."""
    app = make_app(ASOK_QUEUES={"default": 3})

    with app.app_context(), busy(gate, 3):
        fourth = background(int)
        states = fourth.state, len(workers())

    assert states == ("queued", 3)
    assert fourth.result(WAIT) == 0


def test_queues_do_not_wait_for_each_other(make_app, gate, busy):
    """A queue that is stuck does not hold up another one."""
    app = make_app(ASOK_QUEUES={"default": 1, "mail": 1})

    with app.app_context(), busy(gate):
        mail = background.using(queue="mail")(int)

        assert mail.result(WAIT) == 0


def test_idle_threads_leave(make_app, monkeypatch):
    """A thread with nothing to do leaves after a while, and the next task starts one anew."""
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.01)
    app = make_app()

    with app.app_context():
        first = background(threading.current_thread).result(WAIT)
        first.join(WAIT)
        second = background(threading.current_thread).result(WAIT)

    assert not first.is_alive()
    assert second is not first


def test_idle_scheduler_leaves(make_app, monkeypatch):
    """So does the thread that waits for delays."""
    monkeypatch.setattr(scheduler_module, "IDLE_SECONDS", 0.01)
    app = make_app()

    def scheduler_thread():
        return next((thread for thread in threading.enumerate() if thread.name == "asok-scheduler"), None)

    with app.app_context():
        for _ in range(2):
            delayed = background.using(delay=0.01)(scheduler_thread)
            delayed.join(WAIT)
            if thread := scheduler_thread():
                thread.join(WAIT)

            assert delayed.state == "succeeded"
            assert scheduler_thread() is None


def test_many_callers(threads_app):
    """Tasks started from many threads at once all run, each once."""
    count = []
    start = threading.Barrier(8)

    def call():
        start.wait(WAIT)
        with threads_app.app_context():
            for _ in range(250):
                background(count.append, 1)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(WAIT)
    FlaskAsok().close(threads_app, WAIT)

    assert len(count) == 2000


def test_dropped_apps_leave_nothing(left_of):
    """Apps that are made, used and dropped, as a test suite does, leave neither threads nor themselves behind."""

    def use():
        app = Flask("shop")
        app.config["ASOK_QUEUES"] = ONE_THREAD
        FlaskAsok(app)
        with app.app_context():
            background(int).join(WAIT)
        return weakref.ref(app)

    apps = [use() for _ in range(100)]

    assert left_of(apps) == []
    for thread in threading.enumerate():
        if thread.name.startswith("asok"):
            thread.join(WAIT)
    assert workers() == []


def test_unused_apps_leave_nothing():
    """A thousand apps that started no task leave nothing behind either."""
    before = set(threading.enumerate())
    apps = []
    for _ in range(1000):
        app = Flask("shop", static_folder=None)
        FlaskAsok(app)
        apps.append(weakref.ref(app))
    del app
    gc.collect()

    assert [app() for app in apps if app() is not None] == []
    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= before


def test_dropping_an_app_waits_for_no_thread(monkeypatch, left_of):
    """Where an app is dropped its threads are told to leave, and none is waited for: it may be a garbage collection."""
    join, waited_for = threading.Thread.join, []

    def listen(self, timeout=None):
        if self.name.startswith("asok"):
            waited_for.append(self.name)
        join(self, timeout)

    def use():
        app = Flask("shop")
        FlaskAsok(app)
        with app.app_context():
            worker = background.using(timeout=60)(threading.current_thread).result(WAIT)
        return weakref.ref(app), worker

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", listen)
        app, worker = use()
        left = left_of([app])
        join(worker, WAIT)

    assert left == []
    assert waited_for == []


def test_idle_threads_hold_no_app(left_of):
    """While the threads of an app are idle, nothing of the library keeps the app, an argument or a result alive."""

    class Thing:
        pass

    def use():
        app, argument = Flask("shop"), Thing()
        FlaskAsok(app)
        with app.app_context():
            started = background(lambda _: Thing(), argument)
            result = weakref.ref(started.result(WAIT))
        started.join(WAIT)
        return weakref.ref(app), weakref.ref(argument), result

    references = use()

    assert left_of(references) == []


def test_no_thread_to_be_had(threads_app, no_threads):
    """Where the system gives no thread, the caller runs the task."""
    with threads_app.app_context(), no_threads():
        started = background(threading.get_ident)

    assert started.result(0) == threading.get_ident()


def test_no_more_threads_to_be_had(make_app, gate, no_threads, busy):
    """Where the system gives no further thread, the ones there are run the task."""
    app = make_app(ASOK_QUEUES={"default": 2})

    with app.app_context(), busy(gate):
        with no_threads():
            second = background(threading.current_thread)
        before = second.state
        gate.set()

        assert before == "queued"
        assert second.result(WAIT).name == "asok-default-1"


def test_no_thread_for_the_scheduler(threads_app, monkeypatch):
    """Where the system gives no thread to wait with, a delayed task is abandoned, by name, and a timeout unwatched."""
    start = threading.Thread.start

    def start_workers_only(self):
        if self.name == "asok-scheduler":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_workers_only)
    with threads_app.app_context():
        delayed = background.using(delay=60)(int)
        watched = background.using(timeout=60)(int)

        assert watched.result(WAIT) == 0
    with pytest.raises(TaskAbandoned):
        delayed.result(WAIT)
