"""How long a value is fresh and then stale, in seconds."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import Literal, NamedTuple

Seconds = float | timedelta


class _Unset(Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset.UNSET
"""No value was given, so the default applies: None is a lifetime of its own."""

Ttl = Seconds | Literal[_Unset.UNSET] | None
Stale = Seconds | Literal[_Unset.UNSET]


class Lifetime(NamedTuple):
    """Seconds for which a value is fresh, infinite for one that never expires, and for which it may be served stale."""

    ttl: float
    stale: float

    @property
    def kept(self) -> float:
        """Seconds after which the value is gone."""
        return self.ttl + self.stale


def fresh_seconds(ttl: Seconds | None) -> float:
    """Return `ttl` in seconds, infinity for None; TypeError or ValueError for an invalid one."""
    if ttl is None:
        return math.inf
    seconds = _seconds("ttl", ttl)
    if seconds <= 0:
        raise ValueError(f"ttl must be more than 0 seconds, not {ttl!r}. Use None for a value that never expires.")
    return seconds


def stale_seconds(stale: Seconds) -> float:
    """Return `stale` in seconds; TypeError or ValueError for an invalid window."""
    seconds = _seconds("stale", stale)
    if seconds < 0:
        raise ValueError(f"stale must not be negative, not {stale!r}.")
    return seconds


def _seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}.")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value!r}.")
    return float(value)
