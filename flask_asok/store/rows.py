"""Records as rows of SQLite, and the other way round."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .hashes import packed
from .readable import record_fields
from .record import Record

_COLUMNS = tuple(field.name for field in dataclasses.fields(Record))
_PROGRESS = _COLUMNS.index("progress")
_columns_of: Callable[[Record], tuple[Any, ...]] = operator.attrgetter(*_COLUMNS)
_LATER = (
    "attempts", "scheduled", "started", "finished", "claim", "deaths", "key", "unique_key", "stopping", "progress",
    "error", "traceback", "outcome", "history",
)  # fmt: skip
"""The columns that say nothing yet of most new tasks. To leave them out makes an insert a fifth quicker."""
_AT_FIRST = tuple(name for name in _COLUMNS if name not in _LATER)
_later_of: Callable[[Record], tuple[Any, ...]] = operator.attrgetter(*_LATER)
_at_first_of: Callable[[Record], tuple[Any, ...]] = operator.attrgetter(*_AT_FIRST)
_NOTHING = _later_of(Record(id="", name="", queue=""))


def _insert(columns: Sequence[str]) -> str:
    return f"INSERT INTO task ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


_INSERT = f"{_insert(_COLUMNS)} ON CONFLICT (key) WHERE key <> '' DO NOTHING"
_INSERT_NEW = _insert(_AT_FIRST)

SELECT = f"SELECT {', '.join(_COLUMNS)} FROM task"
"""The rows that `record_in` reads."""


def insertion_of(record: Record) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that inserts a record, unless another one has its key, and the values for it."""
    if _later_of(record) == _NOTHING:
        return _INSERT_NEW, _at_first_of(record)
    values = _columns_of(record)
    if record.progress is not None:
        values = (*values[:_PROGRESS], packed(record.progress), *values[_PROGRESS + 1 :])
    return _INSERT, values


def record_in(row: Sequence[Any]) -> Record:
    """Return the record that a row holds."""
    return Record(**record_fields(dict(zip(_COLUMNS, row, strict=True))))
