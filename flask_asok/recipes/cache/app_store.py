"""Which store an application's caches share: chosen by its configuration, or its Flask-Caching object."""

from __future__ import annotations

from typing import Any

from cachelib import BaseCache, FileSystemCache, NullCache
from cachelib.redis_base import BaseRedisCache
from cachelib.serializers import JSONSerializer as FileSerializer
from flask import Flask
from werkzeug.utils import import_string

from ...errors import NotConfigured
from .cachelib_store import CachelibStore
from .lru_store import LRUStore
from .serializer import JSONSerializer, Serializer, serializer
from .store import Store


def app_store(app: Flask, *, rest: float, redis_timeout: float) -> Store:
    """
    Make the store of `app`: what its `CACHE_*` keys say, or its Flask-Caching object where it has one.

    Raises NotConfigured for several Flask-Caching objects, ValueError for a `CACHE_TYPE` that is none.
    """
    serialize = serializer(app.config.get("CACHE_SERIALIZER") or "json")
    others: dict[Any, BaseCache] = app.extensions.get("cache") or {}
    if len(others) > 1:
        raise NotConfigured("This app has several Flask-Caching objects. Say which one: Cache(store=...).")
    for backend in others.values():
        return store_on(backend, serialize, rest=rest)
    config = app.config
    kind = config.get("CACHE_TYPE") or ("RedisCache" if config.get("CACHE_REDIS_URL") else "LRUCache")
    options: dict[str, Any] = config.get("CACHE_OPTIONS") or {}
    match kind:
        case "LRUCache" | "SimpleCache":
            return LRUStore(config.get("CACHE_THRESHOLD", 10_000))
        case "RedisCache":
            prefix = config.get("CACHE_KEY_PREFIX") or ""
            return _redis_store(config, serialize, options, prefix=prefix, rest=rest, timeout=redis_timeout)
        case "FileSystemCache":
            return CachelibStore(_files(config, options, serialize), serialize)
        case "NullCache":
            return CachelibStore(NullCache(), serialize)
    if not isinstance(kind, str) or "." not in kind:
        raise ValueError(
            f'CACHE_TYPE is {kind!r}; it must be "LRUCache", "RedisCache", "FileSystemCache", "NullCache" or the '
            "dotted path of a cachelib cache."
        )
    return store_on(import_string(kind)(**options), serialize, rest=rest)


def store_on(cache: BaseCache | Store, serialize: Serializer, *, rest: float = 5.0) -> Store:
    """Return a store on the caller's own cache; TypeError for what is none."""
    if isinstance(cache, Store):
        return cache
    if isinstance(cache, BaseRedisCache):
        from .redis_store import RedisStore

        # Its own commands could not settle a race between processes; its connection can.
        return RedisStore(cache._write_client, serialize, prefix=cache._get_prefix(), rest=rest)
    if isinstance(cache, BaseCache):
        return CachelibStore(cache, serialize)
    raise TypeError(f"store must be a cachelib cache or a Flask-Caching Cache, not {type(cache).__name__}.")


class _JSONFiles(FileSystemCache):
    """Writes JSON around our JSON, where cachelib's own would pickle it."""

    serializer = FileSerializer()  # type: ignore[assignment]


def _files(config: dict[str, Any], options: dict[str, Any], serialize: Serializer) -> FileSystemCache:
    if not config.get("CACHE_DIR"):
        raise NotConfigured('CACHE_TYPE = "FileSystemCache" needs a folder: set CACHE_DIR.')
    kind = _JSONFiles if isinstance(serialize, JSONSerializer) else FileSystemCache
    return kind(config["CACHE_DIR"], **{"threshold": config.get("CACHE_THRESHOLD", 10_000), **options})


def _redis_store(
    config: dict[str, Any], serialize: Serializer, options: dict[str, Any], *, prefix: str, rest: float, timeout: float
) -> Store:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as RedisConnectionError
        from redis.retry import Retry
    except ImportError:
        raise NotConfigured("The Redis cache needs redis-py: pip install redis") from None
    from .redis_store import RedisStore

    # redis-py's own defaults hold a request for 4 seconds when the server refuses, and for a minute when it is silent.
    # A connection that the server has closed meanwhile is worth one more try, for which nobody waits.
    options = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        **options,
    }
    url = config.get("CACHE_REDIS_URL")
    if url:
        client = Redis.from_url(url, **options)
    else:
        client = Redis(
            host=config.get("CACHE_REDIS_HOST") or "localhost",
            port=int(config.get("CACHE_REDIS_PORT") or 6379),
            password=config.get("CACHE_REDIS_PASSWORD"),
            db=int(config.get("CACHE_REDIS_DB") or 0),
            **options,
        )
    return RedisStore(client, serialize, prefix=prefix, rest=rest, owned=True)
