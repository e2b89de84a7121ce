"""The races between a write and the loads around it, and a fork among them."""

import os
import random
import signal
import sys
import threading
import time

import pytest

from flask_asok import Cache, background, cached, warm_cache
from flask_asok.recipes.cache.stores.lru_store import LRUStore

cache = Cache()


@pytest.fixture
def restless():
    """Threads change places two hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.000_025)
    yield
    sys.setswitchinterval(usual)


class Row:
    """A row in a database: each write gives it a new value, which every later read sees."""

    def __init__(self):
        self.value = 0
        self.lock = threading.Lock()

    def write(self):
        with self.lock:
            self.value += 1

    def load(self):
        value = self.value
        # Any time may pass between the query and the store.
        time.sleep(random.uniform(0, 0.0005))
        return value


def test_after_the_response(memory_app):
    """A warm that waits for the response or a commit is not settled by one that ran before that."""
    row = Row()

    @memory_app.get("/")
    def publish():
        later.append(background.using(when="response")(warm_cache, "a", row.load))
        assert background(warm_cache, "a", row.load).result(10) == 0
        row.write()
        return "published"

    later = []
    memory_app.test_client().get("/").close()

    assert later[0].result(10) == 1
    with memory_app.app_context():
        assert cache.get("a") == 1


def by_recipe(key, row):
    return background(warm_cache, key, row.load, ttl=300).join


def by_warm(key, row):
    def warm():
        cache.warm(key, row.load)

    return background(warm).join


def by_delete(key, row):
    """Delete, and let readers fill it again."""
    cache.delete(key)

    def read():
        cache.remember(key, row.load)

    return background(read).join


def by_cached(key, row):
    function = cached(f"{key}", cache=Cache(prefix="asok-cache:"))(row.load)
    function.delete()
    return background(function).join


@pytest.mark.parametrize("way", [by_recipe, by_warm, by_delete, by_cached])
def test_race(raced_app, way, restless):
    """After ten writes, each followed by a warm or a delete, while others read, the last value written is cached."""
    trials = 40 if raced_app.config.get("CACHE_REDIS_URL") else 100
    wrong = 0
    with raced_app.app_context():
        for trial in range(trials):
            key, row, waits = f"{way.__name__} {trial}", Row(), []

            def read(key=key, row=row):
                cache.remember(key, row.load)

            for _ in range(10):
                waits.append(background(read).join)
                row.write()
                waits.append(way(key, row))
            for wait in waits:
                wait(20)
            wrong += cache.remember(key, row.load) != row.value

    assert wrong == 0


def test_race_between_processes(make_app, redis, restless):
    """So it is when the writers and readers are two processes that share nothing but Redis."""
    # Two applications share no lock, no flight and no run: to each other they are two processes.
    apps = [make_app(name, CACHE_REDIS_URL=redis.url) for name in ("one", "two")]
    wrong = 0
    for trial in range(30):
        key, row, waits = f"trial {trial}", Row(), []

        def read(key=key, row=row):
            cache.remember(key, row.load)

        for number in range(10):
            with apps[number % 2].app_context():
                waits.append(background(read).join)
                row.write()
                waits.append(by_recipe(key, row) if number % 3 else by_delete(key, row))
        for wait in waits:
            wait(20)
        with apps[0].app_context():
            wrong += cache.remember(key, row.load) != row.value

    assert wrong == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork(gate):
    """A forked child waits for no load and no lock of its parent's threads, and keeps what is in a store of its own."""
    own = Cache(LRUStore())
    own.set("kept", 1)
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)

    def hold():
        with own._own_loader.store._lock:
            own.remember("a", slow)

    parent = threading.Thread(target=hold)
    parent.start()
    assert entered.wait(10)

    child = os.fork()
    if child == 0:
        right = own.get("kept") == 1 and own.remember("a", lambda: 2) == 2 and own.warm("a", lambda: 3) == 3
        os._exit(0 if right else 1)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        gate.wait(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    gate.set()
    parent.join(10)

    assert ended == (child, 0)
