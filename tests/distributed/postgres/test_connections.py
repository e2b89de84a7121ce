"""What a process keeps open to PostgreSQL."""

import os
from concurrent.futures import ThreadPoolExecutor

import jobs
import pytest

from flask_asok import BackendUnavailable, background
from flask_asok.backends.postgres.process_worker import ProcessWorker

POOL = 2


@pytest.fixture
def config(postgres_config):
    # It looks for tasks by itself too seldom to be of any help here.
    settings = {"dead_after": 3, "pool": POOL, "poll": 60}
    return {**postgres_config, "NAME": f"open{os.urandom(4).hex()}", "ASOK_POSTGRES": settings}


def test_connections_of_a_worker(ctx, config, start_worker, postgres, wait_until):
    """A worker of all queues keeps its pool and two connections, on one of which it hears of every queue."""
    url = f"{config['ASOK_POSTGRES_URL']}?application_name={ctx.name}"
    start_worker({**config, "ASOK_POSTGRES_URL": url}, "--concurrency", "4")
    queues = list(ctx.extensions["asok"].backend.queues)
    of_worker = "FROM pg_stat_activity WHERE application_name = %s"
    listens = f"SELECT query {of_worker} AND state = 'idle' AND query ~ '^LISTEN'"

    wait_until(lambda: f":{queues[-1]}" in str(postgres.execute(listens, [ctx.name])), what="the last LISTEN")
    tasks = [background.using(queue=queue)(jobs.add, number) for number in range(10) for queue in queues]
    ended = [task.result(30) for task in tasks]

    assert ended == [number for number in range(10) for _ in queues]
    assert len(postgres.execute(listens, [ctx.name])) == 1
    assert len(postgres.execute(f"SELECT pid {of_worker}", [ctx.name])) <= POOL + 2


def test_their_name(ctx):
    """Who looks at the server's connections sees which are ours."""
    store = ctx.extensions["asok"].backend.hub.store

    assert store.rows("SELECT current_setting('application_name')") == [("flask_asok",)]


CLASH = """
CREATE SEQUENCE clashes;
CREATE FUNCTION clash(most bigint, code text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('clashes') <= most THEN RAISE EXCEPTION USING ERRCODE = code; END IF;
    RETURN currval('clashes');
END;
$$
"""


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_clash(ctx, postgres, code):
    """A statement that clashes with another transaction is run again; without an end it is BackendUnavailable."""
    store = ctx.extensions["asok"].backend.hub.store
    postgres.execute("DROP FUNCTION IF EXISTS clash; DROP SEQUENCE IF EXISTS clashes", database="distributed")
    postgres.execute(CLASH, database="distributed")

    assert store.rows("SELECT clash(3, %(code)s)", code=code) == [(4,)]
    with pytest.raises(BackendUnavailable):
        store.rows("SELECT clash(1000, %(code)s)", code=code)


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_level_of_the_database(postgres, close, level):
    """Whatever level a database gives to transactions, calls and workers clash with nobody."""
    name = postgres.database("levels")
    app = jobs.create_app(NAME="levels", ASOK_BACKEND="postgres", ASOK_POSTGRES_URL=postgres.url(name))
    with app.app_context():
        backend = app.extensions["asok"].backend
        backend.set_up_tables()
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
        worker = ProcessWorker(backend.hub, backend.worker, {tuple(backend.hub.store.lines.values()): 4})
        worker.start("worker", ["default"])

        def call():
            with app.app_context():
                return [background(jobs.add, number).result(60) for number in range(20)]

        with ThreadPoolExecutor(8) as callers:
            ended = [callers.submit(call) for _ in range(8)]
        worker.close(10)
    close(app)

    assert [one.result() for one in ended] == [list(range(20))] * 8
