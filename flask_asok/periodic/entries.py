"""What `@asok.periodic` has written down: which function, when, and how."""

from __future__ import annotations

import functools
import hashlib
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from ..callables import check_fits
from ..validate import seconds, text, wrong_type
from .schedules import Cron, Every, Schedule, check_line, zone_named

LONGEST_NAME = 150
"""Characters of a name, from which the key of a run is made."""

SHORTEST_PERIOD, LONGEST_PERIOD = 1.0, 100 * 366 * 86_400.0

SHORTEST_GRACE = 1.0
"""A clock looks at a tick some milliseconds after it: with none every tick would be late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One periodic task, as its application's code has it."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    every: float | None
    cron: str | None
    tz: str | None
    grace: float | None
    """Seconds by which a tick may be late and still runs; None for any."""
    overlap: bool
    """May a run begin while the one before it is still going on?"""
    jitter: float
    """The seconds after its tick within which a run begins."""

    @property
    def key(self) -> str | None:
        """The unique key that keeps two runs from overlapping."""
        return None if self.overlap else f"periodic:{self.name}"

    def schedule(self, zone: str) -> Schedule:
        """Return its ticks; `zone` is the application's, for a `cron` without `tz`."""
        return Every(self.every) if self.every is not None else _cron(self.cron or "", self.tz or zone)

    def due(self, app_name: str, tick: float) -> float:
        """Return when the run of a tick is to begin: with jitter a little later, and in every process at once."""
        if not self.jitter:
            return tick
        digest = hashlib.blake2b(f"{app_name}:{self.name}:{tick!r}".encode(), digest_size=8).digest()
        return tick + self.jitter * int.from_bytes(digest) / 2**64


class Listener(Protocol):
    """What is to know of a new entry."""

    def entry_added(self) -> None:
        """Take note of it."""


class Entries:
    """The periodic tasks of one FlaskAsok, by name, in the order of their making."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> Entry | None:
        """Return the one with this name, or None."""
        return self._entries.get(name)

    def add(self, entry: Entry) -> None:
        """Add one; ValueError if its name is taken: by another function, or by another schedule of this one."""
        other = self._entries.get(entry.name)
        if other is not None and other != entry and not _is_made_again(other.function, entry.function):
            raise ValueError(f"There is a periodic task {entry.name!r} already: give this one another name=.")
        self._entries[entry.name] = entry
        for listener in list(self._listeners):
            listener.entry_added()

    def on_new(self, listener: Listener) -> None:
        """Tell `listener`, which is held weakly, of each that is added from now on."""
        self._listeners.add(listener)


def checked_entry(
    function: Callable[..., Any],
    *,
    every: float | timedelta | None,
    cron: str | None,
    tz: str | None,
    name: str | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    grace: float | timedelta | None,
    overlap: bool,
    jitter: float | timedelta,
) -> Entry:
    """Return an entry of what `@asok.periodic` was given; TypeError, ValueError or NotConfigured says what is wrong."""
    _check_function(function)
    args, kwargs = tuple(args), dict(kwargs or {})
    check_fits(function, args, kwargs, of=function)
    if name is None:
        name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    if not 0 < len(text("name", name)) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"name must have from 1 to {LONGEST_NAME} printable characters, not {name!r}.")
    if not isinstance(overlap, bool):
        raise wrong_type("overlap", overlap, "True or False")
    period = _period(every, cron, tz)
    jitter = seconds("jitter", jitter)
    if jitter >= period:
        raise ValueError(f"jitter={jitter:g} must be below the period, which is {period:g} s.")
    return Entry(
        name=name,
        function=function,
        args=args,
        kwargs=kwargs,
        every=period if cron is None else None,
        cron=cron,
        tz=tz,
        grace=None if grace is None else _grace(grace),
        overlap=overlap,
        jitter=jitter,
    )


def checked_zone(name: str, value: object) -> str:
    """Return the name of a time zone; ValueError if the system does not know it."""
    try:
        zone_named(zone := text(name, value))
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{name}={value!r} is no time zone that this system knows. If the name is right, install the zones: "
            "pip install tzdata."
        ) from None
    return zone


def _is_made_again(function: Callable[..., Any], later: Callable[..., Any]) -> bool:
    """Return True for the function of a factory that is called twice, or of a module that is loaded again."""
    return function != later and getattr(function, "__code__", 0) == getattr(later, "__code__", 1)


def _check_function(function: object) -> None:
    if not callable(function):
        raise TypeError(f"@asok.periodic(...) decorates a function, not {type(function).__name__}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("@asok.periodic(...) decorates a function, not a generator: called, that would do nothing.")


def _period(every: float | timedelta | None, cron: str | None, tz: str | None) -> float:
    """Return the shortest time between two ticks."""
    if (every is None) == (cron is None):
        raise ValueError('A periodic task needs one of every= and cron=: every=300, or cron="0 3 * * *".')
    if cron is not None:
        if tz is not None:
            checked_zone("tz", tz)
        return check_line(text("cron", cron))
    if tz is not None:
        raise ValueError("tz= is for cron=: every= is counted from the epoch, in UTC.")
    period = seconds("every", every)
    if not SHORTEST_PERIOD <= period <= LONGEST_PERIOD:
        raise ValueError(f"every must be from 1 second to 100 years, not {period:g} s.")
    return period


def _grace(value: float | timedelta) -> float:
    grace = seconds("grace", value)
    if grace < SHORTEST_GRACE:
        raise ValueError(
            f"grace must be 1 second or more, not {grace:g} s: a clock wakes a moment after each tick. None is for "
            "however late."
        )
    return grace


@functools.lru_cache(maxsize=1_000)
def _cron(line: str, zone: str) -> Cron:
    return Cron(line, zone)
