"""Workers and brokers that these tests may harm: each test has an application, and a name for it, of its own."""

import signal

import pytest


@pytest.fixture(params=["redis", "rabbitmq"])
def config(request, redis):
    """Redis takes a message back six seconds after its worker has gone silent: an hour would be long for a test."""
    if request.param == "rabbitmq":
        return {"ASOK_CELERY": {"broker_url": request.getfixturevalue("rabbitmq").url, "result_backend": redis.url}}
    options = {"visibility_timeout": 6, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    return {"ASOK_CELERY": {"broker_url": redis.url, "broker_transport_options": options}}


@pytest.fixture
def ctx(alone):
    return alone()


@pytest.fixture
def start(ctx, config, start_worker):
    """Start a worker of the test's application."""

    def start(*options):
        return start_worker({**config, "NAME": ctx.name}, *(options or ("--concurrency", "1")))

    return start


@pytest.fixture
def lose():
    """Kill a worker of an application, all its processes with -9, whose leases count as over at once."""

    def lose(worker, app):
        worker.tell_all(signal.SIGKILL)
        worker.process.wait(10)
        store = app.extensions["asok"].backend.hub.store
        for key in store.redis.scan_iter(store.key("process:*")):
            store.redis.delete(key)

    return lose
