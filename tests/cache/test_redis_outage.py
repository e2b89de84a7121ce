"""What the cache does while its Redis is down, silent, full or a replica, and after that."""

import contextlib
import logging
import socket
import threading
import time

import pytest

from flask_asok import Cache, CacheUnavailable
from flask_asok.recipes.cache.stores.redis_store import RedisStore
from flask_asok.recipes.cache.stores.serializer import JSONSerializer

cache = Cache()


def fail():
    raise LookupError("no database")


def timed(call):
    started = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - started


def quickest(call):
    """The best of five, for a machine that is busy with something else."""
    return min(timed(call)[1] for _ in range(5))


def outages(caplog):
    return [record for record in caplog.records if record.name == "asok.cache"]


def test_refused(make_app, own_redis, caplog):
    """While Redis is down reads are misses, writes say False, loaders run, all at once, and one line is logged."""
    app = make_app(CACHE_REDIS_URL=own_redis.url)
    with app.app_context():
        cache.set("a", 1)
        own_redis.stop()

        first, first_time = timed(lambda: cache.get("a", "missing"))

        assert first == "missing"
        assert first_time < 3 * 0.6
        assert quickest(lambda: cache.get("a")) < 3 * 0.005
        assert cache.set("a", 1) is False
        assert cache.set_many({"a": 1}) is False
        assert cache.get_many("a", "b") == {}
        assert not cache.has("a")
        assert cache.remember("a", lambda: "loaded") == "loaded"
        assert cache.warm("a", lambda: "loaded") == "loaded"
    assert [record.levelname for record in outages(caplog)] == ["ERROR"]
    assert "going on without it" in caplog.text


def test_silent(make_app, own_redis, caplog):
    """A Redis that accepts connections and answers nothing costs one request less than 0.6 s, the next ones nothing."""
    app = make_app(CACHE_REDIS_URL=own_redis.usual_url)
    with app.app_context():
        cache.set("a", 1)
        own_redis.freeze()

        first, first_time = timed(lambda: cache.remember("a", lambda: "loaded"))

        assert first == "loaded"
        assert first_time < 3 * 0.6
        assert quickest(lambda: cache.remember("a", lambda: "loaded")) < 3 * 0.005
    assert len(outages(caplog)) == 1


def test_silent_from_the_start(make_app, caplog):
    """So does a server that was never a Redis: it accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        app = make_app(CACHE_REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        with app.app_context():
            _, seconds = timed(lambda: cache.remember("a", lambda: "loaded"))

    assert seconds < 3 * 0.6
    assert len(outages(caplog)) == 1


def test_delete_while_down(make_app, own_redis):
    """A delete that could not be done raises, at once: the old value would come back."""
    app = make_app(CACHE_REDIS_URL=own_redis.url)
    with app.app_context():
        cache.set("a", 1)
        own_redis.stop()

        with pytest.raises(CacheUnavailable, match="'asok-cache:a' was not deleted"):
            cache.delete("a")
        with pytest.raises(CacheUnavailable, match="not cleared"):
            cache.clear()
        with pytest.raises(CacheUnavailable):
            cache.delete_many("a", "b")


def test_ignored_errors(make_app, own_redis, caplog):
    """With CACHE_IGNORE_ERRORS a delete that could not be done is logged, and says False."""
    app = make_app(CACHE_REDIS_URL=own_redis.url, CACHE_IGNORE_ERRORS=True)
    own_redis.stop()
    with app.app_context():
        assert cache.delete("a") is False
        cache.clear()
    assert "'asok-cache:a' was not deleted" in caplog.text


def test_back_again(make_app, own_redis, caplog, eventually):
    """When Redis is back it is used again, without a restart, and one line says so."""
    app = make_app(CACHE_REDIS_URL=own_redis.url, ASOK_CACHE_ERROR_COOLDOWN=0.001)
    with app.app_context(), caplog.at_level(logging.WARNING, "asok.cache"):
        own_redis.stop()
        assert cache.set("a", 1) is False
        own_redis.start()

        eventually(lambda: cache.set("a", 1))

        assert cache.get("a") == 1
    assert [record.levelname for record in outages(caplog)] == ["ERROR", "WARNING"]


@pytest.mark.parametrize(
    "change", [lambda: cache.set("a", "new"), lambda: cache.warm("a", lambda: "new"), lambda: cache.delete("a")]
)
def test_old_value_does_not_come_back(make_app, own_redis, change, eventually):
    """What could not be replaced or deleted during an outage is gone after it; what was only read is still there."""
    app = make_app(CACHE_REDIS_URL=own_redis.usual_url, ASOK_CACHE_ERROR_COOLDOWN=0.001)
    with app.app_context():
        # Again where a busy machine has taken the time of an outage.
        eventually(lambda: cache.set_many({"a": "old", "b": "kept"}))
        own_redis.freeze()
        with contextlib.suppress(CacheUnavailable):
            change()
        assert cache.remember("b", lambda: "loaded") == "loaded"

        own_redis.thaw()

        eventually(lambda: cache.get("b") == "kept")
        assert cache.get("a") in (None, "new")


def test_replica(make_app, own_redis, caplog, eventually):
    """A Redis that became a replica is an outage, and left: the new one may have its name."""
    app = make_app(CACHE_REDIS_URL=f"{own_redis.url}&client_name=left", ASOK_CACHE_ERROR_COOLDOWN=0.001)
    with app.app_context(), own_redis.client() as connection, caplog.at_level(logging.WARNING, "asok.cache"):
        cache.set("a", "old")
        connection.replicaof("127.0.0.1", 1)

        assert cache.set("a", "new") is False

        eventually(lambda: "left" not in [found["name"] for found in connection.client_list()])
        assert [cache.get("a") for _ in range(5)] == [None] * 5
        connection.replicaof("no", "one")
        eventually(lambda: cache.set("b", 1))
        assert cache.get("a") is None
    assert [record.levelname for record in outages(caplog)] == ["ERROR", "WARNING"]


def test_deletion_is_refused(make_app, own_redis, caplog, eventually):
    """While an old value cannot be deleted nothing is read: an outage, with its one line."""
    app = make_app(CACHE_REDIS_URL=own_redis.url, ASOK_CACHE_ERROR_COOLDOWN=0.001)
    with app.app_context(), own_redis.client() as connection:
        cache.set("a", "old")
        connection.config_set("min-replicas-to-write", 1)

        with pytest.raises(CacheUnavailable, match="NOREPLICAS"):
            cache.delete("a")

        assert [cache.get("a") for _ in range(5)] == [None] * 5
        connection.config_set("min-replicas-to-write", 0)
        eventually(lambda: cache.set("b", 1))
        assert cache.get("a") is None
    assert sum(record.levelname == "ERROR" for record in outages(caplog)) == 1


def test_full(make_app, own_redis, caplog):
    """A Redis that is full serves what it has; that it stores nothing more is logged once a minute, not per call."""
    app = make_app(CACHE_REDIS_URL=own_redis.url)
    with app.app_context(), own_redis.client() as connection:
        cache.set("a", "kept")
        connection.config_set("maxmemory-policy", "noeviction")
        connection.config_set("maxmemory", 1)

        assert [cache.remember("b", lambda: "loaded") for _ in range(5)] == ["loaded"] * 5

        assert cache.get("a") == "kept"
    (record,) = outages(caplog)
    assert "refused a command: OutOfMemoryError" in record.getMessage()


def test_invalidation_is_bounded(own_redis, monkeypatch):
    """Of the keys to be deleted after an outage so many are remembered, the newest."""
    monkeypatch.setattr("flask_asok.recipes.cache.breaker.MOST_INVALIDATED", 2)
    with own_redis.client() as connection:
        store = RedisStore(connection, JSONSerializer())
        for key in "abc":
            store.invalidate(key)

        assert list(store._breaker._invalidated) == ["b", "c"]


def test_invalidation_outlasts_an_outage(own_redis, eventually):
    """Keys that could not be deleted yet are remembered until they can be."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with Redis(port=own_redis.port, socket_timeout=0.1, retry=Retry(NoBackoff(), 0)) as connection:
        store = RedisStore(connection, JSONSerializer(), cooldown=0.001)
        connection.set("a", "old")
        own_redis.freeze()
        store.invalidate("a")
        assert store.read("b") is None
        assert list(store._breaker._invalidated) == ["a"]

        own_redis.thaw()

        eventually(lambda: store.read("b") is None and not store._breaker._invalidated)
        assert not connection.exists("a")


def test_load_ends_in_an_outage(make_app, own_redis):
    """A load whose value or failure cannot be told to Redis any more still gives that to its reader."""
    app = make_app(CACHE_REDIS_URL=own_redis.url)

    def load():
        own_redis.stop()
        return "loaded"

    with app.app_context():
        assert cache.remember("a", load) == "loaded"
        with pytest.raises(LookupError):
            cache.remember("a", fail)


def test_unreadable_value_while_loading(make_app, redis):
    """A value that looks fresh and cannot be read is loaded anew."""
    app = make_app(CACHE_REDIS_URL=redis.url)
    with app.app_context(), redis.client() as connection:
        connection.hset("asok-cache:a", mapping={"v": "9e9 9e9\n{"})

        assert cache.warm("a", lambda: 1) == 1
        assert cache.get("a") == 1


def test_restart_between_requests(make_app, own_redis, caplog):
    """A Redis that was restarted while nobody asked is no outage."""
    app = make_app(CACHE_REDIS_URL=own_redis.url)
    with app.app_context():
        cache.set("a", 1)
        own_redis.stop()
        own_redis.start()

        assert cache.set("a", 2) is True
        assert cache.get("a") == 2
    assert outages(caplog) == []


def test_probe_is_alone(own_redis):
    """When the cooldown is over one call tries; the others do not wait with it."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    own_redis.freeze()
    connection = Redis(port=own_redis.port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    store = RedisStore(connection, JSONSerializer(), cooldown=30)
    store.read("a")
    store._breaker._open_until = time.monotonic()
    times = []

    def read():
        times.append(timed(lambda: store.read("a"))[1])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    connection.close()

    assert sum(seconds > 0.8 for seconds in times) == 1


def test_load_across_an_outage(make_app, own_redis):
    """A load that began while Redis was down is not stored when that is back: it cannot know what was written."""
    app = make_app(CACHE_REDIS_URL=own_redis.url, ASOK_CACHE_ERROR_COOLDOWN=0.001)
    with app.app_context():
        own_redis.stop()

        def load():
            own_redis.start()
            return "loaded"

        assert cache.remember("a", load) == "loaded"
        assert not cache.has("a")
