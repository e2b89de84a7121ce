"""A record as a hash in Redis has it: how it is written, and how it is read, whatever is written there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args

from ..progress import Progress
from ..summaries import State
from .base import Record
from .readable import COUNTS, TIMES, count_in, progress_in, time_in

NAMES = tuple(field.name for field in dataclasses.fields(Record))

_STATES = frozenset(get_args(State))


def fields_of(record: Record) -> dict[str, Any]:
    """Return what is written of a record: no None, which Redis does not have, and no text that is empty."""
    fields = {name: getattr(record, name) for name in NAMES}
    fields["stopping"] = "1" if record.stopping else ""
    fields["progress"] = None if record.progress is None else packed(record.progress)
    return {
        name: repr(value) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None and value != ""
    }


def packed(progress: Progress) -> str:
    """Return a progress as its field or column has it: `progress_in` reads it."""
    return json.dumps([progress.done, progress.total, progress.text, progress.at])


def record_of(id: str, found: Mapping[str, str]) -> Record | None:
    """Return the record whose fields these are, a default for each that is not valid; None without a state."""
    if found.get("state") not in _STATES:
        return None
    fields: dict[str, Any] = {"name": "unknown", "queue": "unknown"}
    fields |= {name: found[name] for name in NAMES if name in found}
    for name in TIMES:
        fields[name] = time_in(fields.get(name))
    for name, most in COUNTS.items():
        fields[name] = count_in(fields.get(name), most)
    fields["stopping"] = fields.get("stopping") == "1"
    fields["progress"] = progress_in(fields.get("progress"))
    return Record(**{**fields, "id": id})
