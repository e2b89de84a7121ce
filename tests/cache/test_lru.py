"""The store in memory: its bound, which value leaves first, and what it costs to be full."""

import threading
import time

import pytest

from flask_asok import Cache
from flask_asok.recipes.cache import LRUStore
from flask_asok.recipes.cache.lifetime import Lifetime

HOUR = Lifetime(3600, 0)


@pytest.fixture
def small(clock):
    return LRUStore(3, clock=clock)


def keys(store):
    return set(store._values)


def test_bound(small):
    """It never holds more than its size."""
    for number in range(100):
        small.write(str(number), number, HOUR)

    assert len(small) == 3
    assert keys(small) == {"97", "98", "99"}


def test_least_recently_used_leaves(small):
    """The value that was not read for the longest time leaves first."""
    for key in "abc":
        small.write(key, key, HOUR)
    small.read("a")
    small.write("b", "again", HOUR)

    small.write("d", "d", HOUR)

    assert keys(small) == {"a", "b", "d"}


def test_never_expiring_stays(small):
    """A value that never expires leaves no sooner than another."""
    small.write("forever", 1, Lifetime(float("inf"), 0))
    small.write("b", 1, HOUR)
    small.read("forever")
    small.write("c", 1, HOUR)
    small.write("d", 1, HOUR)

    assert "forever" in keys(small)


def test_expired_is_dropped(small, clock):
    """A value that is past its time is dropped when it is asked for."""
    small.write("a", 1, Lifetime(10, 5))
    clock.advance(16)

    assert small.read("a") is None
    assert len(small) == 0


def test_by_reference():
    """What comes out is the object that went in, not a copy."""
    value = [1]
    cache = Cache(LRUStore())
    cache.set("a", value)

    assert cache.get("a") is value


def test_size():
    """A size below 1 is a ValueError."""
    with pytest.raises(ValueError, match="1 or more"):
        LRUStore(0)


def test_configured_size(make_app):
    """CACHE_THRESHOLD is the number of values."""
    app = make_app(CACHE_THRESHOLD=2)
    cache = Cache()
    with app.app_context():
        cache.set_many({"a": 1, "b": 2, "c": 3})

        assert cache.get_many("a", "b", "c") == {"b": 2, "c": 3}


def test_full_is_not_slow():
    """A set on a full store of 50,000 takes no longer than one on an empty one: microseconds, not milliseconds."""
    store = LRUStore(50_000)
    for number in range(50_000):
        store.write(str(number), number, HOUR)

    started = time.thread_time()
    for number in range(50_000, 51_000):
        store.write(str(number), number, HOUR)
    spent = time.thread_time() - started

    assert spent / 1_000 < 0.000_1


def test_nothing_is_remembered_of_loads(small):
    """When no load is in flight nothing is kept but the values."""
    token = small.begin_load("a", alone=True, seconds=1).token
    other = small.begin_load("b", alone=True, seconds=1).token
    small.end_load("a", token, 1, HOUR)
    small.abort_load("b", other)
    third = small.begin_load("c", alone=True, seconds=1).token
    small.delete("c")

    assert small.end_load("c", third, 1, HOUR).name == "SUPERSEDED"
    assert small._loads._tokens == {}


def test_finalizer_that_uses_the_cache():
    """A value that leaves may use the cache as it does."""
    store = LRUStore(1)

    class Value:
        def __del__(self):
            store.read("other")

    store.write("a", Value(), HOUR)
    done = threading.Event()

    def replace():
        store.write("b", 1, HOUR)
        done.set()

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()

    assert done.wait(10)
    thread.join(10)


def test_many_threads():
    """Under many threads no read is torn, and the bound holds."""
    store = LRUStore(50)
    wrong = []

    def work(seed):
        for number in range(3_000):
            key = str((number * seed) % 97)
            if number % 3:
                entry = store.read(key)
                if entry is not None and entry[0] != key:
                    wrong.append(entry)
            elif number % 7:
                store.write(key, key, HOUR)
            else:
                store.delete(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert wrong == []
    assert len(store) <= 50
