"""Values as JSON and back: the arguments of a call on its way to a worker, and what the worker returns."""

from __future__ import annotations

import base64
import dataclasses
import enum
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cached_property
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from werkzeug.datastructures import CombinedMultiDict, ImmutableMultiDict, MultiDict

from ..errors import MessageRefused, TaskFailed
from ..validate import a_kind
from .names import Names

TAG = "__asok__"
"""The key of a JSON object that stands for a value which JSON lacks: `{TAG: kind, "": data}`."""

DEEPEST = 100
"""How deep a value may be nested. A worker has to read it too, and has less of Python's stack left than a request."""

LARGEST = 2**1024
"""Python neither writes nor reads an int of more than 4,300 decimal digits."""


PATHS: dict[type, str] = {
    PosixPath: "Path",
    WindowsPath: "WindowsPath",
    PurePosixPath: "PurePosixPath",
    PureWindowsPath: "PureWindowsPath",
}
"""The kinds of paths that can be sent, and their names in a message. No system makes the concrete path of another."""


_AS_IT_IS = frozenset({type(None), bool, float, str})
"""The types of values that are JSON already; and `int`, up to a bound."""


def is_plain(value: Any) -> bool:
    """Return True for a value that is JSON as it is, and that nobody can change."""
    return type(value) in _AS_IT_IS or (type(value) is int and -LARGEST < value < LARGEST)


class Serializer:
    """Values as JSON and back: what JSON has, and what else Flask applications pass around."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def encode(self, value: Any, where: str) -> Any:
        """Return `value` as plain JSON; TypeError, which names the argument `where`, if it cannot be sent."""
        if is_plain(value):
            return value
        try:
            return self._encode(value, where, DEEPEST)
        except RecursionError:
            raise TypeError(f"{where} cannot travel to a worker: the call itself is nested too deeply.") from None

    def _encode(self, value: Any, where: str, depth: int) -> Any:
        kind = type(value)
        if kind in _AS_IT_IS:
            return value
        if kind is int and -LARGEST < value < LARGEST:
            return value
        if not depth:
            raise TypeError(f"{where} cannot travel to a worker: it is nested too deeply, or holds itself.")
        if kind is list:
            return [self._encode(item, where, depth - 1) for item in value]
        if kind is dict and all(type(key) is str for key in value) and TAG not in value:
            return {key: self._encode(item, where, depth - 1) for key, item in value.items()}
        return self._encode_tagged(value, kind, where, depth - 1)

    def decode(self, value: Any) -> Any:
        """Return what `encode` was given; MessageRefused for what `encode` never made."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if TAG not in value:
            return {key: self.decode(item) for key, item in value.items()}
        try:
            return self._decoders()[value[TAG]](value[""])
        except MessageRefused:
            raise
        except Exception as error:
            raise MessageRefused(f"A value of kind {value[TAG]!r} is malformed.") from error

    def _encode_tagged(self, value: Any, kind: type, where: str, depth: int) -> dict[str, Any]:
        def all_of(values: Iterable[Any]) -> list[Any]:
            return [self._encode(item, where, depth) for item in values]

        if kind is int:
            return {TAG: "int", "": hex(value)}
        if kind in (tuple, set, frozenset):
            return {TAG: kind.__name__, "": all_of(value)}
        if kind is dict:
            return {TAG: "dict", "": all_of(list(item) for item in value.items())}
        if kind in (bytes, bytearray):
            return {TAG: kind.__name__, "": base64.b64encode(value).decode()}
        if kind is date:
            return {TAG: "date", "": value.isoformat()}
        if kind in (datetime, time):
            # An offset alone would lose the zone, and with it the hour that the end of summer time repeats.
            zone = _zone(value.tzinfo, where)
            local = value if zone is None else value.replace(tzinfo=None)
            return {TAG: kind.__name__, "": [local.isoformat(), zone, value.fold]}
        if kind is timedelta:
            return {TAG: "timedelta", "": [value.days, value.seconds, value.microseconds]}
        if kind in (Decimal, UUID):
            return {TAG: kind.__name__, "": str(value)}
        if kind in PATHS:
            return {TAG: PATHS[kind], "": str(value)}
        if kind in (MultiDict, ImmutableMultiDict):
            return {TAG: kind.__name__, "": all_of(list(item) for item in value.items(multi=True))}
        if kind is CombinedMultiDict:
            return {TAG: kind.__name__, "": all_of(value.dicts)}
        if (travels := getattr(kind, "__asok_travels__", None)) is not None:
            # Of a recipe: it knows what another process needs, or why there is none that could use it.
            value = travels(value)
            kind = type(value)
        try:
            if isinstance(value, enum.Flag):
                return {TAG: "enum", "": [self._names.of(kind), value.value]}
            if isinstance(value, enum.Enum):
                return {TAG: "enum", "": [self._names.of(kind), value.name]}
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = _fields(value)
                return {TAG: "dataclass", "": [self._names.of(kind), self._encode(fields, where, depth)]}
            if callable(value):
                return {TAG: "callable", "": self._names.of(value)}
        except TypeError as error:
            if str(error).startswith(where):
                # Of a value inside of this one.
                raise
            raise TypeError(f"{where} cannot travel to a worker: {error}") from error
        raise TypeError(
            f"{where} is {a_kind(kind)}, which cannot travel to a worker. Pass plain values: an id to load it by, "
            "a path, a str, a number, a date, a list or dict of those."
        )

    def _decoders(self) -> dict[str, Callable[[Any], Any]]:
        def pairs(data: Any) -> list[tuple[Any, Any]]:
            return [(key, item) for key, item in self.decode(data)]

        def member(data: Any) -> Any:
            kind = _expect(self._names.find(data[0]), enum.Enum)
            return kind(data[1]) if issubclass(kind, enum.Flag) else kind[data[1]]

        def instance(data: Any) -> Any:
            kind: Any = self._names.find(data[0])
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                raise MessageRefused(f"{data[0]!r} is no dataclass.")
            return _restored(kind, self.decode(data[1]))

        def moment(kind: Any) -> Callable[[Any], Any]:
            def decoded(data: Any) -> Any:
                text, zone, fold = data
                value = kind.fromisoformat(text).replace(fold=fold)
                if isinstance(zone, list):
                    return value.replace(tzinfo=timezone(timedelta(*zone[1]), zone[0]))
                return value if zone is None else value.replace(tzinfo=ZoneInfo(zone))

            return decoded

        return {
            "tuple": lambda data: tuple(self.decode(data)),
            "set": lambda data: set(self.decode(data)),
            "frozenset": lambda data: frozenset(self.decode(data)),
            "dict": lambda data: dict(pairs(data)),
            "int": lambda data: int(data, 16),
            "bytes": lambda data: base64.b64decode(data, validate=True),
            "bytearray": lambda data: bytearray(base64.b64decode(data, validate=True)),
            "datetime": moment(datetime),
            "date": date.fromisoformat,
            "time": moment(time),
            "timedelta": lambda data: timedelta(*data),
            "Decimal": Decimal,
            "UUID": UUID,
            **{tag: kind for kind, tag in PATHS.items()},
            "MultiDict": lambda data: MultiDict(pairs(data)),
            "ImmutableMultiDict": lambda data: ImmutableMultiDict(pairs(data)),
            "CombinedMultiDict": lambda data: CombinedMultiDict(self.decode(data)),
            "enum": member,
            "dataclass": instance,
            "callable": self._names.find,
        }

    def encode_error(self, error: BaseException) -> dict[str, Any]:
        """Return an error as JSON: its text, and the type and args from which another process can make it again."""
        kind = type(error)
        try:
            text = f"{kind.__name__}({error})"
        except Exception:
            text = f"{kind.__name__}, whose text cannot be had"
        encoded: dict[str, Any] = {"text": text}
        try:
            return {**encoded, "type": self._names.of_error(kind), "args": self.encode(list(error.args), "args")}
        except TypeError:
            return encoded

    def decode_error(self, encoded: Mapping[str, Any]) -> BaseException:
        """Return an error like the one that was encoded, or TaskFailed with its text if it cannot be made again."""
        try:
            kind = _expect(self._names.find_error(encoded["type"]), Exception)
            error: BaseException = kind(*self.decode(encoded["args"]))
        except Exception:
            return TaskFailed(str(encoded.get("text")))
        return error


def _zone(zone: tzinfo | None, where: str) -> str | list[Any] | None:
    """Return a time's zone as JSON; TypeError for a zone that would arrive as one of another kind."""
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is not timezone:
        raise TypeError(
            f"{where} is a time in {a_kind(type(zone))}, which cannot travel to a worker. Pass a time in UTC, or in "
            "a zoneinfo.ZoneInfo of a named zone."
        )
    offset, name = zone.utcoffset(None), zone.tzname(None)
    # Without its own name, where it has one, it would arrive as a plain offset.
    return None if timezone(offset).tzname(None) == name else [name, [offset.days, offset.seconds, offset.microseconds]]


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass instance; TypeError if it holds more than those."""
    kind = type(value)
    names = {field.name for field in dataclasses.fields(value)}
    own = {name for name in getattr(value, "__dict__", {}) if not isinstance(_static(kind, name), cached_property)}
    extra = sorted(own - names - {"__orig_class__"})
    if extra:
        raise TypeError(f"it is {a_kind(kind)} with an attribute {extra[0]!r} that is no field of the dataclass.")
    if isinstance(value, (str, bytes, bytearray, int, float, dict, list, tuple, set, frozenset, BaseException)):
        raise TypeError(f"it is {a_kind(kind)}, which holds more than the fields of the dataclass.")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _static(kind: type, name: str) -> Any:
    return inspect.getattr_static(kind, name, None)


def _restored(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make a dataclass as it was, without its constructor, which may take other arguments, or change them again."""
    made = kind.__new__(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, field in fields.items():
        # A field that the sender's version did not have yet gets its default.
        if name not in values and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        elif name not in values and field.default is not dataclasses.MISSING:
            value = field.default
        else:
            value = values[name]
        object.__setattr__(made, name, value)
    if values.keys() - fields.keys():
        raise MessageRefused(f"{kind.__name__} has other fields.")
    return made


def _expect(kind: Any, base: type) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise MessageRefused(f"{kind!r} is no {base.__name__}.")
    return kind
