"""What is told of the server that could not be used."""

import ssl

import pytest
from amqp.exceptions import NotAllowed
from redis.exceptions import AuthenticationError, MaxConnectionsError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flask_asok.store.causes import address_of, at, cause_of


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://127.0.0.1:6380/0", "127.0.0.1:6380"),
        ("rediss://me:a-password@redis.example/0", "redis.example:6379"),
        ("redis://", "127.0.0.1:6379"),
        ("redis+socket:///run/redis.sock", "/run/redis.sock"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
        ("amqp://me:a-password@rabbit.example//shop", "rabbit.example:5672"),
        ("pyamqp://rabbit.example", "rabbit.example:5672"),
        ("amqps://rabbit.example", "rabbit.example:5671"),
        ("redis://[::1]:6379/0", "[::1]:6379"),
        # A password that should have been percent-encoded ends up in the wrong part.
        ("redis://:a/password@127.0.0.1/0", ""),
        ("redis://:a#password@127.0.0.1/0", ""),
        ("redis://me:a?password@127.0.0.1/0", ""),
        ("redis://me:password", ""),
    ],
)
def test_address(url, address):
    """Host and port, or the path of the socket; nothing where a piece of the password could be taken for it."""
    assert address_of(url) == address


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (AuthenticationError("invalid username-password pair for me"), "the user or password is refused"),
        (NotAllowed("vhost a-password"), "the virtual host is missing, or closed to this user"),
        (MaxConnectionsError("a-password"), "too many connections"),
        (RedisTimeoutError("a-password"), "no answer in time"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "TLS failed"),
        (OSError("a-password"), "OSError"),
        (RuntimeError("redis://:a-password@host"), "RuntimeError"),
    ],
)
def test_cause(error, cause):
    """The cause is told in our words, and never in the library's, which may quote a URL."""
    assert cause_of(error) == cause
    assert at("", error) == f"{cause}."
    assert at("host:1", error) == f"host:1: {cause}."


def raise_from_none():
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except OSError:
        raise RuntimeError("redis://:a-password@host") from None


def test_cause_of_a_cause():
    """What lies behind the library's error is what counts, however it was raised."""
    with pytest.raises(RuntimeError) as raised:
        raise_from_none()

    assert cause_of(raised.value) == "connection refused"
