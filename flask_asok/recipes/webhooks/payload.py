"""The bytes to sign and send, made from the caller's payload."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from ...validate import a_kind, single_values

DEEPEST = 100
"""Levels of nesting; a payload with more is a mistake."""


def encode(payload: Any, max_bytes: int) -> bytes:
    """
    Return `payload` as bytes: str and bytes as they are, everything else as compact JSON in UTF-8.

    Dates become ISO 8601, UUID and Decimal strings, dataclasses objects. Raises TypeError for what JSON cannot express
    (a set, a key that is not a str or may be repeated), ValueError for NaN and infinities of any type, a circular
    structure, a lone surrogate, or more than `max_bytes`. The text of an error never quotes the payload.
    """
    if isinstance(payload, (bytes, bytearray, memoryview)):
        body = bytes(payload)
    else:
        text = payload if isinstance(payload, str) else _json(payload)
        body = _utf_8(text)
    if len(body) > max_bytes:
        raise ValueError(
            f"The webhook's payload has {len(body)} bytes; ASOK_WEBHOOK_MAX_BYTES is {max_bytes}. "
            "Send an id, and let the receiver fetch the rest."
        )
    return body


def _utf_8(text: str) -> bytes:
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode()
    # Outside the block, so that it does not carry the codec's error, which holds the payload.
    raise ValueError("The webhook's payload holds a lone surrogate, which UTF-8 cannot write.")


def _json(payload: Any) -> str:
    try:
        return json.dumps(_plain(payload, 0), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        # NaN, or an int with more digits than Python writes; the text by json names no value.
        raise ValueError(f"The webhook's payload cannot be written as JSON: {error}.") from None


def _plain(value: Any, depth: int) -> Any:
    """Return `value` in the types that JSON knows. Walked here since `json.dumps` turns any key into a string."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if depth > DEEPEST:
        raise ValueError(f"it is circular, or nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        single_values("A webhook's payload", value)
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"Keys of a webhook's payload must be str, not {type(key).__name__}: two could become one."
                )
        # json writes the letters of a key that is of a subclass, where str() would write an enum's name.
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, (datetime, date, time)):
        # pandas' NaT is a datetime, and no time.
        if value != value:
            raise ValueError(f"it holds {a_kind(type(value))}, which is no time")
        return value.isoformat()
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError("it holds a Decimal that is not a finite number")
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)}
    single_values("A webhook's payload", value)
    kind = a_kind(type(value))
    raise TypeError(f"A webhook's payload cannot hold {kind}: make it a str, list, dict or dataclass first.")
