"""Headers of the caller, and the receiver's Retry-After."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import CombinedMultiDict, Headers, MultiDict

from flask_asok import background, send_webhook
from flask_asok.recipes.webhooks.headers import LONGEST_RETRY_AFTER, checked_headers, retry_after

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "webhook-id",
        "Webhook-Signature",
        "webhook-x",
        "TE",
        "Upgrade",
        "Expect",
        "",
        "X Y",
        "X:Y",
        "X\r\nY",
        "é",
        "X\x00",
        "X(",
        "X\n",
    ],
)
def test_bad_name(name: str) -> None:
    """Names that are no token, or not the caller's to set, are refused."""
    with pytest.raises(ValueError, match=r"[Hh]eader"):
        checked_headers({name: "x"})


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Tag": "a", "x-tag": "b"},
        Headers([("X-Tag", "a"), ("X-Tag", "b")]),
        MultiDict([("X-Tag", "a"), ("X-Tag", "b")]),
        CombinedMultiDict([MultiDict({"X-Tag": "a"}), MultiDict({"X-Tag": "b"})]),
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_given_twice(headers: Any) -> None:
    """A header that is given twice is refused, whatever holds the two: none is dropped without a word."""
    with pytest.raises(ValueError, match="given twice"):
        checked_headers(headers)


@pytest.mark.parametrize(
    "value", ["sesame\r\nEvil: 1", "sesame\n", "\x00sesame", "sesamé", " sesame", "sesame ", "\tsesame", "sesame\x7f"]
)
def test_bad_value(value: str) -> None:
    """Values that could end the header, or be read in two ways, are refused and not quoted."""
    with pytest.raises(ValueError, match="X-Token") as raised:
        checked_headers({"X-Token": value})

    assert "sesam" not in str(raised.value)


@pytest.mark.parametrize("headers", [{"X": 1}, {"X": b"x"}, {b"X": "x"}, {"X": None}, [("X", "x")], "X: x", 1])
def test_bad_type(headers: Any) -> None:
    """Headers map a str to a str."""
    with pytest.raises(TypeError):
        checked_headers(headers)


def test_good_headers() -> None:
    """Ordinary headers pass, an empty value too."""
    headers = {"Authorization": "Bearer a b", "X-Empty": "", "X~odd!": "x"}

    assert checked_headers(headers) == headers


@given(st.dictionaries(st.text(), st.text()))
def test_any_headers(headers: dict[str, str]) -> None:
    """Whatever passes is one line of printable ASCII; anything else is a ValueError."""
    try:
        checked = checked_headers(headers)
    except ValueError:
        return
    for name, value in checked.items():
        assert re.fullmatch(r"[!-9;-~]+", name)
        assert re.fullmatch(r"[ -~]*", value)


def test_mistakes_raise_at_the_call(app: Flask) -> None:
    """A bad header is refused by background() itself."""
    with pytest.raises(ValueError, match="Host"):
        background(send_webhook, "http://localhost/", {}, headers={"Host": "x"})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        ("99999999", LONGEST_RETRY_AFTER),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER),
        ("Monday, 23-Nov-26 05:00:10 GMT", 10),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    """Both forms are understood, and clamped to an hour."""
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "-1",
        "1.5",
        "1_000",
        "\uff11\uff12",
        "soon",
        "1e3",
        "0x10",
        "99999999999",
        "Fri, 99 Foo 2026 99:99:99 GMT",
        "\x00",
    ],
)
def test_rubbish_retry_after(value: str | None) -> None:
    """Rubbish counts as no Retry-After."""
    assert retry_after(value, NOW) is None


@given(st.text() | st.from_regex(r"[0-9 A-Za-z:,+\-]*", fullmatch=True))
def test_any_retry_after(value: str) -> None:
    """Whatever a receiver sends is rubbish, or between now and an hour."""
    seconds = retry_after(value)

    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER
