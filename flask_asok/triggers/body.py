"""The body of a response that a server gets bare, without the response around it: a file, above all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def closing(body: Iterable[bytes], then: Callable[[], None], *, is_of_server: bool) -> Iterable[bytes]:
    """
    Return `body` such that `then` is called when it has been closed.

    With `is_of_server` it stays the very object wherever that is possible: servers that have a `wsgi.file_wrapper` send
    a file by the system's `sendfile` where they get back what that has made, and nothing around it.
    """
    if isinstance(body, (list, tuple)):
        # Still a sequence: of one Werkzeug counts the bytes.
        body = _Sequence(body)
    elif not is_of_server:
        return _Wrapped(body, then)
    try:
        body.close = _Close(body, then)  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        # A generator, for one, takes no attribute.
        return _Wrapped(body, then)
    return body


class _Close:
    """Stands in for the `close` of a body."""

    def __init__(self, body: Any, then: Callable[[], None]) -> None:
        self._close = getattr(body, "close", None)
        self._then = then

    def __call__(self) -> None:
        # Only once, since the method and its body keep each other alive until then.
        close, self._close = self._close, None
        try:
            if close is not None:
                close()
        finally:
            self._then()


class _Sequence(list[bytes]):
    """A list that takes an attribute."""


class _Wrapped:
    def __init__(self, body: Iterable[bytes], then: Callable[[], None]) -> None:
        self._body = body
        self.close = _Close(body, then)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)
