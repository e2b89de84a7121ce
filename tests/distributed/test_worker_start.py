"""What a worker says at its start, and when it does not start at all. None of these starts one."""

import os

import jobs
import pytest

from flask_asok import NotConfigured, background
from flask_asok.backends.celery.checks import check_worker
from flask_asok.backends.celery.sweeper import Sweeper


@pytest.fixture
def make_app(close):
    """Make the application of a web process, or of a worker, which have the same name and the same Redis."""
    apps, name = [], f"jobs{os.urandom(4).hex()}"

    def make_app(url, **config):
        apps.append(jobs.create_app(name=name, ASOK_CELERY={"broker_url": url}, **config))
        return apps[-1]

    yield make_app
    for app in apps:
        close(app)


def check(app):
    check_worker(app.extensions["asok"].backend.hub)


def test_another_key(redis, make_app):
    """A worker whose key is not that of the web processes says so, takes nothing, and exits with 2."""
    web, worker = make_app(redis.url, SECRET_KEY="new"), make_app(redis.url, SECRET_KEY="dev")
    with web.app_context():
        task = background(jobs.add, 1)

    done = worker.test_cli_runner().invoke(args=["asok", "worker"])

    assert done.exit_code == 2
    assert "another SECRET_KEY than those that share its store of background tasks: it takes no task." in done.output
    assert web.extensions["asok"].backend.status()["queued"]["default"] == 1
    assert (task.state, task.error) == ("queued", None)


def test_rotated_key(redis, make_app, caplog):
    """A worker that has the new key and knows the old one may start while web processes still sign with the old."""
    web = make_app(redis.url, SECRET_KEY="old")
    with web.app_context():
        background(jobs.add, 1)

    check(make_app(redis.url, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]))
    with pytest.raises(NotConfigured):
        check(make_app(redis.url, SECRET_KEY="new"))


def test_no_tasks_yet(redis, make_app, caplog):
    """A worker that starts before the first task was sent, on a Redis that keeps what it is told, says nothing."""
    check(make_app(redis.url))

    assert caplog.messages == []


def test_no_persistence(own_redis_with, make_app, caplog):
    """A Redis that keeps no append-only file, or drops keys when it is full, is warned of."""
    own_redis = own_redis_with("--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")

    check(make_app(own_redis.url))

    assert [message[:75] for message in caplog.messages] == [
        "The Redis of background tasks keeps no append-only file: a restart loses th",
        "The Redis of background tasks drops keys when its memory is full (allkeys-l",
    ]


def test_upgrade(redis, make_app, caplog):
    """Where tasks wait that no worker of this release has ever looked at the operator is told to upgrade them all."""
    app = make_app(redis.url)
    backend = app.extensions["asok"].backend
    with app.app_context():
        background(jobs.add, 1)
        background.using(delay=60)(jobs.add, 2)

    with caplog.at_level("INFO"):
        check(app)
        Sweeper(backend.hub, backend.worker, ["default"]).look()
        check(app)

    told = [message for message in caplog.messages if "no worker of this release has seen" in message]
    assert [message[:13] for message in told] == ["2 tasks wait "]


def test_no_redis(close, caplog):
    """A worker that has RabbitMQ alone says what it cannot promise."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": "amqp://127.0.0.1:1//"})

    check(app)

    assert "No Redis keeps the tasks" in caplog.text
    close(app)


def test_redis_away(free_port, make_app, caplog):
    """A worker that starts before its Redis waits for it, and says so."""
    check(make_app(f"redis://127.0.0.1:{free_port}/0"))

    assert "cannot be used: 127.0.0.1" in caplog.text and "refused" in caplog.text
