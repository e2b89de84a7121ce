"""Handles on tasks whose records are gone: removed by hand, discarded, or lost with the store's file."""

import os
import threading

import pytest
import redis

from flask_asok import FlaskAsok, ResultNotKept, TaskAbandoned, background
from flask_asok.sharing import open_store
from flask_asok.store.base import Record

WAIT = 10
ID = "a" * 32

asok = FlaskAsok()


@pytest.fixture(params=["memory", "file", "redis"])
def app(request, make_app, tmp_path):
    """An application on each store in turn, in its context."""
    if request.param == "redis":
        port = request.getfixturevalue("redis_port")
        with redis.Redis(port=port) as client:
            client.flushall()
        where = f"redis://127.0.0.1:{port}"
    else:
        where = {"memory": "memory", "file": str(tmp_path / "asok.sqlite3")}[request.param]
    app = make_app(ASOK_STORE=where)
    with app.app_context():
        yield app


@pytest.fixture
def file_app(make_app, tmp_path):
    """An application whose store is a file, in its context."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        yield app


def join(handle):
    """Join the handle without a limit, in a thread of its own, which is returned."""
    thread = threading.Thread(target=handle.join, daemon=True)
    thread.start()
    return thread


def test_discarded(app):
    """A handle whose record is discarded is abandoned and says why, and join() ends."""
    store = open_store(app)
    store.add(Record(id=ID, name="work", queue="default", state="running", claim=1, enqueued=1.0, owner=store.me))
    handle = asok.get(ID)
    waiting = join(handle)

    store.settle(ID, 1, "succeeded")
    store.discard(ID)
    waiting.join(WAIT)

    assert not waiting.is_alive()
    if handle.state == "abandoned":  # and not seen between the two
        assert handle.error == "its record is gone from the store"
        with pytest.raises(TaskAbandoned, match=r"Task work was abandoned: its record is gone from the store\."):
            handle.result(WAIT)
    assert asok.get(ID) is None


def test_discarded_unseen(app):
    """So is one that nothing has looked at since."""
    store = open_store(app)
    store.add(Record(id=ID, name="work", queue="default", state="running", claim=1, enqueued=1.0, owner=store.me))
    handle = asok.get(ID)
    store.settle(ID, 1, "succeeded")
    store.discard(ID)

    assert not handle.is_alive()
    assert (handle.state, handle.error) == ("abandoned", "its record is gone from the store")
    assert handle.finished_at is not None
    assert not handle.cancel()
    with pytest.raises(TaskAbandoned, match=r"Task work was abandoned: its record is gone from the store\."):
        handle.result(WAIT)


def test_file_deleted(file_app, make_app, tmp_path, gate):
    """With the store's file every other process loses sight of a task, and its handles there end."""
    task = background.using(tracked=True)(gate.wait, WAIT)
    other = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with other.app_context():
        handle = asok.get(task.id)
        waiting = join(handle)

        os.unlink(tmp_path / "asok.sqlite3")
        waiting.join(WAIT)

        assert not waiting.is_alive()
        assert handle.as_dict()["state"] == "abandoned"
    gate.set()
    assert task.result(WAIT) is True


def test_file_deleted_in_its_own_process(file_app, tmp_path):
    """In the process that runs the task a handle goes on to tell how that does, and ends with it."""
    entered, gate = threading.Event(), threading.Event()

    def work():
        entered.set()
        return gate.wait(WAIT)

    task = background.using(tracked=True)(work)
    handle = asok.get(task.id)
    assert entered.wait(WAIT)
    os.unlink(tmp_path / "asok.sqlite3")
    running = (handle.state, handle.attempts, handle.is_alive())

    gate.set()
    handle.join(WAIT)

    assert running == ("running", 1, True)
    assert (handle.state, handle.error) == ("succeeded", None)
    assert task.result(WAIT) is True
    with pytest.raises(ResultNotKept, match="its record is gone from the store"):
        handle.result(WAIT)
