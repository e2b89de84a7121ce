"""How a value becomes bytes in a store that other processes share."""

from __future__ import annotations

import pickle
from typing import Any, Protocol

from flask import json

from ..plain import SCALARS, check_object, refuse_what_json_loses, refuse_what_runs_out


class Serializer(Protocol):
    """Turns a value into bytes and back."""

    def dumps(self, value: Any) -> bytes:
        """Return the bytes. Any error means that the value cannot be stored."""

    def loads(self, data: bytes) -> Any:
        """Return the value. Any error means that there is none."""


class JSONSerializer:
    """The default: the app's own JSON provider. Tuples come back as lists, dates and the keys of a dict as strings."""

    def dumps(self, value: Any) -> bytes:
        # A dict keeps the order of its keys, which Flask's provider would sort.
        return json.dumps(value, sort_keys=False).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class PickleSerializer:
    """On demand. Anyone who can write to the store can then run code in the app."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


def serializer(name: str) -> Serializer:
    """Return the serializer that `CACHE_SERIALIZER` names; ValueError for an unknown one."""
    if name == "json":
        return JSONSerializer()
    if name == "pickle":
        return PickleSerializer()
    raise ValueError(f'CACHE_SERIALIZER must be "json" or "pickle", not {name!r}.')


def freeze(serializer: Serializer, key: str, value: Any) -> bytes:
    """Return the bytes of `value`; TypeError, naming `key`, for one that cannot be serialized."""
    if isinstance(serializer, JSONSerializer):
        if type(value) not in SCALARS:
            refuse_what_runs_out(key, value)
            refuse_what_json_loses(key, value)
    else:
        check_object(key, value)
    try:
        return serializer.dumps(value)
    except Exception as error:
        hint = (
            ' Cache plain data, or set CACHE_SERIALIZER = "pickle".' if isinstance(serializer, JSONSerializer) else ""
        )
        raise TypeError(f"{key!r} cannot be cached: {error}.{hint}") from error
