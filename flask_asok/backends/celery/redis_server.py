"""The Redis that keeps the records of tasks, as Celery's settings name it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ...errors import NotConfigured
from ...store.causes import address_of

REDIS_URLS = ("redis://", "rediss://", "redis+socket://", "socket://", "unix://")
"""How the URL of a Redis begins in Celery's settings."""

TIMEOUTS = {"socket_connect_timeout": 1, "socket_timeout": 2}


@dataclasses.dataclass(frozen=True)
class RedisServer:
    """How to connect to one Redis, directly or through its sentinels."""

    urls: tuple[str, ...]
    tls: Mapping[str, Any]
    """Arguments of a TLS connection; empty where the URL decides."""
    options: Mapping[str, Any]
    """Celery's options for the transport."""
    login: Mapping[str, Any]
    """User and password, where the URL names neither."""
    prefix: str
    """What Celery puts before each of its keys, and Flask-Asok before each of its own."""

    @property
    def address(self) -> str:
        """Host and port, for texts: no part of it is secret."""
        addresses = ", ".join(filter(None, map(address_of, self.urls)))
        return f"sentinels {addresses}" if self.by_sentinel else addresses

    @property
    def by_sentinel(self) -> bool:
        """Do the URLs name sentinels?"""
        return self.urls[0].startswith("sentinel")

    def client(self) -> Any:
        """Return a client that is not connected yet, and that fails fast where Redis is down."""
        from redis import Redis, SSLConnection
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # By default redis-py retries for seconds; a request must not wait for that.
        common: dict[str, Any] = {
            "decode_responses": True, "encoding_errors": "replace", **TIMEOUTS, "retry": Retry(NoBackoff(), 0),
            **self.login,
        }  # fmt: skip
        if self.by_sentinel:
            return self._master(common)
        if self.tls:
            common |= {"connection_class": SSLConnection, **self.tls}
        return Redis.from_url(_for_redis(self.urls[0]), **common)

    def _master(self, common: dict[str, Any]) -> Any:
        from redis.connection import parse_url
        from redis.sentinel import Sentinel

        if not self.options.get("master_name"):
            raise NotConfigured(
                "The records of tasks need the name of the sentinels' master: set 'master_name' in the transport "
                "options of ASOK_CELERY."
            )
        found = [parse_url(re.sub("^sentinel", "redis", url)) for url in self.urls]  # type: ignore[no-untyped-call]
        login = {key: found[0][key] for key in ("username", "password", "db") if key in found[0]}
        if self.tls:
            common |= {"ssl": True, **self.tls}
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            [(one.get("host", "127.0.0.1"), one.get("port", 26379)) for one in found],
            min_other_sentinels=self.options.get("min_other_sentinels", 0),
            sentinel_kwargs={**TIMEOUTS, **(self.options.get("sentinel_kwargs") or {})},
            **common | login,
        )
        return sentinel.master_for(self.options["master_name"])


def find_server(conf: Any) -> RedisServer | None:
    """
    Return the Redis for the records: the result backend, else the broker; None where neither is a Redis.

    `conf` is Celery's. Raises NotConfigured where the setting names several servers, and for a misspelt URL.
    """
    broker = conf.broker_url or conf.broker_write_url
    for key, url, tls, options, login in (
        (
            "result_backend",
            conf.result_backend,
            conf.redis_backend_use_ssl,
            conf.result_backend_transport_options,
            True,
        ),
        ("broker_url", broker, conf.broker_use_ssl, conf.broker_transport_options, False),
    ):
        urls = urls_of(url)
        is_sentinel = bool(urls) and all(one.startswith("sentinel://") for one in urls)
        if not is_sentinel and not any(one.startswith(REDIS_URLS) for one in urls):
            continue
        if len(urls) > 1 and not is_sentinel:
            raise NotConfigured(
                f"{key} names {len(urls)} servers, and the records of tasks are kept in one Redis: set "
                "ASOK_CELERY['result_backend'] to the URL of one."
            )
        prefix = (options or {}).get("global_keyprefix") or ""
        if prefix and key == "result_backend" and prefix[-1] not in ":_-.":
            # As Celery does, and for the result backend alone.
            prefix += "_"
        user = {"username": conf.get("redis_username"), "password": conf.get("redis_password")} if login else {}
        return RedisServer(
            urls, _tls_for_redis(tls), options or {}, {name: value for name, value in user.items() if value}, prefix
        )
    return None


def urls_of(setting: Any) -> tuple[str, ...]:
    """Return the URLs of a setting: one, a list, or several with semicolons between them."""
    settings = setting if isinstance(setting, (list, tuple)) else [setting or ""]
    return tuple(url.strip() for one in settings for url in str(one).split(";") if url.strip())


def _tls_for_redis(settings: Any) -> dict[str, Any]:
    """Translate `broker_use_ssl` or `redis_backend_use_ssl`; Celery ignores a mere True for Redis."""
    if not isinstance(settings, Mapping):
        return {}
    return {
        name: value.removeprefix("CERT_").lower() if name == "ssl_cert_reqs" and isinstance(value, str) else value
        for name, value in settings.items()
    }


def _for_redis(url: str) -> str:
    """Translate a URL of Celery's into one of redis-py's."""
    url = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda found: f"ssl_cert_reqs={found[1].lower()}", url)
    return re.sub(r"^(redis\+)?socket://", "unix://", url).replace("virtual_host=", "db=")
