"""What travels to another process: a call as signed JSON, and what may come back."""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from flask import Flask
from itsdangerous import BadData, Signer
from werkzeug.datastructures import ImmutableMultiDict, MultiDict

from ..errors import MessageRefused, NotConfigured, TaskFailed

TAG = "__asok__"
"""The key of a JSON object that stands for a value which JSON lacks: `{TAG: kind, "": data}`."""

DEEPEST = 100
"""How deep a value may be nested: a worker, called from deeper down than a request, has to read it as well."""

LARGEST = 2**1024
"""Python neither writes nor reads an int of more than 4,300 decimal digits."""


class Names:
    """Importable things by name, `module:qualname`, and only of modules that the application allows."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.modules: frozenset[str] = frozenset(modules)

    def of(self, thing: Any) -> str:
        """Return the name of a function or class; TypeError, which says what to do, when a worker could not find it."""
        module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        if not module or not qualname:
            raise TypeError(f"{thing!r} has no name to import it by. Pass a function of a module.")
        if module == "__main__":
            module = getattr(sys.modules[module].__spec__, "name", None)
            if module is None:
                raise TypeError(
                    f"{qualname} is defined in the script that was started, which a worker cannot import. "
                    "Move it to a module."
                )
        name = f"{module}:{qualname}"
        if "<" in qualname or not self._is_there(thing, module, qualname):
            raise TypeError(
                f"{name} cannot be imported by that name: a lambda, a function in a function, a bound method or a "
                "wrapper. Pass a function that stands at the top of a module."
            )
        if not self._allows(module):
            raise TypeError(f"{name} is of no module that ASOK_TASK_MODULES allows: {', '.join(sorted(self.modules))}.")
        return name

    def find(self, name: object) -> Any:
        """Import what `name` stands for; MessageRefused where that is not allowed or not there."""
        module, _, qualname = name.partition(":") if isinstance(name, str) else ("", "", "")
        if not qualname or not self._allows(module):
            raise MessageRefused(f"{name!r} is of no module that ASOK_TASK_MODULES allows.")
        try:
            found = self._find(module, qualname)
        except ImportError as error:
            raise MessageRefused(f"{name!r} cannot be imported: {error}") from error
        if found is None:
            raise MessageRefused(f"{name!r} is not there.")
        # What an allowed module has imported is not its own: `shop.tasks:os.system`.
        if f"{getattr(found, '__module__', None)}:{getattr(found, '__qualname__', None)}" != name:
            raise MessageRefused(f"{name!r} belongs to another module.")
        return found

    def of_error(self, kind: type[BaseException]) -> str:
        """Return the name of a kind of error, as `of` does; Python's own have one too."""
        return f"builtins:{kind.__name__}" if kind.__module__ == "builtins" else self.of(kind)

    def find_error(self, name: str) -> type[BaseException]:
        """Return the kind of error with that name; MessageRefused for anything else."""
        module, _, kind = name.partition(":")
        found = getattr(sys.modules["builtins"], kind, None) if module == "builtins" else self.find(name)
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            raise MessageRefused(f"{name!r} is no exception.")
        return found

    def _allows(self, module: str) -> bool:
        return any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.modules)

    def _is_there(self, thing: Any, module: str, qualname: str) -> bool:
        try:
            return self._find(module, qualname) is thing
        except ImportError:
            return False

    def _find(self, module: str, qualname: str) -> Any:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        return found


class Codec:
    """Values as JSON and back: what JSON has, and what Flask applications pass around besides."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def encode(self, value: Any, where: str) -> Any:
        """Return `value` in terms of JSON; TypeError names the argument `where` something cannot travel."""
        try:
            return self._encode(value, where, DEEPEST)
        except RecursionError:
            raise TypeError(f"{where} cannot travel to a worker: the call itself is nested too deeply.") from None

    def _encode(self, value: Any, where: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is str:
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
        """Return what `encode` was given; MessageRefused for what it never made."""
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
            # An offset alone would forget the zone, and with it the hour that a summer time repeats.
            zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
            local = value if zone is None else value.replace(tzinfo=None)
            return {TAG: kind.__name__, "": [local.isoformat(), zone, value.fold]}
        if kind is timedelta:
            return {TAG: "timedelta", "": [value.days, value.seconds, value.microseconds]}
        if kind in (Decimal, UUID):
            return {TAG: kind.__name__, "": str(value)}
        if isinstance(value, PurePath):
            return {TAG: "Path", "": str(value)}
        if isinstance(value, MultiDict):
            tag = "ImmutableMultiDict" if isinstance(value, ImmutableMultiDict) else "MultiDict"
            return {TAG: tag, "": all_of(list(item) for item in value.items(multi=True))}
        try:
            if isinstance(value, enum.Flag):
                return {TAG: "enum", "": [self._names.of(kind), value.value]}
            if isinstance(value, enum.Enum):
                return {TAG: "enum", "": [self._names.of(kind), value.name]}
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
                return {TAG: "dataclass", "": [self._names.of(kind), self._encode(fields, where, depth)]}
            if callable(value):
                return {TAG: "callable", "": self._names.of(value)}
        except TypeError as error:
            raise TypeError(f"{where} cannot travel to a worker: {error}") from error
        raise TypeError(
            f"{where} is a {kind.__name__}, which cannot travel to a worker. Pass plain values: an id to load it by, "
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
            "Path": Path,
            "MultiDict": lambda data: MultiDict(pairs(data)),
            "ImmutableMultiDict": lambda data: ImmutableMultiDict(pairs(data)),
            "enum": member,
            "dataclass": instance,
            "callable": self._names.find,
        }

    def encode_error(self, error: BaseException) -> dict[str, Any]:
        """Return what another process can be told of an error: its type and args where those travel, or its text."""
        kind = type(error)
        try:
            text = f"{kind.__name__}({error})"
        except Exception:
            text = f"{kind.__name__}, whose text cannot be had"
        told: dict[str, Any] = {"text": text}
        try:
            return {**told, "type": self._names.of_error(kind), "args": self.encode(list(error.args), "args")}
        except TypeError:
            return told

    def decode_error(self, told: Mapping[str, Any]) -> BaseException:
        """Return an error like the one told of, or TaskFailed with its text where it cannot be made again."""
        try:
            kind = _expect(self._names.find_error(told["type"]), Exception)
            error: BaseException = kind(*self.decode(told["args"]))
        except Exception:
            return TaskFailed(str(told.get("text")))
        return error


def _restored(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make a dataclass as it was, without its constructor, which may want other arguments, or change them again."""
    made = kind.__new__(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, field in fields.items():
        # A field that the sender's release did not have yet has its default.
        if name not in values and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        elif name not in values and field.default is not dataclasses.MISSING:
            value = field.default
        else:
            value = values[name]
        object.__setattr__(made, name, value)
    if values.keys() - fields.keys():
        raise MessageRefused(f"{kind.__name__} has no such fields.")
    return made


def _expect(kind: Any, base: type) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise MessageRefused(f"{kind!r} is no {base.__name__}.")
    return kind


class Seal:
    """
    Signs what is handed to a broker with the application's secret key, and refuses what was not.

    Without it whoever can write to the broker could have a worker call functions. Signed, not encrypted: who can read
    the broker can read the arguments. `SECRET_KEY_FALLBACKS` are accepted, so that keys can be rotated.
    """

    def __init__(self, app: Flask) -> None:
        if not app.secret_key:
            raise NotConfigured("Tasks for other processes are signed: set SECRET_KEY, the same for web and workers.")
        # The newest comes last; that one signs.
        keys = [*reversed(app.config.get("SECRET_KEY_FALLBACKS") or []), app.secret_key]
        self._app_name = app.name
        self._keys = keys

    def close(self, payload: Mapping[str, Any], purpose: str) -> str:
        """Return `payload` as signed JSON, good for `purpose` and this application only."""
        text = json.dumps(payload, separators=(",", ":"))
        return self._signer(purpose).sign(text).decode()

    def open(self, sealed: object, purpose: str) -> dict[str, Any]:
        """Return the payload; MessageRefused where it is unsigned, forged, or meant for something else."""
        if not isinstance(sealed, str):
            raise MessageRefused("The message is not a signed text.")
        try:
            payload = json.loads(self._signer(purpose).unsign(sealed))
        except (BadData, ValueError) as error:
            raise MessageRefused(
                f"The message is not signed by {self._app_name!r} with a key that is valid."
            ) from error
        if not isinstance(payload, dict):
            raise MessageRefused("The message is malformed.")
        return payload

    def _signer(self, purpose: str) -> Signer:
        return Signer(
            self._keys,
            salt=f"flask_asok:{purpose}:{self._app_name}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
