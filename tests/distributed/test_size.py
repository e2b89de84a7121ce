"""How large a call and its result may be."""

import contextlib

import jobs
import pytest
import redis as redis_py

from flask_asok import BackendUnavailable, FlaskAsok, background
from flask_asok.rooms import SETTINGS

ON_POSTGRES = True

asok = FlaskAsok()


@pytest.fixture
def config(redis):
    return {
        # A worker without this limit would take its tasks.
        "NAME": "sized",
        "ASOK_MESSAGE_MAX_BYTES": 100_000,
        "ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url},
    }


def test_default():
    """It is 8 MiB."""
    assert {one.name: one.default for one in SETTINGS}["ASOK_MESSAGE_MAX_BYTES"] == 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: background(jobs.echo, 1, "x" * 100_000), "argument 2 of echo has 100,002"),
        (lambda: background(jobs.echo, text=["x" * 60_000, b"x" * 40_000]), "argument 'text' of echo has 113,"),
        (lambda: background.using(when="response")(jobs.echo, "é" * 20_000), "argument 1 of echo has 120,002"),
        (lambda: background.using(name="report")(jobs.echo, {"a": list(range(50_000))}), "argument 1 of report has"),
    ],
)
def test_too_large(app, call, named):
    """A larger call is a ValueError that names size and argument, and what to pass instead; nothing is left of it."""
    with app.test_request_context():
        before = [summary.id for summary in asok.tasks(limit=1)]

        with pytest.raises(ValueError, match=r"ASOK_MESSAGE_MAX_BYTES \(100,000\).* Pass a path or an id") as raised:
            call()

        assert named in str(raised.value)
        assert [summary.id for summary in asok.tasks(limit=1)] == before
        # It is no outage: the next call is taken.
        assert background.using(delay=60)(jobs.add, 1).state == "waiting"


def test_too_large_in_g(app):
    """Values of g count, and are named."""
    from flask import g

    with app.app_context():
        g.report = "x" * 100_000

        with pytest.raises(ValueError, match=r"g\.report has 100,002"):
            background(jobs.add, 1)


def test_large_enough(app):
    """What fits is sent."""
    with app.app_context():
        assert background.using(delay=60)(jobs.echo, "x" * 99_000).cancel()


def test_result_too_large(ctx):
    """A result that is larger is told of when it is asked for, and the task is not run again; so with an error."""
    with pytest.raises(ValueError, match=r"What multiply returned has 200,002 bytes, .* return its path or id"):
        background(jobs.multiply, "x", 200_000).result(20)
    task = background(jobs.fail_with, 200_000)
    assert str(task.exception(20)).startswith("ValueError(xxx")
    assert len(str(task.exception(20))) < 2_000


def test_refused_for_its_size(own_redis, redis, close):
    """A message that the broker does not take for its size does not close the queue for the others."""
    app = jobs.create_app(
        ASOK_MESSAGE_MAX_BYTES=10_000_000, ASOK_CELERY={"broker_url": own_redis.url, "result_backend": redis.url}
    )
    with redis_py.Redis(port=own_redis.port) as client:
        client.config_set("proto-max-bulk-len", "1mb")

    with app.app_context(), contextlib.closing(app.extensions["asok"]):
        with pytest.raises(BackendUnavailable):
            background(jobs.echo, "x" * 3_000_000)

        assert background(jobs.add, 1).cancel()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "8", None, True])
def test_wrong_limit(wrong):
    """The limit is a number of bytes."""
    with pytest.raises((TypeError, ValueError), match="ASOK_MESSAGE_MAX_BYTES"):
        jobs.create_app(ASOK_MESSAGE_MAX_BYTES=wrong)
