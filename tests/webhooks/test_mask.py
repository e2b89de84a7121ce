"""A receiver that echoes a webhook puts none of its texts into the log, however it writes them."""

from __future__ import annotations

import html
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from flask import Flask

from flask_asok import WebhookRejected, send_webhook
from flask_asok.recipes.webhooks.excerpt import first_words
from flask_asok.recipes.webhooks.url import parse_url
from flask_asok.recipes.webhooks.webhook import compose

NAME = "Zoë Müller & 'Söhne' <\U0001f600>"
"""Every way of writing it makes another text of it."""
TOKEN = "t0ken/Ä+=ÿ"


def words(answer: str, payload: Any, url: str = "https://h.example/", headers: Any = None) -> str:
    sent = compose(url, payload, headers=headers)
    return first_words(sent, parse_url(sent.url), answer.encode())


def as_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def as_hex(text: str) -> str:
    return "".join(f"\\x{byte:02X}" if byte > 126 else chr(byte) for byte in text.encode())


WAYS = {
    "plain": str,
    "json": as_json,
    "php": lambda text: as_json(text).replace("/", "\\/"),
    "json in json": lambda text: as_json(as_json(text)),
    "html": html.escape,
    "html by numbers": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "html by hex": lambda text: "".join(f"&#x{ord(each):X};" for each in text),
    "url": quote,
    "form": quote_plus,
    "form in html": lambda text: html.escape(quote_plus(text)),
    "json in html": lambda text: html.escape(as_json(text)),
    "log": as_hex,
    "upper": str.upper,
    "title": str.title,
}
PAYLOADS = {
    "json": {"a": [{"name": NAME}]},
    "key": {"a": 1, NAME: 1},
    "json as text": json.dumps({"name": NAME})[:-1] + ', "name": true}',
    "text": f"Dear {NAME}, your order is on its way.",
    "form": f"to=7&name={quote_plus(NAME)}&copy=1",
    "xml": f"<name>{html.escape(NAME)}</name>",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload(payload: str, way: str) -> None:
    """A text of the payload is masked in every way of writing it."""
    assert words(f"invalid name: [{WAYS[way](NAME)}].", PAYLOADS[payload]) == "invalid name: [***]."


@pytest.mark.parametrize("way", WAYS)
def test_credential(way: str) -> None:
    """So is a part of the URL, and a value of the headers."""
    url = f"https://h.example/{quote(TOKEN, safe='')}/x"

    assert words(f"no such token: {WAYS[way](TOKEN)}.", {}, url) == "no such token: ***."
    assert (
        words(f"no such token: {WAYS[way]('p4ss/w+rd')}.", {}, headers={"X-Key": "p4ss/w+rd"}) == "no such token: ***."
    )


@pytest.mark.parametrize("way", WAYS)
def test_another_url(way: str) -> None:
    """So are the path of another URL and its credentials."""
    shown = words(f"see {WAYS[way]('https://docs.example/T0KEN/x')} {WAYS[way]('whsec_T0KEN')}", {})

    assert "t0ken" not in shown.lower()


@pytest.mark.parametrize("payload", ["json", "text", "form"])
def test_echo_that_is_cut_off(payload: str) -> None:
    """So is a text of which the receiver shows a part only."""
    assert words(f"invalid name: [{NAME[:12]}...]", PAYLOADS[payload]) == "invalid name: [***...]"
    assert words(f"invalid name: [...{NAME[-12:]}]", PAYLOADS[payload]) == "invalid name: [...***]"


def test_echo_of_a_long_payload() -> None:
    """So is a payload that is longer than what is read of the answer, and a text at its end."""
    payload = {"ids": list(range(20_000)), "name": NAME}

    assert words(f"invalid: {NAME}", payload) == "invalid: ***"
    assert words(f"invalid: {'x' * 20_000}", "x" * 20_000) == "invalid: ***"


def test_numbers() -> None:
    """So is a long number."""
    assert words("invalid: 4111111111111111, 12.345678901", {"card": 4111111111111111, "at": 12.345678901}) == (
        "invalid: ***, ***"
    )


def test_what_is_shown() -> None:
    """What the receiver says itself stays as it wrote it, its escapes included."""
    payload = {"type": "invoice.paid", "data": {"id": 7}}

    for answer in ('{"type":"error","data":{"id":8}}', r"must match ^\d+\t%20$", "100% of C:\\new + 5"):
        assert words(answer, payload) == answer
    assert words("Ünknown ß", payload, "https://h.example/unknown") == "Ünknown ß"
    assert words("webhooks: hooks are off", payload, "https://h.example/hooks") == "webhooks: *** are off"
    assert words("a%2Fhooks%2Fb", payload, "https://h.example/hooks") == "a***%2Fb"


def test_payload_that_is_nested_too_deep(app: Flask, receiver: Any) -> None:
    """A payload that no parser reads is masked as it is."""
    payload = '["secret-1"' + "[" * 100_000
    receiver.answers = [b"HTTP/1.1 400 No\r\nContent-Length: 19\r\n\r\nunexpected secret-1"]

    with pytest.raises(WebhookRejected) as raised:
        send_webhook(receiver.url, payload)

    assert raised.value.delivery is not None
    assert raised.value.delivery.words == "unexpected ***"
