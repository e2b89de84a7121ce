"""What a cache must refuse or warn of: the next reader would find it spent, incomplete, or without its session."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import sys
import warnings
from collections import deque
from collections.abc import AsyncIterator, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, Set, ValuesView
from itertools import chain, islice
from pathlib import Path
from typing import Any

from werkzeug.local import LocalProxy

from ...context import is_bound_to_session
from ...validate import a_kind, single_values

SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
"""Types of values that need no check."""

_STR = frozenset({str})

CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
"""Types that matter by their items alone."""

MOST_ITEMS = 100
"""Items of one container that are checked: a longer one holds more of the same."""

MOST_LOOKED_AT = 1_000
DEEPEST = 4

_PACKAGE = str(Path(__file__).parents[2])


def refuse_what_runs_out(key: str, value: Any) -> None:
    """Raise TypeError for a value that a later reader would find spent or changed: nothing else would notice."""
    if isinstance(value, (LocalProxy, Iterator, AsyncIterator)) or inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            # Otherwise Python warns that it was never awaited, and does not say where.
            value.close()
        kind = a_kind(type(value))
        raise TypeError(f"{key!r} cannot be cached: {kind} can be read only once or only here. Cache what it gives.")


def check_object(key: str, value: Any) -> None:
    """
    Refuse what runs out, and warn of what is bound to a database session, on the first levels of `value`.

    For stores that keep objects: JSON holds neither.
    """
    # A queue, so that the upper levels are checked first.
    pending: deque[tuple[Any, int, bool]] = deque([(value, 0, True)])
    for _ in range(MOST_LOOKED_AT):
        if not pending:
            return
        item, depth, is_open = pending.popleft()
        if type(item) not in CONTAINERS:
            if is_open:
                refuse_what_runs_out(key, item)
            if is_bound_to_session(item) or _is_scoped_session(item):
                _warn(type(item).__name__)
                return
        if depth < DEEPEST:
            items, is_container = _items(item)
            # An object of the application's own classes may keep an iterator for purposes of its own.
            is_open = is_open and is_container
            # Another thread may be changing the container.
            with contextlib.suppress(RuntimeError):
                pending.extend((inner, depth + 1, is_open) for inner in items if type(inner) not in SCALARS)


def refuse_what_json_loses(key: str, value: Any) -> None:
    """Raise TypeError if JSON would silently keep only a part of `value`, at whatever level."""
    pending: list[Any] = [value]
    seen: set[int] = set()
    for item in pending:  # grows, and keeps alive what `seen` knows by its id
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            if type(item) is not dict:
                single_values(f"{key!r} cannot be cached: JSON", item)
            if not _STR.issuperset(map(type, item)):
                _refuse_equal_names(key, item)
            inner: Iterable[Any] = item.values()
        elif isinstance(item, (list, tuple)):
            inner = item
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            inner = [getattr(item, field.name, None) for field in dataclasses.fields(item)]
        else:
            continue
        pending += [one for one in inner if type(one) not in SCALARS]


def _refuse_equal_names(key: str, value: dict[Any, Any]) -> None:
    try:
        names = json.loads(json.dumps(dict.fromkeys(value)))
    except TypeError:
        # The serializer meets the same key, and says so.
        return
    if len(names) < len(value):
        raise TypeError(
            f"{key!r} cannot be cached: JSON writes the keys of a dict as strings, and two would become one, like 1 "
            'and "1".'
        )


def _is_scoped_session(value: object) -> bool:
    orm = sys.modules.get("sqlalchemy.orm")
    return orm is not None and isinstance(value, orm.scoped_session)


def _items(value: Any) -> tuple[Iterable[Any], bool]:
    """Return what `value` holds, and whether it is a container and not some object."""
    if isinstance(value, (str, bytes, bytearray, memoryview, type)):
        return (), True
    if isinstance(value, Mapping):
        return chain(islice(value.values(), MOST_ITEMS), islice(value, MOST_ITEMS)), True
    # The rows of a query are sequences too. Other iterables may ask a database for their items.
    if isinstance(value, (Sequence, Set, ItemsView, KeysView, ValuesView)):
        return islice(value, MOST_ITEMS), True
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)], True
    if hasattr(type(value), "__mapper__") or callable(value) or inspect.ismodule(value):
        return (), True
    # A Pagination, a view model: an object that wraps what it shows.
    return getattr(value, "__dict__", {}).values(), False


def _warn(kind: str) -> None:
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"A {kind} bound to a database session was put into the cache, which keeps it for longer than the session "
        "lives. Cache plain values: dicts, ids.",
        stacklevel=level - 1 if frame is None else level,
    )
