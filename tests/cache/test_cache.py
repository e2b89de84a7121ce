"""A Cache: get, set, delete and the others."""

import inspect
import math
from datetime import timedelta

import pytest
from flask import Flask
from redis import Redis

from flask_asok import Cache, NotConfigured, background

cache = Cache()


def test_page_recipe(threads_app):
    """The recipe of the Asok page works as it stands: a function that sets, given to background."""

    def warm_cache():
        cache.set("recent_posts", [{"title": "One"}], ttl=300)

    with threads_app.app_context():
        background(warm_cache).join(5)

        assert cache.get("recent_posts") == [{"title": "One"}]


def test_set_and_get(app):
    """What was set is what one gets."""
    with app.app_context():
        stored = cache.set("posts", [{"id": 1, "title": "Zoë"}])

        assert stored is True
        assert cache.get("posts") == [{"id": 1, "title": "Zoë"}]
        assert cache.has("posts")


def test_get_default(app):
    """A key without a value gives the default."""
    with app.app_context():
        assert cache.get("missing") is None
        assert cache.get("missing", "nothing") == "nothing"
        assert not cache.has("missing")


def test_none(app):
    """None is a value like any other."""
    with app.app_context():
        cache.set("nobody", None)

        assert cache.has("nobody")
        assert cache.get("nobody", "missing") is None


def test_order_of_keys(app):
    """A dict comes back with its keys in their order."""
    with app.app_context():
        cache.set("menu", {"soup": 1, "fish": 2, "cake": 3})

        assert list(cache.get("menu")) == ["soup", "fish", "cake"]


@pytest.mark.parametrize("ttl", [0.5, timedelta(milliseconds=500)], ids=["float", "timedelta"])
def test_ttl(app, clock, ttl):
    """A value lives for its ttl, to the fraction of a second, and no longer."""
    with app.app_context():
        cache.set("short", 1, ttl=ttl)

        clock.advance(0.49)
        assert cache.get("short") == 1
        clock.advance(0.02)
        assert cache.get("short") is None
        assert not cache.has("short")


def test_never_expires(app, clock):
    """With a ttl of None a value never expires."""
    with app.app_context():
        cache.set("forever", 1, ttl=None)

        clock.advance(5 * 365 * 86_400)

        assert cache.get("forever") == 1


def test_default_ttl(app, clock):
    """A value that is set without a ttl lives for 300 seconds."""
    with app.app_context():
        cache.set("usual", 1)

        clock.advance(299)
        assert cache.has("usual")
        clock.advance(2)
        assert not cache.has("usual")


@pytest.mark.parametrize(("seconds", "left"), [(3600, 3600), (0, -1)], ids=["hour", "for ever"])
def test_configured_ttl(make_app, redis, seconds, left):
    """CACHE_DEFAULT_TIMEOUT is the ttl of a Cache that was given none; 0 is its word for ever."""
    app = make_app(CACHE_DEFAULT_TIMEOUT=seconds, CACHE_REDIS_URL=redis.url)
    with app.app_context(), Redis(port=redis.port) as client:
        cache.set("usual", 1)

        assert client.ttl("asok-cache:usual") == pytest.approx(left, abs=2)


def test_cache_ttl(memory_app, clock):
    """A Cache has a ttl of its own."""
    short = Cache(ttl=5)
    with memory_app.app_context():
        short.set("a", 1)
        short.set("b", 1, ttl=10)

        clock.advance(6)

        assert not short.has("a")
        assert short.has("b")


@pytest.mark.parametrize("ttl", [0, -1, -0.5, timedelta(0), math.inf, math.nan])
def test_bad_ttl(memory_app, ttl):
    """A ttl that is no time to live is a ValueError."""
    with memory_app.app_context(), pytest.raises(ValueError, match="ttl"):
        cache.set("a", 1, ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        Cache(ttl=ttl)


@pytest.mark.parametrize("ttl", ["300", True])
def test_ttl_type(memory_app, ttl):
    """A ttl that is no number is a TypeError."""
    with memory_app.app_context(), pytest.raises(TypeError, match="ttl must be seconds"):
        cache.set("a", 1, ttl=ttl)


def test_bad_stale(memory_app):
    """A stale window cannot be negative."""
    with pytest.raises(ValueError, match="stale"):
        Cache(stale=-1)


def test_delete(app):
    """A deleted value is gone, and delete says whether there was one."""
    with app.app_context():
        cache.set("a", 1)

        assert cache.delete("a") is True
        assert cache.delete("a") is False
        assert not cache.has("a")


def test_many(app):
    """Several values are set, read and deleted with one call."""
    with app.app_context():
        assert cache.set_many({"a": 1, "b": None}) is True
        assert cache.get_many("a", "b", "missing") == {"a": 1, "b": None}
        assert cache.get_many() == {}
        assert cache.delete_many("a", "b", "missing") == 2
        assert cache.get_many("a", "b") == {}


def test_clear(app):
    """After clear there is no value left."""
    with app.app_context():
        cache.set_many({"a": 1, "b": 2})

        cache.clear()

        assert cache.get_many("a", "b") == {}


@pytest.mark.parametrize("prefix", ["shop:", "sh*p[a]?\\"])
def test_clear_prefix(raced_app, prefix):
    """clear deletes the keys with the Cache's own prefix only, whatever letters are in it."""
    mine, other = Cache(prefix=prefix), Cache(prefix="shap:")
    with raced_app.app_context():
        mine.set("a", 1)
        other.set("a", 2)

        mine.clear()

        assert not mine.has("a")
        assert other.get("a") == 2


def test_prefixes(app):
    """Two Caches with different prefixes do not see each other's values."""
    with app.app_context():
        Cache(prefix="one:").set("a", 1)

        assert not Cache(prefix="two:").has("a")


def test_shared_between_caches(app):
    """Every Cache without a store shares the application's."""
    with app.app_context():
        Cache().set("a", 1)

        assert Cache().get("a") == 1


def test_two_apps(make_app):
    """Two applications with one Cache never mix."""
    one, two = make_app("one"), make_app("two")
    with one.app_context():
        cache.set("a", 1)

    with two.app_context():
        assert not cache.has("a")


@pytest.mark.parametrize("call", [lambda: cache.get("a"), lambda: cache.set("a", 1)], ids=["get", "set"])
def test_no_context(call):
    """Without an app context the error says what to do."""
    with pytest.raises(NotConfigured, match="app_context"):
        call()


def test_repr():
    """A Cache and the mark for "not given" say what they are."""
    assert repr(Cache(prefix="my:")) == "<Cache 'my:'>"
    assert repr(inspect.signature(Cache.set).parameters["ttl"].default) == "UNSET"


def test_app_without_extension():
    """An app without Flask-Asok is told what to call."""
    with Flask("bare").app_context(), pytest.raises(NotConfigured, match="init_app"):
        cache.get("a")
