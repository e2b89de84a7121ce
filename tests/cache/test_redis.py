"""The store on Redis: what processes share, and what they find there."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cachelib
import flask_caching
import pytest

from flask_asok import Cache, FlaskAsok, background, warm_cache
from flask_asok.recipes.cache.stores.redis_store import LONGEST_LOAD

cache = Cache()


READER = Path(__file__).with_name("reader.py")


@contextlib.contextmanager
def reader(url, threads, way="load"):
    environ = {**os.environ, "PYTHONPATH": str(READER.parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(READER), url, str(threads), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_one_load_for_four_processes(redis):
    """A cold key that 8 threads in each of 4 processes ask for at once is loaded once."""
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reader(redis.url, 8)) for _ in range(4)]
        for process in readers:
            assert process.stdout.readline() == "ready\n"
        for process in readers:
            process.stdin.write("go\n")
            process.stdin.flush()
        reports = [json.loads(process.communicate(timeout=30)[0].splitlines()[-1]) for process in readers]

    assert sum(found["loads"] for found in reports) == 1
    assert [found["results"] for found in reports] == [["value"] * 8] * 4


def test_killed_holder(make_app, redis):
    """When the process that loads is killed, the waiting readers go on after the lock's timeout."""
    app = make_app(CACHE_REDIS_URL=redis.url, ASOK_CACHE_LOCK_TIMEOUT=0.5)
    with reader(redis.url, 1, "hang") as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "loading\n"
        process.kill()
        process.wait(10)

        with app.app_context():
            started = time.monotonic()
            value = cache.remember("cold", lambda: "mine")
            waited = time.monotonic() - started

    assert value == "mine"
    # The holder's lock is one of 10 seconds.
    assert 0.4 < waited < 5
    with app.app_context():
        assert cache.get("cold") == "mine"


def test_lock_runs_out(make_app, redis):
    """The lock of a killed process ends by itself, and then one reader loads for all."""
    apps = [make_app(CACHE_REDIS_URL=redis.url, ASOK_CACHE_LOCK_TIMEOUT=8) for _ in range(2)]
    loads = []
    with apps[0].app_context():
        cache._find_loader().store.begin_load("asok-cache:a", alone=True, seconds=0.2)

    def read(app):
        with app.app_context():
            cache.remember("a", lambda: loads.append(1))

    threads = [threading.Thread(target=read, args=(app,)) for app in apps for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(loads) == 1


def test_seen_by_another_app(make_app, redis):
    """What one process stores another one reads."""
    one, two = (make_app(CACHE_REDIS_URL=redis.url) for _ in range(2))
    with one.app_context():
        cache.set("a", [1, None, "ä"])

    with two.app_context():
        assert cache.get("a") == [1, None, "ä"]


def test_later_start_wins(make_app, redis):
    """Of two warms in two processes the one that started later is kept, whichever ends first."""
    one, two = (make_app(CACHE_REDIS_URL=redis.url) for _ in range(2))
    with one.app_context():
        store = cache._find_loader().store
    lifetime = cache_lifetime(one)
    earlier = store.begin_load("asok-cache:a", alone=False, seconds=30).token
    later = store.begin_load("asok-cache:a", alone=False, seconds=30).token

    with two.app_context():
        assert cache._find_loader().store.end_load("asok-cache:a", later, b'"later"', lifetime).name == "STORED"
    assert store.end_load("asok-cache:a", earlier, b'"earlier"', lifetime).name == "SUPERSEDED"

    with one.app_context():
        assert cache.get("a") == "later"


def test_earlier_start_stays_when_the_later_one_fails(make_app, redis):
    """A load that fails takes nothing from the one that began before it."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    lifetime = cache_lifetime(app)
    with app.app_context():
        store = cache._find_loader().store
        earlier = store.begin_load("asok-cache:a", alone=False, seconds=30).token
        later = store.begin_load("asok-cache:a", alone=False, seconds=30).token

        store.abort_load("asok-cache:a", later)

        assert store.end_load("asok-cache:a", earlier, b"1", lifetime).name == "STORED"
        assert cache.get("a") == 1


def cache_lifetime(app):
    with app.app_context():
        return cache.lifetime(300, 0)


def test_write_in_another_process_beats_load(make_app, redis, gate):
    """A set or delete in another process beats a load in flight here."""
    one, two = (make_app(CACHE_REDIS_URL=redis.url) for _ in range(2))
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)
        return "old"

    with one.app_context():
        warming = background(warm_cache, "a", slow)
        assert entered.wait(10)
        with two.app_context():
            cache.delete("a")
        gate.set()
        warming.join(10)

        assert not cache.has("a")


def test_flushed_while_loading(make_app, redis, gate):
    """A load that Redis has forgotten is not stored: it cannot know what was written meanwhile."""
    app = make_app(CACHE_REDIS_URL=redis.url)

    def load():
        with redis.client() as connection:
            connection.flushall()
        return "loaded"

    with app.app_context():
        assert cache.remember("a", load) == "loaded"
        assert not cache.has("a")
        assert cache.remember("a", lambda: "again") == "again"
        assert cache.has("a")


def test_expiry(make_app, redis):
    """Redis itself drops a value that nobody asks for any more, and remembers nothing of its loads."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        started = time.monotonic()
        cache.remember("a", lambda: 1, ttl=100, stale=5)
        cache.set("b", 1, ttl=90.5)
        cache.set("c", 1, ttl=None)
        left = [connection.pttl(f"asok-cache:{key}") for key in "abc"]
        # A whole one at the least, by which the milliseconds may be rounded.
        passed = 1 + 1000 * (time.monotonic() - started)

        assert 105_000 - passed <= left[0] <= 105_000
        assert 90_500 - passed <= left[1] <= 90_500
        assert left[2] == -1
        assert set(connection.hkeys("asok-cache:a")) == {b"v"}


def test_warm_never_expiring(make_app, redis):
    """A value that never expires is not given an end by a load of its key."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        cache.set("a", "old", ttl=None)
        with pytest.raises(LookupError):
            cache.warm("a", fail)
        assert connection.pttl("asok-cache:a") == -1

        cache.warm("a", lambda: 1, ttl=None)

        assert connection.pttl("asok-cache:a") == -1


def test_memory_of_a_failed_load(make_app, redis):
    """A load that failed leaves nothing behind."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        with pytest.raises(LookupError):
            cache.remember("a", fail)

        assert connection.keys() == []


def test_crashed_load_is_forgotten(make_app, redis):
    """What a killed process has announced is forgotten after an hour."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        cache._find_loader().store.begin_load("asok-cache:a", alone=True, seconds=30)

        assert connection.pttl("asok-cache:a") <= LONGEST_LOAD * 1000


def fail():
    raise LookupError("no database")


def test_prefix(make_app, redis):
    """CACHE_KEY_PREFIX keeps two applications apart that share a Redis."""
    one = make_app(CACHE_REDIS_URL=redis.url, CACHE_KEY_PREFIX="one:")
    two = make_app(CACHE_REDIS_URL=redis.url, CACHE_KEY_PREFIX="two:")
    with one.app_context():
        cache.set("a", 1)

    with two.app_context():
        assert not cache.has("a")
        cache.clear()
    with one.app_context():
        assert cache.get("a") == 1


def test_flask_caching_on_redis(make_app, redis):
    """On Flask-Caching's Redis races are settled as on one's own, through its connection."""
    app = make_app()
    flask_caching.Cache(
        app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": redis.url, "CACHE_KEY_PREFIX": "fc:"}
    )
    with app.app_context(), redis.client() as connection:
        cache.warm("a", lambda: 1)

        assert cache.get("a") == 1
        assert connection.keys() == [b"fc:asok-cache:a"]
        assert cache.is_shared


def test_own_client(redis):
    """A cachelib RedisCache as a store of its own works without an application."""
    with redis.client() as connection:
        own = Cache(cachelib.RedisCache(connection))

        own.set("a", {"b": 1})

        assert own.get("a") == {"b": 1}


def test_host_and_port(make_app, redis):
    """CACHE_REDIS_HOST and the others say where Redis is, as they do for Flask-Caching."""
    app = make_app(CACHE_TYPE="RedisCache", CACHE_REDIS_HOST="127.0.0.1", CACHE_REDIS_PORT=redis.port, CACHE_REDIS_DB=1)
    with app.app_context(), redis.client(db=1) as connection:
        cache.set("a", 1)

        assert connection.exists("asok-cache:a")


def test_foreign_value(redis_app, redis, caplog):
    """Something else under our key is a miss, and one log line; other keys work on."""
    with redis_app.app_context(), redis.client() as connection:
        connection.set("asok-cache:a", "not ours")
        connection.hset("asok-cache:b", mapping={"v": "9e9 9e9\n{"})

        assert cache.get("a") is None
        assert cache.remember("b", lambda: 1) == 1
        assert cache.set("c", 1) is True
        assert cache.set("a", 1) is True
        assert cache.get("a") == 1
    assert "WRONGTYPE" in caplog.text
    assert "'asok-cache:b' cannot be read" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        "a string",
        {"v": ""},
        {"v": b"\x80\x04K\x01."},
        {"v": "soon later\n1"},
        {"v": "9e9 later\n1"},
        {"v": "9e9 9e9\n{"},
        {"d": "later", "l": "x", "f": "x"},
    ],
    ids=["type", "empty", "pickle", "times", "time", "json", "lock"],
)
def test_foreign_value_is_replaced(redis_app, redis, value):
    """A foreign value under a key of ours counts as missing: a load and a warm replace it, and it can be deleted."""

    def spoil():
        connection.delete("asok-cache:a")
        if isinstance(value, str):
            connection.set("asok-cache:a", value)
        else:
            connection.hset("asok-cache:a", mapping=value)

    with redis_app.app_context(), redis.client() as connection:
        cache.set("b", 1)
        spoil()
        assert cache.get_many("a", "b") == {"b": 1}

        cache.remember("a", lambda: 2)
        assert cache.get("a") == 2

        spoil()
        cache.warm("a", lambda: 3)
        assert cache.get("a") == 3

        spoil()
        cache.delete("a")
        assert not connection.exists("asok-cache:a")


def test_turn_without_end(make_app, redis):
    """A turn to load that ends in the far future, since a clock was set back, is waited for once and then gone."""
    app = make_app(CACHE_REDIS_URL=redis.url, ASOK_CACHE_LOCK_TIMEOUT=0.05)
    with app.app_context(), redis.client() as connection:
        connection.hset("asok-cache:a", mapping={"f": "x;", "l": "x", "d": "9000000000000000"})

        assert cache.remember("a", lambda: 1) == 1

        assert set(connection.hkeys("asok-cache:a")) == {b"v"}


def test_close(make_app, redis, eventually):
    """Closing the extension closes its connections; a later call opens new ones."""
    app = make_app(CACHE_REDIS_URL=f"{redis.url}&client_name=closed")
    with app.app_context(), redis.client() as connection:

        def names():
            return [found["name"] for found in connection.client_list()]

        cache.set("a", 1)
        assert "closed" in names()

        app.extensions["asok"].close(5)

        # Redis sees it when it next looks at its connections, which may be after it answers on another one.
        eventually(lambda: "closed" not in names())
        assert cache.get("a") == 1


def test_missing_library(make_app, monkeypatch):
    """Without redis-py the error says what to install."""
    from flask_asok import NotConfigured

    monkeypatch.setitem(sys.modules, "redis", None)
    app = make_app(CACHE_REDIS_URL="redis://127.0.0.1:1/0")

    with app.app_context(), pytest.raises(NotConfigured, match="pip install"):
        cache.has("a")


def test_tasks_on_the_same_redis(make_app, redis):
    """The cache deletes nothing of the tasks' store on its Redis, and has no key in common with it."""
    app = make_app(CACHE_REDIS_URL=redis.url, ASOK_STORE=redis.url, ASOK_BACKEND="threads")
    # The store's own list of the newest tasks.
    cached_as_the_app = f"{app.name}:newest"
    with app.app_context():
        task = background.using(tracked=True)(int)
        task.join(10)

        cache.set(cached_as_the_app, 1)
        cache.clear()

        assert FlaskAsok().get(task.id).state == "succeeded"
        assert [one.id for one in FlaskAsok().tasks()] == [task.id]


@pytest.mark.parametrize("prefix", ["", "a", "asok"])
def test_prefix_with_tasks_in_it(make_app, redis, prefix):
    """A prefix with which the keys of tasks begin as well is not cleared, by the command neither."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        connection.set("asok:shop:newest", 1)

        with pytest.raises(ValueError, match=f"begins with '{prefix}' on this Redis may be a task"):
            Cache(prefix=prefix).clear()
        result = app.test_cli_runner().invoke(args=["asok", "cache", "clear", "--prefix", prefix])

        assert (result.exit_code, connection.exists("asok:shop:newest")) == (2, 1)
        assert "may be a task" in result.stderr


def test_prefix_of_tasks(make_app):
    """The prefix of the tasks is none for a Cache, in the command neither."""
    with pytest.raises(ValueError, match="keys of tasks begin with 'asok:'"):
        Cache(prefix="asok:shop:")
    result = make_app().test_cli_runner().invoke(args=["asok", "cache", "clear", "--prefix", "asok:"])
    assert (result.exit_code, "keys of tasks" in result.stderr) == (2, True)


@pytest.mark.parametrize("on", ["memory", "redis"])
def test_half_of_a_surrogate_pair(make_app, redis, on):
    """A key that UTF-8 cannot hold is an error on every store, and with every method."""
    app = make_app(**({"CACHE_REDIS_URL": redis.url} if on == "redis" else {}))
    with app.app_context():
        for use in (
            lambda key: cache.get(key),
            lambda key: cache.get_many(key),
            lambda key: cache.has(key),
            lambda key: cache.set(key, 1),
            lambda key: cache.delete(key),
            lambda key: cache.remember(key, int),
            lambda key: cache.warm(key, int),
        ):
            with pytest.raises(ValueError, match=r"A cache key must be text that UTF-8 can hold, not 'q\\ud800'"):
                use("q\ud800")
        cache.set("é", 1)
        assert cache.get("é") == 1
