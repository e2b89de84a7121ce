"""A PostgreSQL that hangs, and keeps its connections open: no call waits for it for ever."""

import os
import threading

import jobs
import psycopg
import pytest
from postgresql import PostgreSQL

from flask_asok import BackendUnavailable, background
from flask_asok.store.postgres import connections

POOL = 2


@pytest.fixture
def server():
    """A server of the test's own."""
    server = PostgreSQL().start()
    yield server
    server.close()


@pytest.fixture
def config(server):
    return {
        "NAME": f"hangs{os.urandom(4).hex()}",
        "ASOK_BACKEND": "postgres",
        "ASOK_POSTGRES_URL": server.url(server.database("hangs")),
        "ASOK_POSTGRES": {"dead_after": 3, "pool": POOL},
    }


@pytest.fixture
def hung_app(config, close):
    app = jobs.create_app(**config)
    with app.app_context():
        app.extensions["asok"].backend.set_up_tables()
        background.using(delay=60)(jobs.add, 1)
        yield app
    close(app)


def errors_of(call, count):
    """Make calls at once, each in a thread, and return what they raise."""
    raised = []

    def run():
        try:
            call()
        except BackendUnavailable as error:
            raised.append(str(error))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()]
    return raised


@pytest.fixture
def call(hung_app, monkeypatch):
    """A call in a thread, which has an open connection to begin with, and then no patience."""

    def call():
        with hung_app.app_context():
            background(jobs.add, 2)

    assert errors_of(call, POOL) == []
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.1)
    return call


def test_calls(call, server, wait_until):
    """Each call ends with BackendUnavailable; once it is over, calls are taken again."""
    with server.suspended():
        first, second = errors_of(call, POOL), errors_of(call, POOL)

    assert (len(first), len(second)) == (POOL, POOL)
    assert any("PostgreSQL cannot be used: the server has not answered for 1 s" in error for error in first)
    wait_until(lambda: errors_of(call, 1) == [], what="a call that is taken")


def test_locked(call, server, wait_until):
    """Where statements wait for a lock, calls that end without an answer take no more connections than the pool has."""
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flask_asok'"
    with psycopg.connect(server.url("hangs")) as locking:
        locking.execute("LOCK TABLE asok_tasks")
        errors = [errors_of(call, POOL) for _ in range(4)]

        assert [len(each) for each in errors] == [POOL] * 4
        assert server.execute(ours)[0][0] <= POOL
    wait_until(lambda: errors_of(call, 1) == [], what="a call that is taken")


def test_worker(hung_app, server, config, start_worker, wait_until):
    """A worker says that it hangs, and works on when that is over."""
    worker = start_worker(config, "--concurrency", "2").ready()
    assert background(jobs.add, 3).result(30) == 3

    with server.suspended():
        wait_until(lambda: "the server has not answered for 10 s" in worker.log(), 60, "the warning")

    assert background(jobs.add, 4).result(60) == 4
    assert worker.process.poll() is None
