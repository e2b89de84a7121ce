"""What a payload may be, and the bytes that it becomes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict
from collections.abc import Callable
from email.message import EmailMessage
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict
from werkzeug.datastructures import CombinedMultiDict, Headers, ImmutableMultiDict, MultiDict

from flask_asok import background, send_webhook
from flask_asok.recipes.webhooks.payload import encode

MOST = 1000


@dataclasses.dataclass
class Line:
    sku: str
    price: decimal.Decimal


class Colour(str, enum.Enum):  # noqa: UP042 - StrEnum is another one
    RED = "red"


@dataclasses.dataclass
class Order:
    form: Any


class NoTime(datetime.datetime):
    """What pandas' NaT is: a datetime that equals nothing, itself included."""

    def __ne__(self, other: object) -> bool:
        return True


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
        (("x", "y"), '["x","y"]'),
        (None, "null"),
        (datetime.datetime(2026, 11, 23, 5, 0, tzinfo=datetime.UTC), '"2026-11-23T05:00:00+00:00"'),
        ([datetime.date(2026, 11, 23), datetime.time(5, 0)], '["2026-11-23","05:00:00"]'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("9.90"), '"9.90"'),
        ({"line": Line("A1", decimal.Decimal("9.90"))}, '{"line":{"sku":"A1","price":"9.90"}}'),
        (OrderedDict(a=1), '{"a":1}'),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        ({Colour.RED: Colour.RED}, '{"red":"red"}'),
        ('{"a" : 1}', '{"a" : 1}'),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"x"), b"x"),
        ("", b""),
    ],
)
def test_encode(payload: Any, body: str | bytes) -> None:
    """Values become what a receiver expects; text and bytes stay as they are."""
    assert encode(payload, MOST) == (body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize("payload", [{1, 2}, {1: "a"}, {"1": "a", 1: "b"}, {None: 1}, object(), Line, 1j, [b"x"]])
def test_no_json(payload: Any) -> None:
    """What JSON has no word for is a TypeError."""
    with pytest.raises(TypeError, match="webhook"):
        encode(payload, MOST)


@pytest.mark.parametrize(("name", "called"), [("Order", "an Order"), ("User", "a User"), ("object", "an object")])
def test_named_with_its_article(name: str, called: str) -> None:
    """The type of what cannot be sent is named as one says it."""
    with pytest.raises(TypeError, match=f"payload cannot hold {called}: make it"):
        encode({"value": type(name, (), {})()}, MOST)


@pytest.mark.parametrize(
    "payload",
    [
        float("nan"),
        [float("inf")],
        np.float64("nan"),
        "\udc80",
        {"a": "\ud800"},
        {"\ud800": 1},
        CIRCULAR,
        "x" * (MOST + 1),
        "é" * MOST,
    ],
)
def test_no_good_value(payload: Any) -> None:
    """What cannot be sent faithfully, or is too long, is a ValueError."""
    with pytest.raises(ValueError, match="webhook"):
        encode(payload, MOST)


@pytest.mark.parametrize(
    "value",
    [
        *map(decimal.Decimal, ["NaN", "-NaN", "sNaN", "NaN42", "Infinity", "-Infinity"]),
        NoTime(2026, 11, 26),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [x]}, lambda x: Line("A1", x)], ids=["", "in", "field"])
def test_no_number(value: Any, wrap: Callable[[Any], Any]) -> None:
    """What is no number or no time is refused as float("nan") is, whatever its type."""
    with pytest.raises(ValueError, match=r"webhook.*(not a finite number|no time)"):
        encode(wrap(value), MOST)


PAIRS = [("tag", "a"), ("tag", "b")]


@pytest.mark.parametrize(
    "form",
    [
        MultiDict(PAIRS),
        MultiDict([("tag", "a")]),
        ImmutableMultiDict(PAIRS),
        CombinedMultiDict([MultiDict(PAIRS), MultiDict(PAIRS)]),
    ],
    ids=lambda form: type(form).__name__,
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [x]}, lambda x: Order(x)], ids=["", "in", "field"])
def test_form(form: Any, wrap: Callable[[Any], Any]) -> None:
    """A form is refused, whether a key comes twice in it this time or not: no value is dropped without a word."""
    with pytest.raises(TypeError, match=rf"webhook.* {type(form).__name__}.*to_dict\(flat=False\)"):
        encode(wrap(form), MOST)

    assert encode(wrap(form.to_dict(flat=False)), MOST)


@pytest.mark.parametrize(
    "mapping", [Headers(PAIRS), HTTPHeaderDict(PAIRS), EmailMessage()], ids=lambda mapping: type(mapping).__name__
)
def test_other_repeated_keys(mapping: Any) -> None:
    """So is everything else that keeps several values for a key."""
    with pytest.raises(TypeError, match=r"webhook.*a list for each key"):
        encode({"a": mapping}, MOST)


def test_form_at_the_call(app: Flask) -> None:
    """The view that passes on its form learns it at the call."""
    with (
        app.test_request_context("/?tag=a&tag=b", method="POST", data={"size": ["s", "m"]}),
        pytest.raises(TypeError, match="flat=False"),
    ):
        background(send_webhook, "http://localhost/", {"query": request.args, "form": request.form})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(JSON.filter(lambda value: not isinstance(value, str)))
def test_same_after_the_journey(payload: Any) -> None:
    """Whatever JSON can say arrives as it was."""
    assert json.loads(encode(payload, 10**6)) == payload


def test_mistakes_raise_at_the_call(app: Flask) -> None:
    """A payload that cannot be sent is refused by background() itself."""
    with pytest.raises(TypeError, match="set"):
        background(send_webhook, "http://localhost/", {"tags": {1, 2}})


def test_too_long(make_app: Any) -> None:
    """The limit is the app's setting, and the error names it."""
    with make_app(ASOK_WEBHOOK_MAX_BYTES=10).app_context(), pytest.raises(ValueError, match="ASOK_WEBHOOK_MAX_BYTES"):
        send_webhook("http://localhost/", "x" * 11)


def test_frozen_at_the_call(app: Flask, receiver: Any) -> None:
    """A payload that is changed after the call is sent as it was."""
    payload = {"n": 1}
    receiver.answer_when.clear()
    tasks = [background(send_webhook, receiver.url, payload) for _ in range(6)]

    payload["n"] = 2
    receiver.answer_when.set()

    for task in tasks:
        task.result(10)
    assert {receiver.next().body for _ in tasks} == {b'{"n":1}'}
