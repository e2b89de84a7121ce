"""Tasks whose threads write into the same store: none waits for a long one, and none keeps the others from running."""

import threading

import pytest

from flask_asok import background
from flask_asok.sharing import open_store

WAIT = 10

tracked = background.using(tracked=True)


@pytest.fixture
def app(make_app, tmp_path):
    """An application with a store on this machine and three threads, in its context."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), ASOK_QUEUES={"default": 3})
    with app.app_context():
        yield app


def test_long_ones_run_at_once(app):
    """As many run at once as the queue has threads."""
    together = threading.Barrier(3)

    tasks = [tracked(together.wait, WAIT) for _ in range(3)]

    assert sorted(task.result(WAIT) for task in tasks) == [0, 1, 2]


def test_many_short_ones(app):
    """All of them run, and so does a plain task behind them."""
    tasks = [tracked(int) for _ in range(200)]
    plain = background(int)

    assert {task.result(WAIT) for task in [*tasks, plain]} == {0}


def test_while_the_store_is_busy(app):
    """A task that waits for the store keeps none that comes later in the queue: a plain one runs at once."""
    with open_store(app).transaction():
        task = tracked(int)
        plain = background(int)

        assert plain.result(WAIT) == 0
    assert task.result(WAIT) == 0
