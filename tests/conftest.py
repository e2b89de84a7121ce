"""Applications to test with, and a watch for what a test leaves behind."""

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import flask.globals
import hypothesis
import pytest
from flask import Flask, has_app_context, has_request_context

from flask_asok import FlaskAsok, background

# By their paths, as the tests themselves are imported.
for name in ("chromium", "ports", "postgresql", "waiting"):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
chromium, ports, postgresql = (sys.modules[name] for name in ("chromium", "ports", "postgresql"))
axe, browser, serve = chromium.axe, chromium.browser, chromium.serve

# A property holds however busy the machine is.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

BACKENDS = {"threads": {}, "immediate": {}}
"""Each backend that the promises are proved on, with the configuration it needs."""


SLOW = {"servers", "distributed", "example"}
"""Folders whose tests start servers, workers or brokers: `-m "not slow"` leaves them out."""


def pytest_collection_modifyitems(items):
    """Mark the tests of the slow folders."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in SLOW:
            item.add_marker(pytest.mark.slow)


def asok_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("asok")]


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Let the servers of a test hear Ctrl-C, though a shell has had it ignored, as with `pytest &`."""
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if is_ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if is_ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Fail a test that leaves a thread of Flask-Asok or an application context behind."""
    yield
    pushed = has_app_context()
    while has_request_context() and not hasattr(flask.globals.app_ctx, "has_request"):
        # Before Flask 3.2 a request has a context of its own.
        flask.globals.request_ctx.pop()
    while has_app_context():
        flask.globals.app_ctx.pop()
    assert not pushed, "An application context is still pushed."
    deadline = time.monotonic() + 20
    while (threads := asok_threads()) and time.monotonic() < deadline:
        # The threads of an application that nobody holds any more leave by themselves. Again and again: a worker holds
        # the application a moment longer than a test waits for its task.
        gc.collect()
        threads[0].join(0.05)
    assert not asok_threads()


@pytest.fixture
def make_app(tmp_path):
    """Make applications with the configuration that a test needs; they are closed after it."""
    apps = []

    def make(name="shop", **config):
        # By default it would be a folder of the tree: a store that one test makes there, all others would find.
        app = Flask(name, instance_path=str(tmp_path / f"instance of {name}"))
        app.config.from_mapping(SECRET_KEY="a secret of the tests", **config)
        FlaskAsok(app)
        apps.append(app)
        return app

    yield make

    for app in apps:
        FlaskAsok().close(app, timeout=5)


@pytest.fixture(params=list(BACKENDS))
def backend(request):
    """The configuration that chooses a backend, each in turn."""
    return {"ASOK_BACKEND": request.param, **BACKENDS[request.param]}


@pytest.fixture
def app(make_app, backend):
    """An application on each backend in turn, for what must hold on all of them."""
    return make_app(**backend)


@pytest.fixture
def threads_app(make_app):
    """An application on the threads backend."""
    return make_app()


@pytest.fixture
def gate():
    """An Event that a task waits for; opened after the test, so that a failure does not leave the task behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def left_of():
    """Return what is left of the objects of weak references, once the threads that used them had the time to let go."""

    def left_of(references):
        deadline = time.monotonic() + 30
        while True:
            gc.collect()
            left = [reference() for reference in references if reference() is not None]
            if not left or time.monotonic() > deadline:
                return left
            left.clear()
            time.sleep(0.01)

    return left_of


@pytest.fixture
def occupy(gate):
    """Have a thread of the current application busy until the gate opens."""

    def occupy():
        started = threading.Event()

        def wait():
            started.set()
            gate.wait(10)

        background(wait)
        assert started.wait(10)

    return occupy


@pytest.fixture
def free_port():
    """A port for a server of the test's own."""
    return ports.free_port()


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """The port of a Redis for all tests of this session."""
    import redis

    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed.")
    port = ports.free_port()
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)) as client:
        client.ping()
    yield port
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL for all tests of this session."""
    server = postgresql.PostgreSQL()
    try:
        yield server.start()
    finally:
        server.close()
