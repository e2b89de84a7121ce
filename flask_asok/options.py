"""What goes with a call besides its arguments: retries, delay, queue and the rest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack

from .progress import plain_text
from .validate import Check, one_of, or_none

Backoff = float | Sequence[float] | Callable[[int], float]
When = Literal["now", "response", "commit"]
UniqueUntil = Literal["end", "start"]

LONGEST_KEY = 200
"""Characters of a unique key."""


class RetryValues(TypedDict, total=False):
    """What says whether and when a task is tried again: the keys of `if_durable`."""

    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    backoff: Backoff | None


class OptionValues(RetryValues, total=False):
    """The keywords that `background.using()` accepts."""

    delay: float | timedelta
    queue: str
    name: str | None
    timeout: float | timedelta | None
    when: When | None
    tracked: bool | None
    durable: bool | None
    unique: str | None
    unique_until: UniqueUntil


class FunctionValues(OptionValues, total=False):
    """What several functions of a recipe may have in common."""

    at_most_once: bool
    if_durable: RetryValues | None


class TaskOptionValues(FunctionValues, total=False):
    """The keywords that `@task()` accepts."""

    prepare: Callable[..., Any] | None
    run: Callable[[Any], Any] | None


PER_CALL: frozenset[str] = OptionValues.__optional_keys__
PER_FUNCTION: frozenset[str] = TaskOptionValues.__optional_keys__


@dataclass(slots=True, kw_only=True)
class Options:
    """The checked options of one call. Never changed once made: `replace` gives another one."""

    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    backoff: Backoff | None = None
    delay: float = 0.0
    """Seconds between the call and its first attempt."""
    queue: str = "default"
    name: str | None = None
    timeout: float | None = None
    """Seconds after which an attempt is too long."""
    when: When | None = None
    """None is now; on a transactional backend with the transaction of its caller, if that has written something."""
    tracked: bool | None = None
    """Does any process find the task by its id? None is `ASOK_TRACKED`."""
    durable: bool | None = None
    """Does the task survive its process? None is `ASOK_DURABLE`."""
    unique: str | None = None
    """While a task of the same function with this key lives, a call gets that one."""
    unique_until: UniqueUntil = "end"
    """When the key is free again: when the task ends, or when its first attempt begins."""
    prepare: Callable[..., Any] | None = None
    """Called in the caller's thread; returns `(args, kwargs)` for the function or, with `run`, what that gets."""
    run: Callable[[Any], Any] | None = None
    """What is run in the function's place, with what `prepare` made."""
    at_most_once: bool = False
    """A process that was lost while it ran the task may have done it: do not run the task again."""

    if_durable: Mapping[str, Any] | None = None
    """What holds instead where the task survives its process: it may then be tried for longer."""

    scheduled: float = 0.0
    """The tick that a run of a periodic task is for, in seconds since the epoch."""

    is_recorded: bool = field(init=False, default=False)
    """Is the task recorded, whatever the application's default is?"""
    is_deferred: bool = field(init=False, default=False)
    """Does the task wait for a response or a commit?"""

    def __post_init__(self) -> None:
        self.is_recorded = self.tracked is True or self.durable is True or self.unique is not None
        self.is_deferred = self.when is not None and self.when != "now"

    def replace(self, **values: Unpack[TaskOptionValues]) -> Options:
        """Return options with `values` in place of these; TypeError or ValueError says which value is invalid."""
        return dataclasses.replace(self, **checked_options(values))

    def of_call(self, values: Mapping[str, Any]) -> Options:
        """Return these options of a function with the checked `values` of a call, which beat `if_durable` as well."""
        rest = {name: value for name, value in (self.if_durable or {}).items() if name not in values}
        return dataclasses.replace(self, **{"if_durable": rest, **values})

    def of_durable(self) -> Options:
        """Return the options of a task that survives its process."""
        return dataclasses.replace(self, **(self.if_durable or {}), if_durable=None)


def checked_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as they will be used; TypeError or ValueError says which name or value is invalid."""
    unknown = next((name for name in values if name not in _CHECKS), None)
    if unknown is not None:
        raise TypeError(f"Unknown option {unknown!r}. Options are: {', '.join(sorted(_CHECKS))}.")
    return {name: _CHECKS[name](name, value) for name, value in values.items()}


def seconds(name: str, value: object) -> float:
    """Return finite seconds, 0 or more, of a number or a timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}.")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite and not negative, not such a number.") from None
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{name} must be finite and not negative, not {value!r}.")
    return found


def _retries(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}.")
    if value < 0:
        raise ValueError(f"{name} must not be negative, not {value}.")
    return value


def _retry_on(name: str, value: object) -> tuple[type[BaseException], ...]:
    types = value if isinstance(value, tuple) else (value,)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be an exception type or a tuple of them, not {value!r}.")
    return types


def _backoff(name: str, value: object) -> object:
    if value is None or callable(value):
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not value:
            raise ValueError(f"{name} must hold at least one number of seconds.")
        return tuple(seconds(name, item) for item in value)
    return seconds(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}.")
    return value


def _name(name: str, value: object) -> str:
    if not (found := _text(name, value)):
        raise ValueError(f"{name} must not be empty: leave it out, or pass None, for the name of the function.")
    # A name with half of a character, as `os.listdir()` gives for one that is not UTF-8, no store and no URL takes.
    return plain_text(found)


def _timeout(name: str, value: object) -> float:
    if not (found := seconds(name, value)):
        raise ValueError(f"{name} must be more than 0, not {value!r}: leave it out, or pass None, for no limit.")
    return found


def _function(name: str, value: object) -> object:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}.")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}.")
    return value


def _key(name: str, value: object) -> str:
    key = _text(name, value)
    if not 0 < len(key) <= LONGEST_KEY:
        raise ValueError(f"{name} must have from 1 to {LONGEST_KEY} characters, not {len(key)}.")
    # As above, but two such keys stay two.
    return key.encode("utf-8", "backslashreplace").decode()


def _if_durable(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of options, not {type(value).__name__}.")
    other = next((key for key in value if key not in RetryValues.__optional_keys__), None)
    if other is not None:
        raise TypeError(f"{name} takes {', '.join(sorted(RetryValues.__optional_keys__))}, not {other!r}.")
    return checked_options(value)


_CHECKS: dict[str, Check] = {
    "retries": _retries,
    "retry_on": _retry_on,
    "backoff": _backoff,
    "delay": seconds,
    "queue": _text,
    "name": or_none(_name),
    "timeout": or_none(_timeout),
    "when": or_none(one_of("now", "response", "commit")),
    "tracked": or_none(_flag),
    "durable": or_none(_flag),
    "unique": or_none(_key),
    "unique_until": one_of("end", "start"),
    "prepare": or_none(_function),
    "run": or_none(_function),
    "at_most_once": _flag,
    "if_durable": or_none(_if_durable),
}

DEFAULT = Options()
