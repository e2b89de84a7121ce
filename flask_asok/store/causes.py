"""Why a server cannot be used, in words of our own: the library's may hold a URL and its password."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

SAID = {
    # redis-py
    "AuthenticationError": "the user or password is refused",
    "AuthenticationWrongNumberOfArgsError": "the user or password is refused",
    "NoPermissionError": "the user's ACL does not permit it",
    "BusyLoadingError": "it is still loading its data",
    "ReadOnlyError": "it is a read-only replica",
    "OutOfMemoryError": "its memory is full",
    "MaxConnectionsError": "too many connections",
    "MasterNotFoundError": "no sentinel answers that knows the master",
    # py-amqp
    "AccessRefused": "the user or password is refused",
    "NotAllowed": "the virtual host is missing, or closed to this user",
}
"""By the name of the class, so that neither library needs to be installed."""


def cause_of(error: BaseException) -> str:
    """Return why the server cannot be used; for an unknown error the name of its class."""
    errors = list(_chain(error))
    for found in errors:
        for kind in type(found).__mro__:
            if kind.__name__ in SAID:
                return SAID[kind.__name__]
    for found in reversed(errors):
        if (said := _said_by_system(found)) is not None:
            return said
    if any(kind.__name__ == "TimeoutError" for found in errors for kind in type(found).__mro__):
        return "no answer in time"
    return type(error).__name__


def address_of(url: str) -> str:
    """Return host and port of `url`, or the path of its socket; "" where a password might be taken for them."""
    try:
        parts = urlsplit(url)
        if "@" in f"{parts.path}{parts.query}{parts.fragment}":
            return ""
        if "socket" in parts.scheme or parts.scheme == "unix":
            return f"{parts.hostname or ''}{parts.path}"
        default = 5672 if parts.scheme in ("amqp", "pyamqp") else 5671 if parts.scheme == "amqps" else 6379
        host = parts.hostname or "127.0.0.1"
        return f"[{host}]:{parts.port or default}" if ":" in host else f"{host}:{parts.port or default}"
    except ValueError:
        return ""


def at(address: str, error: BaseException) -> str:
    """Return the address and the cause, as the end of a sentence."""
    return f"{address}: {cause_of(error)}." if address else f"{cause_of(error)}."


def _said_by_system(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)
        return f"TLS failed ({reason})" if reason else "TLS failed"
    if isinstance(error, socket.gaierror):
        return "the host's name is unknown"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, also those that `from None` hides."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
