"""Records that somebody else has written, or spoilt: they are read as far as they go, and hide no other."""

import jobs
import pytest
import redis as redis_py

from flask_asok import FlaskAsok, background

asok = FlaskAsok()


@pytest.fixture
def config(redis):
    return {"ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url}}


@pytest.fixture
def client(redis):
    with redis_py.Redis(port=redis.port) as client:
        yield client


FIELDS = [
    {"attempts": "abc"}, {"attempts": ""}, {"attempts": "-1"}, {"attempts": "9" * 5_000},
    {"finished": "x"}, {"finished": "1e300"}, {"finished": "nan"}, {"enqueued": "yesterday"}, {"enqueued": "inf"},
    {"due": "soon"}, {"started": "me"}, {"deaths": ""}, {"outcome": "x"}, {"error": b"\xff"},
    {"progress": "x"}, {"progress": "9" * 5_000}, {"progress": "[0]"}, {"progress": '[-1, "x", 7, "now"]'},
    {"progress": "{}"}, {"progress": "[" * 5_000}, {"progress": "[1, null, null, 1e999]"}, {"stopping": "x"},
]  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("state", ["queued", "waiting", "failed", "succeeded", "lost", ""])
def test_fields(app, client, fields, state):
    """Nonsense in a field of a record breaks neither the task's state nor asok.get, asok.tasks and the commands."""
    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)
        client.hset(f"asok:jobs:task:{task.id}", mapping={"state": state, **fields})

        seen = asok.get(task.id)

        assert task.state in ("queued", "waiting", "running", "failed", "succeeded")
        assert seen is None or (seen.id == task.id and seen.enqueued_at and seen.attempts >= 0)
        assert task.id in [summary.id for summary in asok.tasks(limit=10_000)]
        assert task.is_alive() is (task.state not in ("failed", "succeeded"))
        task.cancel()
    for command in (["failed"], ["retry", task.id], ["cancel", task.id]):
        done = app.test_cli_runner().invoke(args=["asok", *command])
        assert done.exit_code in (0, 1), done.output
        assert isinstance(done.exception, (SystemExit, type(None)))


@pytest.mark.parametrize("missing", ["name", "queue", "enqueued", "attempts"])
def test_missing(app, client, missing):
    """So does a field that is not there: what is known is told."""
    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)
        client.hdel(f"asok:jobs:task:{task.id}", missing)

        seen = asok.get(task.id)

        assert seen.state == task.state == "waiting"
        assert seen.name == ("unknown" if missing == "name" else "add")
        assert task.cancel()


def spoil(client, key):
    client.delete(key)
    client.rpush(key, "something else")


def test_another_type(app, client):
    """What is no hash is no record: other failed tasks are listed, and the task goes on."""
    with app.app_context():
        task, failed = (background.using(delay=60)(jobs.add, 1) for _ in range(2))
        client.hset(f"asok:jobs:task:{failed.id}", "state", "failed")
        spoil(client, f"asok:jobs:task:{task.id}")

        assert asok.get(task.id).state == task.state == "waiting"
    listed = app.test_cli_runner().invoke(args=["asok", "failed"])
    assert listed.exit_code == 0
    assert failed.id in listed.output


def test_another_type_in_a_worker(app, worker, client, tmp_path):
    """A record that was overwritten keeps no other task from being sent when it is due."""
    with app.app_context():
        spoilt, late = (
            background.using(delay=600)(jobs.mark, tmp_path / "runs"),
            background.using(delay=600)(jobs.add, 1),
        )
        spoil(client, f"asok:jobs:task:{spoilt.id}")
        # Both are due, one after the other.
        client.zadd("asok:jobs:later", {spoilt.id: 1, late.id: 2})
        client.hset(f"asok:jobs:task:{late.id}", "due", 2)
        assert late.result(20) == 1

    assert jobs.lines(tmp_path / "runs") == []
