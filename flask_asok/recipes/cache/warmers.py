"""Which `@cached` functions can be warmed, and with which arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .decorator import Cached, registered


class Warmer(NamedTuple):
    """One key that can be warmed without further arguments."""

    key: str
    cached: Cached[..., Any]
    args: tuple[Any, ...]
    error: Exception | None = None
    """Why its arguments are unknown: what its `each` raised."""


def warmable(keys: Iterable[str] | None = None) -> list[Warmer]:
    """Return what `warm_all` would warm for `keys`; ValueError for an unknown key."""
    functions = registered()
    if keys is None:
        return [warmer for function in functions for warmer in _warmers(function)]
    wanted = list(dict.fromkeys(keys))
    templates = {function.template for function in functions}
    # `each` is often a query: ask only the functions that may make a wanted key.
    asked = [function for function in functions if function.template in wanted or not templates.issuperset(wanted)]
    found = [warmer for function in asked for warmer in _warmers(function)]
    chosen: list[Warmer] = []
    for key in wanted:
        matching = [warmer for warmer in found if key in (warmer.key, warmer.cached.template)]
        if not matching:
            known = ", ".join(function.template for function in functions if is_warmable(function)) or "none"
            raise ValueError(f"No @cached function can warm {key!r}. Known keys are: {known}.")
        chosen += [warmer for warmer in matching if warmer not in chosen]
    return chosen


def is_warmable(function: Cached[..., Any]) -> bool:
    """Return True if it can be warmed without further arguments."""
    return function.each is not None or not function.has_arguments


def _warmers(function: Cached[..., Any]) -> list[Warmer]:
    if not function.has_arguments:
        return [Warmer(function.key(), function, ())]
    if function.each is None:
        return []
    try:
        calls = [args if isinstance(args, tuple) else (args,) for args in function.each()]
        return [Warmer(function.key(*args), function, args) for args in calls]
    except Exception as error:
        return [Warmer(function.template, function, (), error)]
