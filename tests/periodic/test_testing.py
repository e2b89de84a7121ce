"""Periodic tasks in the tests of an application."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from flask_asok import FlaskAsok, background, current_task

asok = FlaskAsok()
seen = []


@asok.periodic(cron="0 3 * * *", tz="Europe/Berlin", name="nightly")
def nightly():
    seen.append(current_task().scheduled_at)
    return "done"


@asok.periodic(every=60, name="broken")
def broken():
    raise ValueError("no")


@pytest.fixture
def app():
    app = Flask(__name__)
    app.testing = True
    asok.init_app(app)
    seen.clear()
    yield app
    asok.close(app)


def test_run_periodic(app, asok_tasks):
    """`run_periodic` runs a periodic task for the tick that the test names, and returns it, settled."""
    tick = datetime(2026, 10, 25, 2, tzinfo=UTC)

    task = asok_tasks.run_periodic("nightly", tick)

    assert task.result() == "done"
    assert seen == [task.scheduled_at] == [tick]
    asok_tasks.assert_called(nightly)


def test_latest_tick(app, asok_tasks):
    """Without a tick it runs for the latest one."""
    asok_tasks.run_periodic("nightly")

    assert seen[0] <= datetime.now(UTC)
    # Of a day on which the clock is set back.
    assert datetime.now(UTC) - seen[0] < timedelta(hours=26)


def test_again(app, asok_tasks):
    """It may be run again and again; no clock runs in testing mode, and no file is made."""
    for _ in range(3):
        asok_tasks.run_periodic("nightly")
    app.test_client().get("/")

    assert len(seen) == 3
    assert len(asok_tasks.calls) == 3


def test_captured(app, asok_tasks):
    """One that is captured is kept until `run()`, as any other task."""
    asok_tasks.capture(nightly)

    task = asok_tasks.run_periodic("nightly")
    assert (task.state, seen) == ("queued", [])
    asok_tasks.run()

    assert task.state == "succeeded"


def test_expected_error(app, asok_tasks):
    """An error in it is expected as any other."""
    with asok_tasks.expect_error(ValueError):
        asok_tasks.run_periodic("broken")


def test_unknown(app, asok_tasks):
    """An unknown name is a ValueError that names those there are."""
    with pytest.raises(ValueError, match=r"There is no periodic task 'weekly'\. There are: nightly, broken\."):
        asok_tasks.run_periodic("weekly")


def test_by_itself(app, asok_tasks):
    """A test may also call the function, or start it as a task, as any other."""
    with app.app_context():
        task = background(lambda: 1)

    assert task.result(10) == 1
