"""
Check what a caller or a configuration gives.

Each check takes the name to say in its error and the value, and returns the value as it will be used; TypeError or
ValueError says what it must be. `or_none`, `one_of` and the like make such a check.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

Check = Callable[[str, Any], Any]

_ALL_VALUES = ("getlist", "getall", "get_list", "get_all")
"""The methods that return all values of a key: of Werkzeug and urllib3, multidict and WebOb, httpx, `email`."""


def seconds(name: str, value: object) -> float:
    """Return finite seconds, 0 or more, of a number or a timedelta."""
    found = _seconds(name, value)
    if not 0 <= found < math.inf:
        raise ValueError(f"{name} must be seconds, 0 or more, not {value!r}.")
    return found


def positive_seconds(name: str, value: object) -> float:
    """Return finite seconds, more than 0, of a number or a timedelta."""
    found = _seconds(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be seconds, more than 0, not {value!r}.")
    return found


def _seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(name, value, "seconds, or a timedelta")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def whole(least: int) -> Check:
    """Return a check for whole numbers from `least` on."""

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, value, f"a whole number, {least} or more")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, not {value!r}.")
        if value > sys.maxsize:
            raise ValueError(f"{name} must be {sys.maxsize} or less.")
        return value

    return check


def flag(name: str, value: object) -> bool:
    """Return True or False, and take nothing else for one of them."""
    if not isinstance(value, bool):
        raise wrong_type(name, value, "True or False")
    return value


def text(name: str, value: object) -> str:
    """Return a str."""
    if not isinstance(value, str):
        raise wrong_type(name, value, "a str")
    return value


def certificates(name: str, value: object) -> str:
    """Return the path of a file of certificates (PEM), which is read once to see that they are there."""
    # Slow to import, and few applications need it.
    import ssl

    path = text(name, value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{name}: {path} holds no certificates (PEM): {error.strerror}.") from None
    return path


def task_id(value: str) -> str:
    """Return an id, or the None of a task that is not there yet; a Task in its place would be known nowhere."""
    if value is not None and not isinstance(value, str):
        raise wrong_type("id", value, "the id of a task, `task.id`")
    # What no store takes, half of a character or a NUL, is in no id: "?" is not in one either.
    return value and value.encode("utf-8", "replace").decode().replace("\0", "?")


def mapping(name: str, value: object) -> Mapping[Any, Any]:
    """Return a mapping."""
    if not isinstance(value, Mapping):
        raise wrong_type(name, value, "a dict")
    return value


def one_of(*allowed: str) -> Check:
    """Return a check for one of a few words."""
    words = " or ".join([", ".join(f'"{word}"' for word in allowed[:-1]), f'"{allowed[-1]}"'])

    def check(name: str, value: object) -> object:
        if value not in allowed:
            raise ValueError(f"{name} must be {words}, not {value!r}.")
        return value

    return check


def single_values(name: str, value: Any, *, takes_lists: bool = True) -> Any:
    """
    Refuse a form and its like: under one key it may have several values, where a dict or JSON keeps one.

    `takes_lists`: a list for each key is welcome instead.
    """
    if any(hasattr(value, method) for method in _ALL_VALUES):
        way_out = "a dict with a list for each key" if takes_lists else "a dict with one value for each key"
        if hasattr(value, "to_dict"):
            way_out = "its to_dict(flat=False)" if takes_lists else "its to_dict()"
        kind = a_kind(type(value))
        raise TypeError(f"{name} cannot hold {kind}, in which a key may have several values: pass {way_out}.")
    return value


def anything(name: str, value: Any) -> Any:
    """Return the value: it is checked where it is used."""
    return value


def a_kind(kind: type) -> str:
    """Return the name of a type with its article: an Order and an Upload, but a User and a UUID."""
    article = "an" if re.match(r"(?i)(?!eu|un[it]|ur[il]|us|uu)[aeiou]", kind.__name__) else "a"
    return f"{article} {kind.__name__}"


def wrong_type(name: str, value: object, wanted: str) -> TypeError:
    """Return the error for a value of another type. It does not quote the value, which may hold a secret."""
    return TypeError(f"{name} must not be of type {type(value).__name__}: give {wanted}.")


def check_by_name(misplaced: tuple[object, ...], call: str, example: str) -> None:
    """Raise TypeError if a call that takes its arguments by name got one without: a decorator without parentheses."""
    if misplaced:
        raise TypeError(f"{call} takes its arguments by name: write {example}.")


def or_none(check: Check) -> Check:
    """Return a check that lets None pass, and gives everything else to `check`."""

    def checked(name: str, value: object) -> Any:
        return None if value is None else check(name, value)

    return checked
