"""The threads backend: bounds, what a raising task or receiver may not break, the end of an application."""

import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref

import pytest
from flask import Flask

from flask_asok import FlaskAsok, QueueFull, Retry, TaskAbandoned, TaskCancelled, background, current_task
from flask_asok.backends import pool as pool_module
from flask_asok.backends import scheduler as scheduler_module
from flask_asok.signals import task_abandoned, task_failed, task_queued, task_started, task_succeeded
from flask_asok.state import state_of

WAIT = 10
ONE_THREAD = {"default": 1}


@pytest.fixture
def quiet(monkeypatch):
    """Log nothing: pytest keeps every record, and with it the error."""
    monkeypatch.setattr(logging.getLogger("asok.background"), "disabled", True)


def workers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asok-default-")]


def fail():
    raise ValueError("no stock")


@contextlib.contextmanager
def busy(gate, count=1):
    """Hold `count` threads of the default queue, so that what follows stays queued."""
    started = threading.Barrier(count + 1)

    def hold():
        started.wait(WAIT)
        gate.wait(WAIT)

    tasks = [background(hold) for _ in range(count)]
    started.wait(WAIT)
    yield tasks
    gate.set()
    for each in tasks:
        each.join(WAIT)


# Threads come and go


def test_nothing_starts_at_init(make_app):
    """Setting an app up starts no thread; the first task of a queue does."""
    app = make_app()
    before = workers()

    with app.app_context():
        background(int).join(WAIT)

    assert before == []
    assert workers() == ["asok-default-1"]


def test_as_many_threads_as_the_queue_has(make_app, gate):
    """A queue runs as many tasks at once as it has threads, and no more."""
    app = make_app(ASOK_QUEUES={"default": 3})

    with app.app_context(), busy(gate, 3):
        fourth = background(int)
        states = fourth.state, len(workers())

    assert states == ("queued", 3)
    assert fourth.result(WAIT) == 0


def test_queues_do_not_wait_for_each_other(make_app, gate):
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


def test_dropped_apps_leave_nothing(caplog):
    """Apps that are made, used and dropped, as a test suite does, leave neither threads nor themselves behind."""

    def use():
        app = Flask("shop")
        app.config["ASOK_QUEUES"] = ONE_THREAD
        FlaskAsok(app)
        with app.app_context():
            background(int).join(WAIT)
        return weakref.ref(app)

    apps = [use() for _ in range(100)]
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("asok"):
            thread.join(WAIT)

    assert workers() == []
    assert [app() for app in apps if app() is not None] == []


def test_unused_apps_leave_nothing():
    """A thousand apps that started no task leave nothing behind either."""
    before = threading.active_count()
    apps = []
    for _ in range(1000):
        app = Flask("shop", static_folder=None)
        FlaskAsok(app)
        apps.append(weakref.ref(app))
    del app
    gc.collect()

    assert [app() for app in apps if app() is not None] == []
    assert threading.active_count() == before


def test_dropping_an_app_waits_for_no_thread(monkeypatch):
    """Where an app is dropped its threads are told to leave, and none is waited for: it may be a garbage collection."""
    join, waited_for = threading.Thread.join, []

    def listen(self, timeout=None):
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
        gc.collect()
        join(worker, WAIT)

    assert app() is None
    assert waited_for == []


def test_idle_threads_hold_no_app():
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
    gc.collect()

    assert [reference() for reference in references] == [None, None, None]


def test_no_thread_to_be_had(threads_app, monkeypatch):
    """Where the system gives no thread, the caller runs the task."""

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with threads_app.app_context():
        started = background(threading.get_ident)

    assert started.result(0) == threading.get_ident()


def test_no_more_threads_to_be_had(make_app, gate, monkeypatch):
    """Where the system gives no further thread, the ones there are run the task."""
    app = make_app(ASOK_QUEUES={"default": 2})

    def start(self):
        raise RuntimeError("can't start new thread")

    with app.app_context(), busy(gate):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
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


# Bounds


def test_full_queue_makes_the_caller_run(make_app, gate, caplog):
    """Past `ASOK_MAX_QUEUED` the caller runs the task itself, with a warning; nothing is lost."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=2)

    with app.app_context(), busy(gate):
        queued = [background(threading.get_ident) for _ in range(2)]
        own = [background(threading.get_ident) for _ in range(3)]
        settled = [each.result(0) for each in own]

    assert settled == [threading.get_ident()] * 3
    assert all(each.result(WAIT) != threading.get_ident() for each in queued)
    assert [record.getMessage() for record in caplog.records] == [
        "Queue 'default' holds 2 tasks (ASOK_MAX_QUEUED): background task get_ident runs in its caller."
    ]


def test_caller_runs_in_a_context_of_its_own(make_app, gate):
    """A task that its caller runs leaves no trace in the caller's context, nor sees its request."""
    from contextvars import ContextVar

    from flask import g, has_request_context

    color = ContextVar("color", default="red")
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1)

    def paint():
        color.set("blue")
        g.color = "blue"
        return has_request_context(), current_task() is not None

    with app.test_request_context(), busy(gate):
        background(int)
        seen = background(paint).result(0)

        assert seen == (False, True)
        assert (color.get(), "color" in g, current_task()) == ("red", False, None)


def test_full_queue_raises_where_asked(make_app, gate):
    """With `ASOK_QUEUE_FULL = "raise"` the call raises, and the refused task is cancelled."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1, ASOK_QUEUE_FULL="raise")

    with app.app_context(), busy(gate):
        first = background(int)
        with pytest.raises(QueueFull, match=r"holds 1 tasks \(ASOK_MAX_QUEUED\); task list was not accepted\."):
            background(list)
        states = [summary.state for summary in FlaskAsok().tasks()]

    assert states == ["running", "queued", "cancelled"]
    assert first.result(WAIT) == 0


def test_too_many_waiting(make_app):
    """Past `ASOK_MAX_WAITING` a delayed task is refused at the call."""
    app = make_app(ASOK_MAX_WAITING=2)

    accepted, refused = [], []

    with app.app_context():
        for _ in range(10):
            try:
                accepted.append(background.using(delay=60)(list))
            except QueueFull as error:
                refused.append(str(error))
        now = background(int)

    assert len(accepted) == 2
    assert {each.state for each in accepted} == {"waiting"}
    assert set(refused) == {
        "2 tasks wait for a delay or a retry already (ASOK_MAX_WAITING); task list was not accepted."
    }
    assert now.result(WAIT) == 0


def test_retries_pass_the_bounds(make_app, gate):
    """A retry that is due was accepted long ago: it is queued, however full the queue is."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1, ASOK_MAX_WAITING=1)
    failed, queued = threading.Event(), threading.Event()

    def flaky():
        if current_task().attempts == 1:
            failed.set()
            queued.wait(WAIT)
            raise Retry(after=0)
        return threading.get_ident()

    with app.app_context():
        first = background.using(retries=1)(flaky)
        failed.wait(WAIT)
        waiting = background.using(delay=60)(int)
        filling = background(int)
        queued.set()

        assert first.result(WAIT) != threading.get_ident()
        assert filling.result(WAIT) == 0
        assert waiting.cancel()


def test_waiting_tasks_hold_no_thread(make_app, quiet):
    """With one thread and 1,000 tasks that wait for a retry or a delay, a new task runs at once."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    with app.app_context():
        retried = [background.using(retries=1, backoff=3600)(fail) for _ in range(500)]
        delayed = [background.using(delay=3600)(int) for _ in range(500)]
        new = background(threading.get_ident)
        new.join(WAIT)

    assert new.state == "succeeded"
    assert {each.state for each in (*retried, *delayed)} == {"waiting"}
    for each in (*retried, *delayed):
        each.cancel()


def test_memory_stays_flat(make_app, gate, quiet):
    """However many tasks are offered to a full queue, no more than its bound are kept."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=10, ASOK_RECENT_TASKS=10)
    alive = weakref.WeakSet()
    done = []

    with app.app_context(), busy(gate):
        for _ in range(10_000):
            alive.add(background(done.append, 1))
        kept, ran = len(alive), len(done)
    FlaskAsok().close(app, WAIT)

    assert (kept, ran) == (10, 9_990)
    assert len(done) == 10_000


# What must not break the pool


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_any_error_in_a_task(make_app, caplog, error):
    """Whatever a task raises is logged and kept, and the pool goes on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom():
        raise error("boom")

    with app.app_context():
        failed = background(boom)
        after = background(int)

    assert isinstance(failed.exception(WAIT), error)
    assert after.result(WAIT) == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"Background task boom failed: {error.__name__}('boom')"
    ]


@pytest.mark.parametrize("signal", [task_started, task_succeeded], ids=lambda signal: signal.name)
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_receiver(make_app, caplog, signal, error):
    """A signal receiver that raises is logged; the other receivers, the task and the pool go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    heard = []

    def boom(sender, task):
        raise error("boom")

    def listen(sender, task):
        heard.append(task)

    with signal.connected_to(boom, app), signal.connected_to(listen, app), app.app_context():
        results = [background(int).result(WAIT), background(int).result(WAIT)]
        FlaskAsok().close(app, WAIT)

    assert results == [0, 0]
    assert len(heard) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"Receiver of {signal.name} failed: {error.__name__}('boom')"
    ] * 2


def test_raising_receiver_in_the_caller(threads_app, caplog):
    """A receiver of `task_queued` that raises does not keep the caller from going on."""

    def boom(sender, task):
        raise ValueError("boom")

    with task_queued.connected_to(boom, threads_app), threads_app.app_context():
        started = background(int)

    assert started.result(WAIT) == 0
    assert "Receiver of task-queued failed: ValueError('boom')" in caplog.text


def test_ctrl_c_in_a_receiver_of_the_caller(threads_app):
    """Ctrl-C in the main thread is never swallowed, in a receiver neither."""

    def interrupted(sender, task):
        raise KeyboardInterrupt

    with (
        threads_app.app_context(),
        task_queued.connected_to(interrupted, threads_app),
        pytest.raises(KeyboardInterrupt),
    ):
        background(int)


@pytest.mark.parametrize("signal", [task_started, task_succeeded, task_failed], ids=lambda signal: signal.name)
def test_ctrl_c_in_a_receiver_while_the_caller_runs(threads_app, signal):
    """Ctrl-C in a receiver, while the caller runs the task itself, goes up; the task has come to its end."""

    def interrupted(sender, task, **kwargs):
        tasks.append(task)
        raise KeyboardInterrupt

    tasks = []
    FlaskAsok().close(threads_app)
    with (
        threads_app.app_context(),
        signal.connected_to(interrupted, threads_app),
        pytest.raises(KeyboardInterrupt),
    ):
        background(fail if signal is task_failed else int)
    with contextlib.suppress(BaseException):
        tasks[0].result(WAIT)

    assert tasks[0].state == ("succeeded" if signal is task_succeeded else "failed")
    assert not tasks[0].is_alive()


class BoomHandler(logging.Handler):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error("boom")


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_handler(make_app, capfd, error):
    """A log handler that raises is told of on stderr; the task and the pool go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    handler = BoomHandler(error)
    logging.getLogger("asok.background").addHandler(handler)

    try:
        with app.app_context():
            failed = background(fail)
            after = background(int)
            failed.join(WAIT)
            after.join(WAIT)
    finally:
        logging.getLogger("asok.background").removeHandler(handler)

    assert isinstance(failed.exception(), ValueError)
    assert after.result() == 0
    assert f"Logging of a background task failed: {error.__name__}('boom')" in capfd.readouterr().err


class Unprintable(Exception):
    def __init__(self, error=ValueError):
        self.error = error

    def __repr__(self):
        raise self.error("boom")

    __str__ = __repr__


def test_ctrl_c_while_the_caller_logs(make_app):
    """Ctrl-C in the main thread goes up from a log handler or a repr() too."""
    app = make_app()
    handler = BoomHandler(KeyboardInterrupt)
    FlaskAsok().close(app)

    def boom():
        raise Unprintable(KeyboardInterrupt)

    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            background(boom)
        logging.getLogger("asok.background").addHandler(handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                background(fail)
            with pytest.raises(KeyboardInterrupt):
                background.using(retries=1)(fail)
        finally:
            logging.getLogger("asok.background").removeHandler(handler)

        assert [summary.state for summary in FlaskAsok().tasks()] == ["failed", "failed", "abandoned"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_repr(make_app, caplog, error):
    """An error or an argument whose repr() raises is logged all the same."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom(argument):
        raise argument

    with app.app_context():
        failed = background(boom, Unprintable(error))
        after = background(int)

    assert isinstance(failed.exception(WAIT), Unprintable)
    assert failed.summary.error == "<Unprintable whose repr() failed>"
    assert after.result(WAIT) == 0
    assert caplog.messages == ["Background task boom failed: <Unprintable whose repr() failed>"]


def test_raising_teardown(make_app, caplog):
    """An error in a teardown is logged and changes nothing about the task."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    main = threading.get_ident()

    @app.teardown_appcontext
    def boom(error):
        if threading.get_ident() != main:
            raise ValueError("boom")

    with app.app_context():
        results = [background(int).result(WAIT), background(int).result(WAIT)]

    assert results == [0, 0]
    assert caplog.messages == ["Teardown after background task int failed: ValueError('boom')"] * 2


def test_raising_push(make_app, caplog):
    """A context that cannot be entered fails the task, and no other."""
    from flask import appcontext_pushed

    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom(sender):
        raise ValueError("boom")

    with app.app_context():
        with appcontext_pushed.connected_to(boom, app):
            failed = background(int).exception(WAIT)
        after = background(int)

    assert repr(failed) == "ValueError('boom')"
    assert after.result(WAIT) == 0


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_raising_backoff(threads_app, caplog, error):
    """A backoff that raises ends the retries: the task fails with its own error."""

    def backoff(attempt):
        raise error("no such attempt")

    with threads_app.app_context():
        failed = background.using(retries=3, backoff=backoff)(fail)

    assert isinstance(failed.exception(WAIT), ValueError)
    assert failed.attempts == 1
    assert caplog.messages == [
        f"Backoff of background task fail failed: {error.__name__}('no such attempt')",
        "Background task fail failed: ValueError('no stock')",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_caller_goes_up(make_app, gate, error):
    """Ctrl-C and the server's SystemExit in a task that its caller runs settle it, and then go on up."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1)

    def interrupted():
        raise error

    with app.app_context(), busy(gate):
        background(int)
        with pytest.raises(error):
            background(interrupted)
        settled = FlaskAsok().tasks()[-1].state
        failed = background(fail)

    assert settled == "failed"
    assert isinstance(failed.exception(WAIT), ValueError)


# Cancelled


def test_cancelled_never_runs(make_app, gate):
    """A queued task that is cancelled never runs."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    ran = []

    with app.app_context(), busy(gate):
        queued = background(ran.append, 1)
        delayed = background.using(delay=0.001)(ran.append, 2)
        delayed_cancelled = delayed.cancel()
        queued_cancelled = queued.cancel()
    with app.app_context():
        background(int).join(WAIT)

    assert (queued_cancelled, delayed_cancelled) == (True, True)
    assert ran == []
    with pytest.raises(TaskCancelled, match="Task append was cancelled"):
        queued.result(0)


def test_cancel_races_with_the_worker(threads_app):
    """Of cancel() and the worker one wins: a task either ran or was cancelled, never both."""
    ran = []

    with threads_app.app_context():
        tasks = [(number, background(ran.append, number)) for number in range(500)]
        cancelled = {number for number, each in tasks if each.cancel()}
    FlaskAsok().close(threads_app, WAIT)

    assert cancelled.isdisjoint(ran)
    assert len(cancelled) + len(ran) == 500


@pytest.mark.parametrize("options", [{}, {"delay": 60}], ids=["now", "delayed"])
def test_cancelled_by_a_receiver(threads_app, options):
    """A receiver of `task_queued` may cancel the task: it stays cancelled."""

    def cancel(sender, task):
        task.cancel()

    with task_queued.connected_to(cancel, threads_app), threads_app.app_context():
        cancelled = background.using(**options)(int)

    assert cancelled.state == "cancelled"
    assert not cancelled.is_alive()


# The end


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


def test_close_abandons_what_takes_too_long(make_app, gate, caplog):
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


def test_close_names_what_no_thread_has_taken_yet(make_app, gate, monkeypatch, caplog):
    """While a worker starts another one, which may take long, the task that it will run is not forgotten."""
    app = make_app(ASOK_QUEUES={"default": 2})
    start, entered, go = threading.Thread.start, threading.Event(), threading.Event()

    def slow_start(self):
        if self.name == "asok-default-2":
            entered.set()
            go.wait(WAIT)
        start(self)

    def no_start(self):
        raise RuntimeError("can't start new thread")

    with app.app_context():
        held = background(gate.wait, WAIT)
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


def test_abandoned_stays_abandoned(make_app, gate):
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


def test_after_close_the_caller_runs(make_app):
    """A task started after the end runs in its caller, on a queue that was never used too, and starts no thread."""
    app = make_app()
    FlaskAsok().close(app)
    FlaskAsok().close(app)

    with app.app_context():
        late = background(threading.get_ident)

    assert late.result(0) == threading.get_ident()
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
    known = {threading.get_ident(), caller.ident, closer.ident}
    monkeypatch.setattr(threading.Event, "set", slow_set)
    called.set()
    entered.acquire(timeout=WAIT)
    closed.set()
    closer.join(0.05)
    go.release()
    caller.join(WAIT)
    closer.join(WAIT)

    assert ended == [True]
    assert tasks[0].state == ("abandoned" if options else "succeeded")


def test_close_inside_a_task(make_app):
    """A task may close its app: it does not wait for itself."""
    app = make_app()

    with app.app_context():
        closing = background(FlaskAsok().close, app, 5)
        closing.join(WAIT)

    assert not closing.is_alive()


@pytest.mark.parametrize("waited_for", ["asok-default-1", "asok-scheduler"])
def test_interrupted_close(make_app, gate, monkeypatch, caplog, waited_for):
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


@pytest.mark.parametrize(("limit", "seconds", "shipped"), [("10", "0.1", True), ("0.1", "5", False)])
def test_at_exit(limit, seconds, shipped):
    """A process that ends finishes its tasks within the limit, and names those that it abandons."""
    ended = subprocess.run(
        [sys.executable, "-c", AT_EXIT, limit, seconds], capture_output=True, text=True, timeout=30, check=True
    )

    assert ("shipped" in ended.stdout) is shipped
    assert "Background task reminder" in ended.stderr
    assert "Background task letter" in ended.stderr
    assert ("Background task ship (" + ended.stdout.split()[0] in ended.stderr) is not shipped


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(make_app, gate):
    """In a forked child the parent's tasks are abandoned and new ones run; the parent's go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    with app.app_context(), busy(gate) as (running,):
        queued = background(int)
        delayed = background.using(delay=3600)(int)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert [each.state for each in (running, queued, delayed)] == ["abandoned"] * 3
                running.join(0)
                assert background(os.getpid).result(WAIT) == os.getpid()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        states = [each.state for each in (running, queued, delayed)]
        delayed.cancel()

    assert status == 0
    assert states == ["running", "queued", "waiting"]
    assert queued.result(WAIT) == 0


# Memory


def test_ring_is_bounded(make_app):
    """Only the most recent tasks are remembered, and of those no argument, result or error object."""
    app = make_app(ASOK_RECENT_TASKS=2)

    with app.app_context():
        tasks = [background.using(name=name)(fail) for name in ("a", "b", "c")]
        for each in tasks:
            each.join(WAIT)
        recent = FlaskAsok().tasks()
        found = FlaskAsok().get(tasks[2].id)

        assert FlaskAsok().get(tasks[0].id) is None

    assert [summary.name for summary in recent] == ["b", "c"]
    assert (found.state, found.error, found.queue) == ("failed", "ValueError('no stock')", "default")


def test_timeouts_count_for_nothing(make_app):
    """A task with a timeout that is done long before it keeps no result alive and takes no place of one that waits."""
    app = make_app(ASOK_MAX_WAITING=2)

    class Report:
        pass

    with app.app_context():
        reports = [weakref.ref(background.using(timeout=600)(Report).result(WAIT)) for _ in range(3)]
        waiting = background.using(delay=600)(int)

        gc.collect()
        assert [report() for report in reports] == [None] * 3
        assert waiting.cancel()


def test_timeouts_of_tasks_that_are_over(make_app):
    """Nothing of a task that is over is kept until its timeout, however many there are."""
    app = make_app()
    timeouts = state_of(app).backend.timeouts

    with app.app_context():
        for _ in range(4):
            tasks = [background.using(timeout=3600)(int) for _ in range(scheduler_module.MOST_STALE)]
            for each in tasks:
                each.join(WAIT)
        del tasks, each
        FlaskAsok().close(app, WAIT)

    assert len(timeouts) == 0


def test_cancelled_tasks_make_room(make_app):
    """A waiting task that was cancelled gives its place to another one."""
    app = make_app(ASOK_MAX_WAITING=2)

    with app.app_context():
        for _ in range(2):
            assert background.using(delay=600)(int).cancel()

        waiting = background.using(delay=600)(int)

        assert waiting.state == "waiting"
        assert waiting.cancel()
