"""What a store must do: keep values, and know which loads may still write to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, NamedTuple

from ..lifetime import Lifetime

OF_TASKS = "asok:"
"""What the keys of tasks begin with, of all applications: a cache may share their Redis."""

Entry = tuple[Any, bool]
"""A value and whether it is fresh, otherwise it is in its stale window. A bare tuple: a cache hit makes one."""


class Outcome(Enum):
    """What became of the value of a load."""

    STORED = "stored"
    SUPERSEDED = "superseded"
    """A later write or delete has beaten the load: nobody who asked since may get its value."""
    UNREACHABLE = "unreachable"


class Begun(NamedTuple):
    """
    The answer to `begin_load`: a token, or the fresh entry that makes the load needless.

    It has neither while another process loads: NOT_BEGUN.
    """

    token: Any = None
    entry: Entry | None = None


NOT_BEGUN = Begun()


class Store(ABC):
    """
    Keeps values under whole keys, and decides races between loads and writes.

    `begin_load` announces a load before it reads anything; `end_load` or `abort_load` ends it. Every write and delete
    strikes off the loads that began before it, and `end_load` refuses the value of a load that was struck off: so the
    later start wins, and `write` and `delete` beat a load in flight. A store remembers nothing of a key that has no
    load in flight.
    """

    shared: bool
    """Do other processes see its values?"""

    @abstractmethod
    def read(self, key: str) -> Entry | None:
        """Return the entry under `key`, or None. A store that cannot be reached has no entries."""

    def read_many(self, keys: list[str]) -> list[Entry | None]:
        """Return the entries under `keys`, in their order."""
        return [self.read(key) for key in keys]

    @abstractmethod
    def freeze(self, key: str, value: Any) -> Any:
        """Return `value` in the form in which it is kept; TypeError, naming `key`, for one that cannot be kept."""

    @abstractmethod
    def thaw(self, frozen: Any) -> Any:
        """Return the value that readers of `frozen` get."""

    @abstractmethod
    def write(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        """Keep a value; return False if the store cannot be reached."""

    @abstractmethod
    def begin_load(self, key: str, *, alone: bool, seconds: float) -> Begun:
        """
        Announce a load of `key`. Return its token.

        With `alone`, return instead the fresh entry if there is one, and NOT_BEGUN if another process has begun a load
        within the last `seconds`.
        """

    @abstractmethod
    def end_load(self, key: str, token: Any, frozen: Any, lifetime: Lifetime) -> Outcome:
        """Keep the value of the load `token`, unless it was struck off."""

    @abstractmethod
    def abort_load(self, key: str, token: Any) -> None:
        """End the load `token` without a value."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Delete the value, strike off every load; return True if there was a value. Raises CacheUnavailable."""

    @abstractmethod
    def clear(self, prefix: str) -> None:
        """Delete every value whose key begins with `prefix`. Raises CacheUnavailable."""

    def invalidate(self, key: str) -> None:  # noqa: B027 - most stores are always within reach
        """Delete the value as soon as the store can be reached again: its successor could not be written."""

    def close(self) -> None:  # noqa: B027 - most stores open nothing
        """Close what the store has opened itself."""

    def renew(self) -> None:  # noqa: B027 - most stores hold no lock
        """In a forked child: replace the locks that a thread of the parent may hold, and forget the parent's loads."""
