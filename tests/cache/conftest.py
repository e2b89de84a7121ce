"""A real Redis, a clock that the test turns, and an application on each kind of store."""

import os
import shutil
import signal
import subprocess
import time

import flask_caching
import pytest
from ports import free_port

from flask_asok.recipes.cache import decorator
from flask_asok.recipes.cache.loader import Loader
from flask_asok.recipes.cache.stores.lru_store import LRUStore
from flask_asok.state import state_of


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class RedisServer:
    """A redis-server of the test's own, on a free port."""

    def __init__(self, folder):
        self.port = free_port()
        self._folder = folder
        self._process = None

    @property
    def url(self):
        """For a client that is patient: on a busy machine a healthy server may take longer than the usual timeout."""
        return f"{self.usual_url}?socket_timeout=20&socket_connect_timeout=20"

    @property
    def usual_url(self):
        """For a client with the usual timeout, to which a server that is frozen is an outage."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise RuntimeError(f"redis-server ended with {self._process.wait(5)}")

    def client(self, **options):
        """Return a client of redis-py; the test closes it."""
        from redis import Redis

        return Redis(port=self.port, **options)

    def stop(self):
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            self._process.stdout.close()
            self._process = None

    def freeze(self):
        """Make it silent: it accepts connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Make it answer again, with what it had."""
        self._process.send_signal(signal.SIGCONT)


def _new_server(folder):
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed.")
        pytest.skip("redis-server is not installed.")
    server = RedisServer(folder)
    server.start()
    return server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory):
    """One Redis for all tests that leave it running."""
    server = _new_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(shared_redis):
    """That Redis, empty."""
    with shared_redis.client() as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path):
    """A Redis that the test may kill."""
    server = _new_server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def eventually():
    """Wait until a condition is true: the test sees late what another process or a next try does."""

    def wait(condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline

    return wait


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has the cached functions that it defines, and no others."""
    monkeypatch.setattr(decorator, "_registered", {})


@pytest.fixture
def loads():
    return []


def _memory(make_app, clock, request):
    app = make_app()
    state_of(app).shared("cache", lambda: Loader(LRUStore(clock=clock)))
    return app


def _redis(make_app, clock, request):
    app = make_app(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=request.getfixturevalue("redis").url)
    return _with_clock(app, clock)


def _files(make_app, clock, request):
    app = make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(request.getfixturevalue("tmp_path")))
    return _with_clock(app, clock)


def _flask_caching(make_app, clock, request):
    app = make_app()
    flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    return _with_clock(app, clock)


def _with_clock(app, clock):
    from flask_asok import Cache

    with app.app_context():
        Cache()._find_loader().store._clock = clock
    return app


STORES = {"memory": _memory, "redis": _redis, "files": _files, "flask-caching": _flask_caching}


@pytest.fixture(params=list(STORES))
def app(request, make_app, clock):
    """An application on each kind of store in turn."""
    return STORES[request.param](make_app, clock, request)


@pytest.fixture(params=["memory", "redis"])
def raced_app(request, make_app, clock):
    """An application on each store that decides races between all processes that share it."""
    return STORES[request.param](make_app, clock, request)


@pytest.fixture
def memory_app(request, make_app, clock):
    return _memory(make_app, clock, request)


@pytest.fixture
def redis_app(request, make_app, clock):
    return _redis(make_app, clock, request)
