"""A thousand calls of one transaction: each runs once if that is committed, and none if it is not."""

import os

import jobs
import pytest
from jobs import Purchase, database, lines

from flask_asok import background

CALLS = 1_000


@pytest.fixture
def config(postgres, shop_database):
    return {
        "NAME": f"thousand{os.urandom(4).hex()}",
        "ASOK_BACKEND": "postgres",
        "SQLALCHEMY_DATABASE_URI": postgres.url(shop_database, "postgresql+psycopg"),
    }


@pytest.fixture
def ctx(config, close):
    app = jobs.create_app(**config)
    with app.app_context():
        yield app
        database.session.remove()
        database.engine.dispose()
    close(app)


def test_a_thousand(ctx, config, start_worker, tmp_path, wait_until, rows, jobs_of):
    """What is rolled back never runs, a savepoint's tasks neither; what is committed runs, each call once."""
    path = tmp_path / "runs"

    def call(what, calls=CALLS):
        database.session.add(Purchase(text=what))
        database.session.flush()
        return [background(jobs.count_runs, path, f"{what}{number}") for number in range(calls)]

    rolled_back = call("rolled-back")
    database.session.rollback()
    left = rows(ctx), jobs_of(ctx)
    savepoint = database.session.begin_nested()
    of_savepoint = call("savepoint", 10)
    savepoint.rollback()
    call("committed")
    database.session.commit()
    start_worker(config, "--concurrency", "4")
    wait_until(lambda: len(lines(path)) >= CALLS, 60, "the last run")
    wait_until(lambda: not jobs_of(ctx), 10, "the end of the last task")

    assert left == ([], 0)
    assert {task.state for task in [*rolled_back, *of_savepoint]} == {"cancelled"}
    assert sorted(lines(path)) == sorted(f"committed{number}" for number in range(CALLS))
    assert rows(ctx) == ["succeeded"] * CALLS
