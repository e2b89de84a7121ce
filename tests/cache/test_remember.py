"""One load per missing key, nobody waiting at expiry, and the old value while the loader fails."""

import logging
import threading
import time

import pytest
from flask import Flask

from flask_asok import Cache, QueueFull, background
from flask_asok.recipes.cache.lifetime import Lifetime
from flask_asok.recipes.cache.loader import Loader
from flask_asok.recipes.cache.stores.lru_store import LRUStore
from flask_asok.signals import task_failed, task_succeeded
from flask_asok.state import state_of
from flask_asok.testing.doubles import distribute

cache = Cache()


class CountedLoad:
    """Counts its calls, returns their number, and waits at a gate while it is shut."""

    def __init__(self):
        self.calls = 0
        self.error = None
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self):
        self.calls += 1
        call = self.calls
        self.entered.release()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return call


@pytest.fixture
def loader():
    loader = CountedLoad()
    yield loader
    loader.gate.set()


@pytest.fixture
def settled():
    """Wait until a background refresh has ended, well or not."""
    ended = threading.Semaphore(0)

    def release(app, task, **kwargs):
        if task.name == "refresh_cache":
            ended.release()

    task_succeeded.connect(release)
    task_failed.connect(release)
    yield lambda: ended.acquire(timeout=10)
    task_succeeded.disconnect(release)
    task_failed.disconnect(release)


def in_threads(app, count, call):
    """Start `count` threads at once, each in an app context of its own; return them and the list of what they get."""
    results = []
    barrier = threading.Barrier(count)

    def run():
        with app.app_context():
            barrier.wait(10)
            try:
                results.append(call())
            except Exception as error:
                results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def join(threads):
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_loads_once(app, loader):
    """A missing value is loaded; one that is there is not."""
    with app.app_context():
        values = [cache.remember("a", loader) for _ in range(3)]

        assert values == [1, 1, 1]
        assert loader.calls == 1


def test_none_is_remembered(app):
    """A loader that returns None is not called again."""
    calls = []
    with app.app_context():
        for _ in range(3):
            assert cache.remember("nobody", lambda: calls.append(1)) is None

    assert len(calls) == 1


def test_first_value_is_the_later_one(redis_app):
    """The reader that loads gets what later readers get: a tuple is a list for both."""
    with redis_app.app_context():
        first = cache.remember("pair", lambda: (1, 2))

        assert first == [1, 2]
        assert cache.get("pair") == first


def test_cold_key(app, loader):
    """However many ask for a missing value at once, it is loaded once, and all of them get it."""
    loader.gate.clear()
    threads, results = in_threads(app, 32, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)

    loader.gate.set()
    join(threads)

    assert results == [1] * 32
    assert loader.calls == 1


def test_loader_error(app, loader):
    """What the loader raises reaches the reader, nothing is stored, and the next reader tries again."""
    loader.error = LookupError("no database")
    with app.app_context():
        with pytest.raises(LookupError, match="no database"):
            cache.remember("a", loader)
        loader.error = None

        assert cache.remember("a", loader) == 2


def test_loader_error_for_all(memory_app, loader):
    """The readers that wait for a load get its error as well, without a load each."""
    loader.error = LookupError("no database")
    loader.gate.clear()
    threads, results = in_threads(memory_app, 8, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)
    loader.gate.set()
    join(threads)

    assert all(isinstance(result, LookupError) for result in results)


def test_exit_in_loader(memory_app, loader):
    """A reader that is told to exit while it loads leaves nobody waiting: another one loads."""
    entered, leave = threading.Event(), threading.Event()

    def exit_when_told():
        entered.set()
        assert leave.wait(10)
        raise SystemExit

    def first():
        with memory_app.app_context(), pytest.raises(SystemExit):
            cache.remember("a", exit_when_told)

    leader = threading.Thread(target=first)
    leader.start()
    assert entered.wait(10)
    threads, results = in_threads(memory_app, 4, lambda: cache.remember("a", loader))

    leave.set()
    join([leader, *threads])

    assert results == [1] * 4


def test_reads_itself(memory_app):
    """A loader that reads its own key is an error at once, and no wait for itself."""
    with memory_app.app_context(), pytest.raises(RuntimeError, match="the key that it loads"):
        cache.remember("a", lambda: cache.remember("a", lambda: 1))


def test_load_type(memory_app):
    """A loader that was called already is an error that names the mistake."""
    with memory_app.app_context(), pytest.raises(TypeError, match="loader must be a function"):
        cache.remember("a", 5)


def test_stuck_loader(make_app, loader):
    """Nobody waits for a stuck loader longer than ASOK_CACHE_LOCK_TIMEOUT."""
    app = make_app(ASOK_CACHE_LOCK_TIMEOUT=0.05)
    loader.gate.clear()
    threads, _ = in_threads(app, 1, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)

    with app.app_context():
        started = time.monotonic()
        value = cache.remember("a", lambda: "mine")

    assert value == "mine"
    assert time.monotonic() - started < 5
    loader.gate.set()
    join(threads)
    with app.app_context():
        assert cache.get("a") == "mine"


def test_stale_value_at_once(app, clock, loader, settled):
    """Past its ttl a value is served at once, and loaded anew in the background."""
    with app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        loader.gate.clear()
        clock.advance(11)

        assert cache.remember("a", loader, ttl=10, stale=60) == 1

        loader.gate.set()
        assert settled()
        assert cache.remember("a", loader, ttl=10, stale=60) == 2


def test_one_refresh(app, clock, loader, settled):
    """However many read a stale value, one refresh is done."""
    with app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
    loader.gate.clear()
    clock.advance(11)

    threads, results = in_threads(app, 16, lambda: cache.remember("a", loader, ttl=10, stale=60))
    join(threads)
    loader.gate.set()
    assert settled()

    assert results == [1] * 16
    assert loader.calls == 2


def test_stale_window_ends(app, clock, loader):
    """Past the stale window there is no value."""
    with app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)

        clock.advance(71)

        assert cache.remember("a", loader, ttl=10, stale=60) == 2


def test_get_is_fresh(app, clock):
    """get gives fresh values only."""
    with app.app_context():
        cache.set("a", 1, ttl=10, stale=60)

        clock.advance(11)

        assert cache.get("a") is None
        assert not cache.has("a")
        assert cache.get_many("a") == {}


def test_refresh_fails(memory_app, clock, loader, settled, caplog):
    """While the loader fails the old value is served, the failure logged with the key, and the loader left alone."""
    with memory_app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)
        loader.error = LookupError("no database")

        values = [cache.remember("a", loader, ttl=10, stale=60)]
        assert settled()
        values += [cache.remember("a", loader, ttl=10, stale=60) for _ in range(5)]

    assert values == [1] * 6
    assert loader.calls == 2
    assert "Background task refresh_cache failed: LookupError('no database')" in caplog.text
    assert "The stale value of 'asok-cache:a' is served; the next try is 5 seconds away." in caplog.text


def test_cool_down(make_app, clock, loader, settled):
    """The cooldown after a failed refresh doubles with each failure, up to a minute, and is forgotten on success."""
    app = make_app()
    state_of(app).shared("cache", lambda: Loader(LRUStore(clock=clock), clock=clock))
    with app.app_context():
        cache.remember("a", loader, ttl=10, stale=1_000)
        clock.advance(11)
        loader.error = LookupError()
        for seconds in (5, 10, 20, 40, 60, 60):
            cache.remember("a", loader, ttl=10, stale=1_000)
            assert settled()
            tried = loader.calls
            clock.advance(seconds - 0.1)
            cache.remember("a", loader, ttl=10, stale=1_000)
            clock.advance(0.2)
            assert loader.calls == tried
        loader.error = None
        cache.remember("a", loader, ttl=10, stale=1_000)
        assert settled()
        clock.advance(11)
        loader.error = LookupError()
        cache.remember("a", loader, ttl=10, stale=1_000)
        assert settled()
        tried = loader.calls
        clock.advance(5.1)

        cache.remember("a", loader, ttl=10, stale=1_000)

        assert settled()
        assert loader.calls == tried + 1


def test_refresh_inline_without_app(clock, loader):
    """A Cache with a store of its own, outside of an application, refreshes in the reader's thread."""
    own = Cache(LRUStore(clock=clock))
    own.remember("a", loader, ttl=10, stale=60)
    clock.advance(11)

    assert own.remember("a", loader, ttl=10, stale=60) == 1
    assert own.get("a") == 2


def test_refresh_inline_without_extension(clock, loader):
    """So it does on an app that has no Flask-Asok."""
    own = Cache(LRUStore(clock=clock))
    with Flask("bare").app_context():
        own.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)

        assert own.remember("a", loader, ttl=10, stale=60) == 1
        assert own.get("a") == 2


def test_refresh_inline_fails(clock, loader, caplog):
    """There too a failing loader is logged, and the old value served."""
    own = Cache(LRUStore(clock=clock))
    own.remember("a", loader, ttl=10, stale=60)
    clock.advance(11)
    loader.error = LookupError("no database")

    with caplog.at_level(logging.ERROR, "asok.cache"):
        value = own.remember("a", loader, ttl=10, stale=60)

    assert value == 1
    assert "Refresh of 'asok-cache:a' failed, its stale value is served" in caplog.text


def test_refresh_queue_full(make_app, clock, loader, gate):
    """When no task is accepted the old value is served, and the next reader tries again."""
    app = make_app(ASOK_QUEUES={"cache": 1}, ASOK_MAX_QUEUED=1, ASOK_QUEUE_FULL="raise")
    state_of(app).shared("cache", lambda: Loader(LRUStore(clock=clock)))
    entered = threading.Event()

    def block():
        entered.set()
        assert gate.wait(10)

    with app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)
        blocking = background.using(queue="cache")
        waiting = [blocking(block)]
        assert entered.wait(10)
        waiting.append(blocking(block))
        with pytest.raises(QueueFull):
            blocking(block)

        assert cache.remember("a", loader, ttl=10, stale=60) == 1

        assert not cache._find_loader()._cooldowns
        assert loader.calls == 1
        gate.set()
        for task in waiting:
            task.join(10)


def test_refresh_where_tasks_travel(memory_app, clock, loader):
    """Where tasks run in other processes, which may not find the loader, the first reader refreshes."""
    distribute(memory_app)
    with memory_app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)

        assert cache.remember("a", loader, ttl=10, stale=60) == 1
        assert cache.get("a") == 2


def test_refresh_while_loading(memory_app, clock, loader, settled):
    """A refresh that finds a load of the key under way leaves it to that."""
    with memory_app.app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)
        loader.gate.clear()
        threads, _ = in_threads(memory_app, 1, lambda: cache.warm("a", loader))
        assert loader.entered.acquire(timeout=10)
        assert loader.entered.acquire(timeout=10)

        assert cache.remember("a", lambda: pytest.fail("loaded twice"), ttl=10, stale=60) == 1

        assert settled()
        loader.gate.set()
        join(threads)
        assert cache.get("a") == 2


def test_refresh_elsewhere(make_app, redis, clock, loader, settled):
    """A value that another process refreshes is served, and not loaded here as well."""
    apps = [make_app(CACHE_REDIS_URL=redis.url) for _ in range(2)]
    for app in apps:
        with app.app_context():
            cache._find_loader().store._clock = clock
    with apps[0].app_context():
        cache.remember("a", loader, ttl=10, stale=60)
        clock.advance(11)
        loader.gate.clear()
        cache.remember("a", loader, ttl=10, stale=60)
    assert loader.entered.acquire(timeout=10)
    assert loader.entered.acquire(timeout=10)

    with apps[1].app_context():
        assert cache.remember("a", lambda: pytest.fail("loaded twice"), ttl=10, stale=60) == 1
        assert settled()

    loader.gate.set()
    assert settled()
    with apps[1].app_context():
        assert cache.get("a") == 2


def test_many_failing_keys(clock, loader, monkeypatch):
    """What is remembered of failed refreshes is bounded."""
    monkeypatch.setattr("flask_asok.recipes.cache.loader.MOST_COOLDOWNS", 3)
    own = Loader(LRUStore(clock=clock), clock=clock)
    loader.error = LookupError()
    for number in range(10):
        key = str(number)
        own.write(key, 1, Lifetime(10, 1_000))
    for number in range(10):
        clock.advance(11)
        own.remember(str(number), loader, Lifetime(10, 1_000))

    assert loader.calls == 10
    assert len(own._cooldowns) <= 3


def test_set_beats_load(app, loader):
    """A value that is set while another one is loaded stays."""
    loader.gate.clear()
    threads, _ = in_threads(app, 1, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)
    with app.app_context():
        cache.set("a", "set")
        loader.gate.set()
        join(threads)

        assert cache.get("a") == "set"


def test_delete_beats_load(app, loader):
    """A value that is loaded while its key is deleted is not stored."""
    loader.gate.clear()
    threads, _ = in_threads(app, 1, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)
    with app.app_context():
        cache.delete("a")
        loader.gate.set()
        join(threads)

        assert not cache.has("a")


def test_clear_beats_load(app, loader):
    """A value that is loaded while the cache is cleared is not stored."""
    loader.gate.clear()
    threads, _ = in_threads(app, 1, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)
    with app.app_context():
        cache.clear()
        loader.gate.set()
        join(threads)

        assert not cache.has("a")


def test_reader_after_delete(app, loader):
    """A read after a delete gets a value that was loaded after it, though an older load is in progress."""
    loader.gate.clear()
    threads, _ = in_threads(app, 1, lambda: cache.remember("a", loader))
    assert loader.entered.acquire(timeout=10)
    with app.app_context():
        cache.delete("a")

        assert cache.remember("a", lambda: "new") == "new"

        loader.gate.set()
        join(threads)
        assert cache.get("a") == "new"
