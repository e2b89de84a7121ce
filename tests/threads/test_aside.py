"""A task that its caller, or a task that joins it, waits for runs beside that one: what a thread holds stays apart."""

import asyncio
import contextlib
import logging
import sys
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

from flask_asok import FlaskAsok, background, current_task
from flask_asok.backends.threads import MOST_NESTED
from flask_asok.signals import task_abandoned

WAIT = 10
ONE_THREAD = {"default": 1}


def join(fn):
    """Join a task that no worker is free for."""
    return background(fn).result(WAIT)


@pytest.fixture
def full_app(make_app, gate, busy):
    """An application whose queue is full, with its context."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1)
    with app.app_context(), busy(gate):
        background(int)
        yield app


@pytest.fixture
def closed_app(make_app):
    """An application that was closed, with its context."""
    app = make_app()
    FlaskAsok().close(app)
    with app.app_context():
        yield app


@pytest.fixture
def joining_app(make_app):
    """An application with one worker, with its context."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    with app.app_context():
        yield app


CALLS = pytest.mark.parametrize(
    ("place", "call"),
    [
        ("full_app", lambda fn: fn()),
        ("closed_app", lambda fn: fn()),
        ("joining_app", join),
    ],
    ids=["full queue", "after the end", "join in a task"],
)
"""How a task comes to run while `fn`, the function that starts it, waits for it."""


@CALLS
def test_session_of_a_thread(request, tmp_path, place, call):
    """The database session of the calling thread, as Flask's documentation sets it up, is not ended by the task."""
    app = request.getfixturevalue(place)
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    session = scoped_session(sessionmaker(bind=engine))
    app.teardown_appcontext_funcs.append(lambda error: session.remove())
    with engine.begin() as connection:
        connection.execute(text("create table orders (name text)"))

    def order():
        session.execute(text("insert into orders values ('mug')"))
        background(int).join(WAIT)
        session.commit()

    call(order)
    with engine.connect() as connection:
        orders = connection.execute(text("select name from orders")).scalars().all()
    session.remove()
    engine.dispose()

    assert orders == ["mug"]


async def answer():
    return 42


def run_loop():
    return asyncio.run(answer())


@CALLS
def test_event_loop_of_a_thread(request, place, call):
    """A task may run an event loop of its own, though its caller is a function that is `async`."""
    request.getfixturevalue(place)

    async def ask():
        return background(run_loop).result(WAIT)

    result = call(ask)

    assert (asyncio.run(result) if asyncio.iscoroutine(result) else result) == 42


def test_chain_on_a_full_queue(full_app, gate):
    """However long a chain in which each task starts the next one: a full queue loses none and holds few threads."""
    pages, threads, done = [], [], threading.Event()

    def save(page):
        pages.append(page)
        threads.append(threading.active_count())
        if page < 300:
            background(save, page + 1)
        else:
            done.set()

    before = threading.active_count()
    background(save, 1)
    ran = len(pages)
    gate.set()

    assert ran == MOST_NESTED
    assert done.wait(WAIT)
    assert pages == list(range(1, 301))
    assert max(threads) - before <= MOST_NESTED + 1


def test_endless_chain_at_the_end(closed_app, caplog):
    """A chain without an end is abandoned, by name, when the application has shut down."""
    pages = []

    def save():
        pages.append(current_task().id)
        return background(save)

    first = background(save)
    last = first
    while last.state == "succeeded":
        last = last.result(0)

    assert len(pages) == MOST_NESTED
    assert last.state == "abandoned"
    assert caplog.messages == [f"Background task save ({last.id}) abandoned while queued: the application shuts down."]


def test_many_joins_deep(joining_app):
    """Tasks that join each other hundreds deep come to their end."""

    def family(depth):
        return 1 if depth == 0 else 1 + background(family, depth - 1).result(WAIT)

    assert background(family, 200).result(WAIT) == 201


def test_join_at_the_recursion_limit(joining_app, monkeypatch):
    """A task that joins another one where Python allows no further call leaves none that seems to run for ever."""
    monkeypatch.setattr(logging.getLogger("asok.background"), "disabled", True)

    def join_below(started, calls):
        if calls:
            join_below(started, calls - 1)
        else:
            started.join(WAIT)

    def join_at_all_depths():
        joined = []
        for calls in range(sys.getrecursionlimit() - 60, sys.getrecursionlimit()):
            joined.append(background(int))
            with contextlib.suppress(RecursionError):
                join_below(joined[-1], calls)
        return joined

    joined = background(join_at_all_depths).result(WAIT)

    assert [each.result(WAIT) for each in joined] == [0] * 60


def test_ctrl_c_while_the_caller_waits(full_app, gate, monkeypatch):
    """Ctrl-C goes up at once from a call that waits for its task, which goes on."""
    begun = threading.Event()

    def hold():
        begun.set()
        gate.wait(WAIT)
        return "done"

    def interrupted(thread, timeout=None):
        begun.wait(WAIT)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            background(hold)
    task = FlaskAsok().get(FlaskAsok().tasks()[-1].id)
    state = task.state
    gate.set()

    assert state == "running"
    assert task.result(WAIT) == "done"


@pytest.fixture
def closing(monkeypatch):
    """Tell by an event when an application begins to close."""

    def closing(app):
        backend, event = app.extensions["asok"].backend, threading.Event()
        stop = backend.stop
        monkeypatch.setattr(backend, "stop", lambda: (stop(), event.set()))
        return event

    return closing


def test_close_waits_for_a_task_beside_another_one(make_app, gate, closing):
    """A task that runs beside one of another queue, which joins it, has its time when the application closes."""
    app = make_app(ASOK_QUEUES={"mail": 1, "default": 1})
    begun, abandoned, closes = threading.Event(), threading.Event(), closing(app)

    def slow():
        begun.set()
        closes.wait(WAIT)
        # Long enough for an abandoning that must not come.
        return abandoned.wait(0.3)

    def outer():
        return background.using(queue="mail")(slow).result(WAIT)

    with app.app_context(), task_abandoned.connected_to(lambda *_, **__: abandoned.set(), app):
        holding = background.using(queue="mail")(gate.wait, WAIT)
        task = background(outer)
        begun.wait(WAIT)
        gate.set()
        holding.join(WAIT)
        FlaskAsok().close(app, WAIT)

    assert task.result(0) is False


def test_close_beside_another_task(joining_app):
    """A task that closes its application waits for none that waits for it."""

    def outer():
        background(FlaskAsok().close, joining_app, WAIT).join(WAIT)

    background(outer).join(WAIT)
