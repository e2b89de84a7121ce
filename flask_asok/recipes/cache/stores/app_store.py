"""Which store an application's caches share: its configuration or its Flask-Caching object says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cachelib import BaseCache, FileSystemCache, NullCache
from cachelib.redis_base import BaseRedisCache
from cachelib.serializers import JSONSerializer as FileSerializer
from flask import Flask
from werkzeug.utils import import_string

from ....errors import NotConfigured
from .cachelib_store import CachelibStore
from .lru_store import LRUStore
from .serializer import JSONSerializer, Serializer, serializer
from .store import Store

if TYPE_CHECKING:
    from redis import Redis


def app_store(app: Flask, *, cooldown: float, redis_timeout: float) -> Store:
    """
    Make the store of `app` from its Flask-Caching object, or from its `CACHE_*` keys if it has none.

    Raises NotConfigured for several Flask-Caching objects, ValueError for an unknown `CACHE_TYPE`.
    """
    serialize = serializer(app.config.get("CACHE_SERIALIZER") or "json")
    others: dict[Any, BaseCache] = app.extensions.get("cache") or {}
    if len(others) > 1:
        raise NotConfigured("This app has several Flask-Caching objects. Say which one: Cache(store=...).")
    for backend in others.values():
        return store_on(backend, serialize, cooldown=cooldown)
    config = app.config
    kind = config.get("CACHE_TYPE") or ("RedisCache" if config.get("CACHE_REDIS_URL") else "LRUCache")
    options: dict[str, Any] = config.get("CACHE_OPTIONS") or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"CACHE_OPTIONS must be a dict, not {type(options).__name__}.")
    match kind:
        case "LRUCache" | "SimpleCache":
            with naming("CACHE_THRESHOLD"):
                return LRUStore(config.get("CACHE_THRESHOLD", 10_000))
        case "RedisCache":
            return _redis_store(config, serialize, options, cooldown=cooldown, timeout=redis_timeout)
        case "FileSystemCache":
            return CachelibStore(_files(config, options, serialize), serialize)
        case "NullCache":
            return CachelibStore(NullCache(), serialize)
    if not isinstance(kind, str) or "." not in kind:
        raise ValueError(
            f'CACHE_TYPE is {kind!r}; it must be "LRUCache", "RedisCache", "FileSystemCache", "NullCache" or the '
            "dotted path of a cachelib cache."
        )
    try:
        make = import_string(kind)
    except ImportError as error:
        raise ValueError(f"CACHE_TYPE is {kind!r}, which cannot be imported.") from error
    with naming("CACHE_OPTIONS"):
        cache = make(**options)
    with naming("CACHE_TYPE"):
        return store_on(cache, serialize, cooldown=cooldown)


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Name the configuration key that an error is about."""
    try:
        yield
    except NotConfigured:
        raise
    except (TypeError, ValueError, OSError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{key} is wrong: {error}") from error


def store_on(cache: BaseCache | Store, serialize: Serializer, *, cooldown: float = 5.0) -> Store:
    """Return a store on the caller's own cache; TypeError if it is not a cache."""
    if isinstance(cache, Store):
        return cache
    if isinstance(cache, BaseRedisCache):
        from .redis_store import RedisStore

        # Its own commands cannot decide a race between processes, but scripts on its connection can. A test names the
        # version of cachelib whose private names these are.
        return RedisStore(cache._write_client, serialize, prefix=cache._get_prefix(), cooldown=cooldown)
    if isinstance(cache, BaseCache):
        return CachelibStore(cache, serialize)
    raise TypeError(f"store must be a cachelib cache or a Flask-Caching Cache, not {type(cache).__name__}.")


class _JSONFiles(FileSystemCache):
    """Writes JSON around our JSON; FileSystemCache would pickle it."""

    serializer = FileSerializer()  # type: ignore[assignment]


def _files(config: dict[str, Any], options: dict[str, Any], serialize: Serializer) -> FileSystemCache:
    if not config.get("CACHE_DIR"):
        raise NotConfigured('CACHE_TYPE = "FileSystemCache" needs a folder: set CACHE_DIR.')
    kind = _JSONFiles if isinstance(serialize, JSONSerializer) else FileSystemCache
    threshold = config.get("CACHE_THRESHOLD", 10_000)
    if not isinstance(threshold, int):
        raise TypeError(f"CACHE_THRESHOLD must be an int, not {type(threshold).__name__}.")
    with naming("CACHE_OPTIONS" if options else "CACHE_DIR"):
        return kind(config["CACHE_DIR"], **{"threshold": threshold, **options})


def _redis_store(
    config: dict[str, Any], serialize: Serializer, options: dict[str, Any], *, cooldown: float, timeout: float
) -> Store:
    client = _redis_client(config, options, timeout)
    from .redis_store import RedisStore

    prefix = config.get("CACHE_KEY_PREFIX") or ""
    if not isinstance(prefix, str):
        raise TypeError(f"CACHE_KEY_PREFIX must be a str, not {type(prefix).__name__}.")
    with naming("CACHE_OPTIONS"):
        pool = client.connection_pool
        # Made, not opened: otherwise the first request would be the one to meet an unknown option.
        pool.connection_class(**pool.connection_kwargs)
        return RedisStore(client, serialize, prefix=prefix, cooldown=cooldown, owned=True)


def _redis_client(config: dict[str, Any], options: dict[str, Any], timeout: float) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.exceptions import ConnectionError as RedisConnectionError
        from redis.retry import Retry
    except ImportError:
        raise NotConfigured("The Redis cache needs redis-py: pip install redis") from None

    # redis-py's own defaults hold a request for 4 seconds if the server refuses, and for a minute if it is silent.
    # One more try at once costs no wait, and mends a connection that the server has closed meanwhile.
    options = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        **options,
    }
    url = config.get("CACHE_REDIS_URL")
    if url:
        try:
            parse_url(url)  # type: ignore[no-untyped-call]
        except Exception:
            # Without the parser's text, which may quote a part of the password.
            raise ValueError(
                "CACHE_REDIS_URL is not the URL of a Redis, such as redis://127.0.0.1:6379/0. Special characters of a "
                "password are percent-encoded in it."
            ) from None
        return Redis.from_url(url, **options)
    with naming("CACHE_REDIS_PORT"):
        port = int(config.get("CACHE_REDIS_PORT") or 6379)
    with naming("CACHE_REDIS_DB"):
        db = int(config.get("CACHE_REDIS_DB") or 0)
    host, password = config.get("CACHE_REDIS_HOST") or "localhost", config.get("CACHE_REDIS_PASSWORD")
    with naming("CACHE_OPTIONS"):
        return Redis(host=host, port=port, password=password, db=db, **options)
