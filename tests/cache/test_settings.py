"""What is wrong with a CACHE_* key is told under its name, when the cache is first used."""

import pytest

from flask_asok import Cache


@pytest.mark.parametrize(
    ("key", "config", "kind"),
    [
        ("CACHE_DEFAULT_TIMEOUT", {"CACHE_DEFAULT_TIMEOUT": "300"}, TypeError),
        ("CACHE_DEFAULT_TIMEOUT", {"CACHE_DEFAULT_TIMEOUT": -1}, ValueError),
        ("CACHE_THRESHOLD", {"CACHE_THRESHOLD": 0}, ValueError),
        ("CACHE_THRESHOLD", {"CACHE_THRESHOLD": "10"}, TypeError),
        ("CACHE_THRESHOLD", {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": "/tmp", "CACHE_THRESHOLD": "10"}, TypeError),
        ("CACHE_DIR", {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": "/dev/null/cache"}, ValueError),
        ("CACHE_OPTIONS", {"CACHE_TYPE": "RedisCache", "CACHE_OPTIONS": "socket_timeout"}, TypeError),
        ("CACHE_OPTIONS", {"CACHE_TYPE": "RedisCache", "CACHE_OPTIONS": {"socket_timeot": 1}}, TypeError),
        (
            "CACHE_OPTIONS",
            {"CACHE_REDIS_URL": "redis://127.0.0.1:1/0", "CACHE_OPTIONS": {"socket_timeot": 1}},
            TypeError,
        ),
        (
            "CACHE_OPTIONS",
            {"CACHE_TYPE": "cachelib.SimpleCache", "CACHE_OPTIONS": {"size": 1}},
            TypeError,
        ),
        (
            "CACHE_OPTIONS",
            {"CACHE_REDIS_URL": "redis://127.0.0.1:1/0", "CACHE_OPTIONS": {"decode_responses": True}},
            ValueError,
        ),
        ("CACHE_REDIS_URL", {"CACHE_REDIS_URL": "127.0.0.1:6379"}, ValueError),
        ("CACHE_REDIS_URL", {"CACHE_REDIS_URL": "redis://:a/secret#word@127.0.0.1:6379/0"}, ValueError),
        ("CACHE_REDIS_PORT", {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": "redis"}, ValueError),
        ("CACHE_REDIS_DB", {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_DB": "first"}, ValueError),
        ("CACHE_KEY_PREFIX", {"CACHE_TYPE": "RedisCache", "CACHE_KEY_PREFIX": 7}, TypeError),
        ("CACHE_TYPE", {"CACHE_TYPE": "Redis"}, ValueError),
        ("CACHE_TYPE", {"CACHE_TYPE": "shop.no_module.Cache"}, ValueError),
        ("CACHE_TYPE", {"CACHE_TYPE": "collections.OrderedDict"}, TypeError),
        ("CACHE_SERIALIZER", {"CACHE_SERIALIZER": "yaml"}, ValueError),
    ],
)
def test_mistakes(make_app, key, config, kind):
    """The error of a wrong value names its key, and never quotes a password."""
    with make_app(**config).app_context(), pytest.raises(kind, match=rf"^{key}\b") as raised:
        Cache().set("a", 1)

    assert "secret" not in str(raised.value)
