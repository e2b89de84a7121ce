"""A value that is too large for Redis: it is not cached, and that is no outage."""

import contextlib
import logging
import socket
import threading

import pytest
from redis import Redis

from flask_asok import Cache

cache = Cache()

LARGE = "x" * 20_000_000


class SlowLine:
    """A line to a server that carries the first 500,000 bytes of a connection, and then nothing for a long time."""

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._open:
            end.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._carry, args=(source, target)))
                    self._threads[-1].start()

    def _carry(self, source, target):
        carried = 0
        with contextlib.suppress(OSError):
            while carried < 500_000 and (data := source.recv(65_536)):
                target.sendall(data)
                carried += len(data)


@pytest.fixture
def slow_port(own_redis):
    line = SlowLine(own_redis.port)
    yield line.port
    line.close()


@pytest.fixture(params=["takes too long", "is refused"])
def app(request, make_app, own_redis):
    """An application whose Redis is well, but not for values of megabytes."""
    port = own_redis.port
    if request.param == "takes too long":
        port = request.getfixturevalue("slow_port")
    else:
        # As every Redis does for half a gibibyte: it closes the connection.
        with Redis(port=port) as redis:
            redis.config_set("proto-max-bulk-len", "1mb")
    # Longer than by default: the line itself must answer in time, however busy the machine is.
    app = make_app(CACHE_REDIS_URL=f"redis://127.0.0.1:{port}/0", ASOK_CACHE_REDIS_TIMEOUT=2)
    with app.app_context():
        yield app


def logged(caplog):
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "asok.cache"]


def test_too_large(app, caplog):
    """It is told of by its key and size in one line, and other values are served and stored on."""
    assert cache.set_many({"small": 1, "report": "old"})

    for _ in range(2):
        assert not cache.set("report", LARGE)

    assert (cache.get("small"), cache.get("report")) == (1, None)
    assert cache.set("report", "new") and cache.get("report") == "new"
    ((level, text),) = logged(caplog)
    assert level == logging.WARNING
    assert text.startswith("'asok-cache:report' (20,000,002 bytes) cannot be cached")
    assert "ASOK_CACHE_REDIS_TIMEOUT" in text


def test_too_large_and_loaded(app, caplog):
    """remember and warm return what was loaded, and other values are served on."""
    cache.set("small", 1)

    assert cache.remember("report", lambda: LARGE) == LARGE
    assert cache.warm("report", lambda: LARGE) == LARGE

    assert cache.get("small") == 1
    assert [level for level, _ in logged(caplog)] == [logging.WARNING]


def test_silent(make_app, own_redis, caplog):
    """Where the server answers nothing at all it is an outage, whatever the size."""
    app = make_app(CACHE_REDIS_URL=own_redis.usual_url)
    with app.app_context():
        own_redis.freeze()

        assert not cache.set("report", LARGE)

    assert [level for level, _ in logged(caplog)] == [logging.ERROR]
