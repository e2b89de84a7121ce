"""The Message: one call on its way to a worker."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import MessageRefused
from ..summaries import TaskSummary

compact: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":")).encode
"""JSON without spaces. What is not ASCII is escaped, so a character is a byte."""


VERSION = 1
"""Of the messages that this release writes. What only a later one can run gets a higher one."""


@dataclass(slots=True, kw_only=True)
class Message:
    """
    One call on its way to a worker. Every value is plain JSON: a Serializer has encoded all others.

    Workers of the version before read what this one sends, and the other way round: a field is never renamed, a new one
    has a default, and one that this version does not know is passed on.
    """

    v: int = VERSION
    id: str
    """The task's."""
    fn: str
    """The function's name, by `Names`."""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    g: dict[str, Any] = field(default_factory=dict)
    """The plain values of the caller's `g`."""
    url: list[Any] | None = None
    """Server name, script name, subdomain and scheme of the caller's URL adapter."""
    trace: dict[str, str] = field(default_factory=dict)
    """The headers of the caller's OpenTelemetry span."""
    name: str
    """The task's name, for logs."""
    queue: str
    options: dict[str, Any] = field(default_factory=dict)
    """The options of this call that differ from those of its function."""
    once: bool = False
    """Must the task run at most once?"""
    timeout: float | None = None
    attempt: int = 1
    """The number of the attempt that the message asks for, from 1."""
    enqueued: float = 0.0
    """When `background()` was called, in Unix time."""
    due: float = 0.0
    """When the attempt may begin; 0 for now."""
    scheduled: float = 0.0
    """The tick of a periodic task; 0 for any other."""
    keep: bool = False
    """Is what comes out of the task kept for other processes?"""
    unique_until: str = "end"
    """When the unique key of the task is free again."""
    recorded: bool = False
    """Does a store keep it? Then a task without a record is settled, and long ago."""
    unknown: dict[str, Any] = field(default_factory=dict)
    """The fields of a later version."""

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Message:
        """Return the message that `as_payload` was called on; MessageRefused where a field is missing."""
        missing = sorted({"id", "fn", "name", "queue"} - payload.keys())
        if missing:
            raise MessageRefused(f"The message lacks its {missing[0]!r}.")
        known = {name: payload[name] for name in _FIELDS if name in payload}
        return cls(**known, unknown={name: value for name, value in payload.items() if name not in _FIELDS})

    def log_fields(self) -> dict[str, Any]:
        """Return the `extra` fields of a log record about the task, which this process has not restored."""
        summary = TaskSummary(self.name, self.queue, self.id)
        summary.enqueued, summary.attempts = self.enqueued, self.attempt
        summary.due = self.due or self.enqueued
        return summary.log_fields()

    def as_payload(self) -> dict[str, Any]:
        """Return the message as JSON has it."""
        payload = dict(zip(_ALWAYS, _always_of(self), strict=True))
        for name, default in _LATEST.items():
            if getattr(self, name) != default:
                payload[name] = getattr(self, name)
        return {**payload, **self.unknown} if self.unknown else payload

    def as_text(self) -> str:
        """Return the message as JSON, as a record keeps it: without what is as it is by default."""
        parts = [
            fields_as_text(
                self.v, self.fn, self.name, self.queue, self.url or (), self.id, self.args, self.kwargs, self.enqueued
            )
        ]
        seldom = _seldom_of(self)
        if seldom != _SELDOM_DEFAULTS:
            for name, value, default in zip(_SELDOM, seldom, _SELDOM_DEFAULTS, strict=True):
                if value != default:
                    parts.append(f'"{name}":{_as_text(value)}')
        parts += [f"{_as_text(name)}:{_as_text(value)}" for name, value in self.unknown.items()]
        return f"{{{','.join(parts)}}}"


_FIELDS = tuple(found.name for found in fields(Message) if found.name != "unknown")

_LATEST: dict[str, object] = {"scheduled": 0.0, "keep": False, "unique_until": "end", "recorded": False}
"""The defaults of fields that most messages do without: they are written where they say something else."""

_ALWAYS = tuple(name for name in _FIELDS if name not in _LATEST)
_always_of: Callable[[Message], tuple[Any, ...]] = operator.attrgetter(*_ALWAYS)

_EMPTY = Message(id="", fn="", name="", queue="")
_OFTEN = frozenset({"v", "id", "fn", "name", "queue", "url", "args", "kwargs", "enqueued"})
_SELDOM = tuple(name for name in _FIELDS if name not in _OFTEN)
"""What most messages say nothing of: to compare all of it at once is half of the work."""
_seldom_of: Callable[[Message], tuple[Any, ...]] = operator.attrgetter(*_SELDOM)
_SELDOM_DEFAULTS = _seldom_of(_EMPTY)

_SHORT = 8


@functools.lru_cache(maxsize=256)
def _head(v: int, fn: str, name: str, queue: str, *url: str | None) -> str:
    """Return what the calls of a function share, as JSON without its braces: to write it takes as long as the rest."""
    fields = {"v": v, "fn": fn, "name": name, "queue": queue}
    return compact({**fields, "url": url} if url else fields)[1:-1]


def fields_as_text(
    v: int,
    fn: str,
    name: str,
    queue: str,
    url: Sequence[Any],
    id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    enqueued: float,
) -> str:
    """Return the fields that most messages have, as JSON without its braces; the others stay at their defaults."""
    text = f'{_head(v, fn, name, queue, *url)},"id":{compact(id)}'
    if args:
        text += f',"args":{_as_text(args)}'
    if kwargs:
        text += f',"kwargs":{compact(kwargs)}'
    return f'{text},"enqueued":{_as_text(enqueued)}' if enqueued else text


def _as_text(value: Any) -> str:
    """Return a value as `compact` does, which for anything but a str gets ready for longer than short values take."""
    kind = type(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if (kind is list or kind is tuple) and len(value) <= _SHORT:
        return f"[{','.join(map(_as_text, value))}]"
    return compact(value)


def size_of(part: Any) -> int:
    """Return the bytes that a part of a message has as JSON."""
    return len(compact(part))


def check_size(message: Message, size: int, most: int) -> None:
    """Raise ValueError, which names the largest argument, if the `size` of the message is more than `most` bytes."""
    if size <= most:
        return
    name = message.name
    parts = {f"argument {n} of {name}": part for n, part in enumerate(message.args, 1)}
    parts |= {f"argument {key!r} of {name}": part for key, part in message.kwargs.items()}
    parts |= {f"g.{key}": part for key, part in message.g.items()}
    sizes = {where: size_of(part) for where, part in parts.items()}
    largest = max(sizes, key=lambda where: sizes[where], default="")
    raise ValueError(
        f"The message of {name} would have {size:,} bytes, more than ASOK_MESSAGE_MAX_BYTES ({most:,}); {largest} has "
        f"{sizes.get(largest, 0):,}. Pass a path or an id, by which the task finds what it needs."
    )
