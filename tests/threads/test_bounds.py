"""How many tasks a queue and the scheduler take, and what is done with one task more."""

import threading
import weakref
from types import SimpleNamespace

import pytest

from flask_asok import FlaskAsok, QueueFull, Retry, background, current_task
from flask_asok.backends import threads as threads_module

WAIT = 10
ONE_THREAD = {"default": 1}


def fail():
    raise ValueError("no stock")


def thread_name():
    return threading.current_thread().name


def test_full_queue_makes_the_caller_run(make_app, gate, caplog, busy, monkeypatch):
    """Past `ASOK_MAX_QUEUED` the caller waits for its task, with a warning a second; nothing is lost."""
    # However long the machine takes for the three of them.
    monkeypatch.setattr(threads_module, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=2)

    with app.app_context(), busy(gate):
        queued = [background(thread_name) for _ in range(2)]
        own = [background(thread_name) for _ in range(3)]
        settled = [each.result(0) for each in own]

    assert settled == ["asok-default"] * 3
    assert [each.result(WAIT) for each in queued] == ["asok-default-1"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "Queue 'default' holds 2 tasks (ASOK_MAX_QUEUED): background task thread_name runs in its caller."
    ]


def test_caller_runs_in_a_context_of_its_own(make_app, gate, busy):
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


def test_full_queue_raises_where_asked(make_app, gate, busy):
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


def test_memory_stays_flat(make_app, gate, quiet, busy):
    """However many tasks are offered to a full queue, no more than its bound are kept."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=10, ASOK_RECENT_TASKS=10)
    alive = weakref.WeakSet()
    done = []

    with app.app_context(), busy(gate):
        for _ in range(1_000):
            alive.add(background(done.append, 1))
        kept, ran = len(alive), len(done)
    FlaskAsok().close(app, WAIT)

    assert (kept, ran) == (10, 990)
    assert len(done) == 1_000
