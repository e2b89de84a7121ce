"""However few rows there were when a connection made its plans, what it does to one row reads no table as a whole."""

import jobs
import psycopg
import pytest

from flask_asok import background
from flask_asok.backends.postgres import engine_statements as statements

ENGINE = ("procrastinate_jobs", "procrastinate_events", "procrastinate_periodic_defers")


@pytest.fixture
def config(postgres, postgres_config):
    """The tasks of a database of their own, where nobody else reads."""
    return {**postgres_config, "NAME": "plans", "ASOK_POSTGRES_URL": postgres.url(postgres.database("plans"))}


@pytest.fixture
def store(ctx):
    backend = ctx.extensions["asok"].backend
    backend.set_up_tables()
    return backend.hub.enter()


@pytest.fixture
def connect(config, store):
    """Open a connection without settings, as behind a pooler, and return what asks it; that notes who reads a table."""
    opened = []

    def connect(read):
        connection = psycopg.connect(config["ASOK_POSTGRES_URL"], autocommit=True, prepare_threshold=None)
        opened.append(connection)

        def scans():
            asked = "SELECT sum(pg_stat_get_xact_numscans(oid)) FROM pg_class WHERE relname = ANY(%s)"
            return connection.execute(asked, [[*ENGINE, "asok_tasks"]]).fetchone()[0]

        def ask(name, **values):
            with connection.transaction():
                before = scans()
                found = connection.execute(getattr(statements, name), store.bound(values))
                rows = found.fetchall() if found.description else []
                if scans() > before:
                    read.append(name)
            return rows

        return ask

    yield connect
    for connection in opened:
        connection.close()


def test_long_backlog(store, postgres, connect):
    """Tasks are sent, fetched and settled by the indexes."""
    read = []
    web, worker = connect(read), connect(read)

    def run(task):
        for _ in range(2):
            web("SEND", id=task.id)
        lines = [store.lines["default"]]
        ((_, _, _, args, attempt, _),) = worker("FETCH", lines=lines, worker=None, owner=store.me, claim=1)
        assert (args, attempt) == ({"id": task.id}, 1)
        worker("SETTLE", id=task.id, claim=1, state="succeeded", error="", traceback="", outcome=None)

    postgres.execute(f"VACUUM ANALYZE asok_tasks, {', '.join(ENGINE)}", database="plans")
    for _ in range(10):
        run(background(jobs.add, 1))
    for _ in range(2_000):
        background.using(queue="mail")(jobs.add, 1)
    task = background(jobs.add, 1)
    read.clear()

    run(task)

    assert read == []
