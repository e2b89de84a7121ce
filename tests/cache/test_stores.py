"""Which store a Cache uses, and what may be kept there."""

from importlib import metadata
from pathlib import Path

import cachelib
import flask_caching
import pytest
from redis import Redis

from flask_asok import Cache, CacheUnavailable, NotConfigured

cache = Cache()


def test_own_store():
    """A Cache with a store of its own needs no application."""
    own = Cache(cachelib.SimpleCache())

    own.set("a", [1])

    assert own.get("a") == [1]
    assert own.remember("b", lambda: 2) == 2


def test_same_own_store():
    """Two Caches on one store of their own see the same values and share their loads."""
    store = cachelib.SimpleCache()

    assert Cache(store)._own_loader is Cache(store)._own_loader


def test_other_own_stores():
    """Caches on stores of their own never mix, though nobody else holds those."""
    clients = [Redis(db=number) for number in range(16)]
    caches = [Cache(cachelib.RedisCache(client)) for client in clients]

    assert [own._own_loader.store._client for own in caches] == clients


def test_private_names_of_cachelib():
    """The private names of cachelib with which its RedisCache becomes a store are those of version 0.17."""
    client = Redis()
    theirs = cachelib.RedisCache(client, key_prefix="shop:")

    assert metadata.version("cachelib").startswith("0.17.")
    assert theirs._write_client is client
    assert theirs._get_prefix() == "shop:"


def test_store_type():
    """What is no cache is refused as a store."""
    with pytest.raises(TypeError, match="cachelib"):
        Cache({})


def test_flask_caching_object(make_app):
    """A Flask-Caching object is accepted as a store, before it is set up on an app."""
    theirs = flask_caching.Cache(config={"CACHE_TYPE": "SimpleCache"})
    ours = Cache(theirs)
    app = make_app()
    with app.app_context(), pytest.raises(NotConfigured, match="init_app"):
        ours.has("a")
    theirs.init_app(app)

    with app.app_context():
        ours.set("a", 1)

        assert theirs.get("asok-cache:a") is not None
        assert Cache().get("a") == 1


def test_several_flask_caching_objects(make_app):
    """With several Flask-Caching objects one has to say which; each keeps its own values."""
    app = make_app()
    one = flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    two = flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    with app.app_context():
        with pytest.raises(NotConfigured, match="several"):
            cache.has("a")
        Cache(one).set("a", 1)
        assert Cache(one).get("a") == 1
        assert not Cache(two).has("a")


def test_flask_caching_values_untouched(app):
    """What others keep in the same Flask-Caching object under the same name is not ours."""
    backends = app.extensions.get("cache")
    if not backends:
        return
    with app.app_context():
        theirs = next(iter(backends))
        theirs.set("a", "theirs")
        cache.set("a", "ours")

        assert theirs.get("a") == "theirs"


def test_generator(app):
    """A generator, which could be read only once, is a TypeError with the key."""
    with app.app_context(), pytest.raises(TypeError, match="asok-cache:numbers"):
        cache.set("numbers", (number for number in range(3)))


@pytest.mark.parametrize("value", [object(), {"when": {1, 2}}, lambda: 1], ids=["object", "set", "function"])
def test_not_storable(redis_app, value):
    """A value that JSON cannot hold is a TypeError with the key, at set."""
    with redis_app.app_context(), pytest.raises(TypeError, match="asok-cache:thing"):
        cache.set("thing", value)


def test_not_storable_in_simple_cache(make_app):
    """A value that Flask-Caching's store could not give back is a TypeError with the key, at set."""
    app = make_app()
    flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    with app.app_context(), pytest.raises(TypeError, match="asok-cache:thing"):
        cache.set("thing", lambda: 1)


def test_key_type(memory_app):
    """A key is a str."""
    with memory_app.app_context(), pytest.raises(TypeError, match="key must be a str"):
        cache.set(1, 1)


def test_unknown_type(make_app):
    """A CACHE_TYPE that does not exist is named in the error."""
    app = make_app(CACHE_TYPE="MagicCache")

    with app.app_context(), pytest.raises(ValueError, match="MagicCache"):
        cache.has("a")


def test_dotted_type(make_app):
    """CACHE_TYPE may be the dotted path of a cachelib cache, CACHE_OPTIONS its arguments."""
    app = make_app(CACHE_TYPE="cachelib.SimpleCache", CACHE_OPTIONS={"threshold": 7})

    with app.app_context():
        cache.set("a", 1)

        assert cache.get("a") == 1
        assert not cache.is_shared


def test_null_type(make_app):
    """With NullCache nothing is kept, and remember loads each time."""
    app = make_app(CACHE_TYPE="NullCache")

    with app.app_context():
        assert [cache.remember("a", iter([1, 2]).__next__) for _ in range(1)] == [1]
        assert not cache.has("a")


def test_pickle_on_demand(make_app, redis):
    """Pickle is used on a shared store only when the configuration asks for it."""
    app = make_app(CACHE_REDIS_URL=redis.url, CACHE_SERIALIZER="pickle")

    with app.app_context():
        cache.set("tags", {"a", "b"})

        assert cache.get("tags") == {"a", "b"}


def test_pickle_in_files(make_app, tmp_path):
    """In files as well."""
    app = make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path), CACHE_SERIALIZER="pickle")

    with app.app_context():
        cache.set("tags", {"a", "b"})

        assert cache.get("tags") == {"a", "b"}


class Harm:
    """Does something when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_in_a_file(make_app, tmp_path):
    """Without it, writing a file is not enough to run code here."""
    (tmp_path / "cache").mkdir()
    app = make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path / "cache"))
    cachelib.FileSystemCache(str(tmp_path / "cache")).set("asok-cache:a", Harm(tmp_path / "harm"))

    with app.app_context():
        assert cache.get("a", "missing") == "missing"

    assert not (tmp_path / "harm").exists()


def test_no_folder(make_app):
    """Files need a folder, and the error says which setting that is."""
    app = make_app(CACHE_TYPE="FileSystemCache")

    with app.app_context(), pytest.raises(NotConfigured, match="CACHE_DIR"):
        cache.has("a")


class Broken(cachelib.BaseCache):
    """A server that cannot be reached."""

    def get(self, key):
        raise OSError("unreachable")

    def set(self, key, value, timeout=None):
        raise OSError("unreachable")

    def delete(self, key):
        raise OSError("unreachable")

    def clear(self):
        raise OSError("unreachable")


def test_broken_store(caplog):
    """A cachelib cache that raises is a store that cannot be reached: no page fails, and no delete seems done."""
    own = Cache(Broken())

    assert own.get("a", "missing") == "missing"
    assert own.set("a", 1) is False
    assert [own.remember("a", lambda: "loaded"), own.warm("a", lambda: "warm")] == ["loaded", "warm"]
    with pytest.raises(CacheUnavailable, match="'asok-cache:a' was not deleted"):
        own.delete("a")
    with pytest.raises(CacheUnavailable, match="not cleared"):
        own.clear()
    assert "unreachable" in caplog.text


def test_clear_that_fails(monkeypatch):
    """Nor does a clear."""
    monkeypatch.setattr(cachelib.SimpleCache, "clear", lambda self: False)

    with pytest.raises(CacheUnavailable, match="not cleared"):
        Cache(cachelib.SimpleCache()).clear()


def test_client_that_decodes():
    """A Redis client that gives texts instead of bytes is refused where the Cache is made."""
    with pytest.raises(ValueError, match="decode_responses"):
        Cache(cachelib.RedisCache(Redis(decode_responses=True)))


def test_bad_serializer(make_app):
    """A serializer that does not exist is named in the error."""
    app = make_app(CACHE_SERIALIZER="yaml")

    with app.app_context(), pytest.raises(ValueError, match="yaml"):
        cache.has("a")


@pytest.mark.parametrize("key", ["ASOK_CACHE_LOCK_TIMEOUT", "ASOK_CACHE_ERROR_COOLDOWN", "ASOK_CACHE_REDIS_TIMEOUT"])
def test_bad_configuration(make_app, key):
    """A number of seconds that is none is a ValueError at init_app."""
    with pytest.raises(ValueError, match=key):
        make_app(**{key: 0})


def test_coroutine(memory_app):
    """A coroutine, which could be awaited only once, is a TypeError with the key, and no warning later."""

    async def load(): ...

    with memory_app.app_context(), pytest.raises(TypeError, match="asok-cache:later"):
        cache.set("later", load())


def test_unreadable_value(make_app, tmp_path, caplog):
    """What cannot be read is a miss, and a log line with the key."""
    app = make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))
    with app.app_context():
        cache._find_loader().store._cache.set("asok-cache:a", "not ours")

        assert cache.get("a", "missing") == "missing"
    assert "'asok-cache:a' cannot be read" in caplog.text


def test_loaded_meanwhile(app):
    """A reader that is about to load a value which another one has just stored gets that."""
    with app.app_context():
        cache.set("a", 1)

        begun = cache._find_loader().store.begin_load("asok-cache:a", alone=True, seconds=30)

        assert (begun.token, begun.entry) == (None, (1, True))


def test_delete_that_fails(make_app, monkeypatch):
    """A store that still has what was deleted raises CacheUnavailable."""
    own = Cache(cachelib.SimpleCache())
    own.set("a", 1)
    monkeypatch.setattr(cachelib.SimpleCache, "delete", lambda *args: False)

    with pytest.raises(CacheUnavailable, match="'asok-cache:a' was not deleted"):
        own.delete("a")
