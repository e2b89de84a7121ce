"""What a store owes: where values are kept, and which loads may still write to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, NamedTuple

from ..lifetime import Lifetime

Entry = tuple[Any, bool]
"""A value as it was found, and whether it is fresh; one that is not is in its stale window."""


class Outcome(Enum):
    """What became of a value that a load brought."""

    STORED = "stored"
    SUPERSEDED = "superseded"
    """A later write or delete has beaten the load: its value must not be handed to anyone who asked since."""
    UNREACHABLE = "unreachable"


class Begun(NamedTuple):
    """
    The answer to `begin`: a token, or the fresh entry that makes the load needless, or neither: another one loads.
    """

    token: Any = None
    entry: Entry | None = None


class Store(ABC):
    """
    Keeps values under whole keys, and settles races between loads and writes.

    A load is announced with `begin` before its loader runs, and ended by `put` or `abort`. Every write and delete
    strikes off the loads that began before it, and `put` refuses the value of a load that was struck off: so the later
    start wins, and `write` and `delete` beat a load in flight. Nothing is remembered of a key that has no load in
    flight.
    """

    shared: bool
    """Do other processes see it?"""

    @abstractmethod
    def read(self, key: str) -> Entry | None:
        """Return the entry under `key`, or None. A store that cannot be reached has none."""

    def read_many(self, keys: list[str]) -> list[Entry | None]:
        """Return the entries under `keys`, in their order."""
        return [self.read(key) for key in keys]

    @abstractmethod
    def freeze(self, key: str, value: Any) -> Any:
        """Return `value` in the form in which it is kept; TypeError, naming `key`, for one that cannot be."""

    @abstractmethod
    def thaw(self, frozen: Any) -> Any:
        """Return the value that readers of `frozen` will get."""

    @abstractmethod
    def write(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        """Keep a value; False when the store cannot be reached."""

    @abstractmethod
    def begin(self, key: str, *, alone: bool, seconds: float) -> Begun:
        """
        Announce a load of `key`. Return its token.

        With `alone`, only if there is no fresh entry, which is returned instead, and no other process has begun one
        within the last `seconds`: then neither is returned.
        """

    @abstractmethod
    def put(self, key: str, token: Any, frozen: Any, lifetime: Lifetime) -> Outcome:
        """Keep the value of the load `token`, unless it was struck off."""

    @abstractmethod
    def abort(self, key: str, token: Any) -> None:
        """End the load `token` without a value."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete the value and strike off every load; was there one? Raises CacheUnavailable if it cannot be done."""

    @abstractmethod
    def clear(self, prefix: str) -> None:
        """Delete every value whose key begins with `prefix`; CacheUnavailable if it cannot be done."""

    def distrust(self, key: str) -> None:  # noqa: B027 - most stores are always within reach
        """
        Delete what is there once the store can be reached again: what should have replaced it could not be written.
        """

    def close(self) -> None:  # noqa: B027 - most stores hold nothing that is to be closed
        """Give back what the store has opened itself."""

    def renew(self) -> None:  # noqa: B027 - most stores hold no lock
        """Replace, in a forked child, the locks that a thread of the parent may hold, and forget its loads."""


class Loads:
    """The loads in flight in this process, in the order in which they began. Its store's lock guards it."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[object]] = {}

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def begin(self, key: str) -> object:
        """Note a load of `key`; return its token."""
        token = object()
        self._tokens.setdefault(key, []).append(token)
        return token

    def finish(self, key: str, token: object) -> bool:
        """Strike off the load and those before it; False when it was struck off already."""
        tokens = self._tokens.get(key, [])
        if token not in tokens:
            return False
        self._keep(key, tokens[tokens.index(token) + 1 :])
        return True

    def abort(self, key: str, token: object) -> None:
        """Strike off this load only."""
        self._keep(key, [other for other in self._tokens.get(key, []) if other is not token])

    def strike(self, key: str) -> None:
        """Strike off every load of `key`."""
        self._tokens.pop(key, None)

    def strike_all(self, prefix: str) -> None:
        """Strike off every load of the keys that begin with `prefix`."""
        self._tokens = {key: tokens for key, tokens in self._tokens.items() if not key.startswith(prefix)}

    def _keep(self, key: str, tokens: list[object]) -> None:
        if tokens:
            self._tokens[key] = tokens
        else:
            self._tokens.pop(key, None)
