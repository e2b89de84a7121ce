"""What a process keeps open to PostgreSQL."""

import os

import jobs
import pytest

from flask_asok import background

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
