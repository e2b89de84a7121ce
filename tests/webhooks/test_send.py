"""send_webhook called directly: what goes over the wire, what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask

from flask_asok import (
    Delivery,
    WebhookBlocked,
    WebhookError,
    WebhookGone,
    WebhookRejected,
    WebhookUnavailable,
    send_webhook,
)


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def test_post(app: Flask, receiver: Any) -> None:
    """The payload arrives as JSON, by POST, at the path and query of the URL."""
    send_webhook(receiver.url + "/T00/B00?x=1", {"text": "New signup! ✓"})

    request = receiver.next()
    assert request.line == "POST /hook/T00/B00?x=1 HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"localhost:{receiver.port}"
    assert json.loads(request.body) == {"text": "New signup! ✓"}


def test_delivery(app: Flask, receiver: Any) -> None:
    """The caller learns the status, the time it took and the beginning of the answer."""
    receiver.answers = [answer(202, body=b"queued\x1b[31m")]

    delivery = send_webhook(receiver.url, b"{}", id="msg_1", reference="endpoint 7")

    assert isinstance(delivery, Delivery)
    assert (delivery.id, delivery.status, delivery.attempts) == ("msg_1", 202, 1)
    assert delivery.url == f"http://localhost:{receiver.port}"
    assert delivery.body == b"{}"
    assert delivery.reference == "endpoint 7"
    assert delivery.excerpt == "queued[31m"
    assert 0 < delivery.duration < 10


def test_excerpt_is_bounded(app: Flask, receiver: Any) -> None:
    """No more than 1,000 characters of an answer are kept."""
    receiver.answers = [answer(200, body=b"x" * 5000)]

    assert len(send_webhook(receiver.url, {}).excerpt) == 1000


def test_own_headers(app: Flask, receiver: Any) -> None:
    """Headers of the caller are sent, and may replace the content type and the agent."""
    own = {"Authorization": "Bearer x", "content-type": "text/xml", "user-agent": "Shop"}
    send_webhook(receiver.url, "<a/>", headers=own)

    request = receiver.next()
    assert {name: request.headers[name.lower()] for name in own} == own
    assert sorted(request.names) == sorted(set(request.names))


def test_non_ascii_url(app: Flask, receiver: Any) -> None:
    """Letters beyond ASCII in a path are percent-encoded; what is encoded already stays."""
    send_webhook(receiver.url + "/ü%20?q=é", {})

    assert receiver.next().line == "POST /hook/%C3%BC%20?q=%C3%A9 HTTP/1.1"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_temporary(app: Flask, receiver: Any, status: int) -> None:
    """Answers that may be better next time raise WebhookUnavailable."""
    receiver.answers = [answer(status)]

    with pytest.raises(WebhookUnavailable, match=f"answered {status}") as raised:
        send_webhook(receiver.url, {})

    assert raised.value.delivery is not None
    assert raised.value.delivery.status == status


@pytest.mark.parametrize("status", [101, 300, 304, 400, 401, 403, 404, 409, 422, 451, 600, 999])
def test_permanent(app: Flask, receiver: Any, status: int) -> None:
    """Any other answer raises WebhookRejected: the same request would get the same answer."""
    receiver.answers = [answer(status)]

    with pytest.raises(WebhookRejected, match=f"answered {status}"):
        send_webhook(receiver.url, {})


def test_gone(app: Flask, receiver: Any) -> None:
    """A 410 raises WebhookGone, so that the endpoint can be disabled."""
    receiver.answers = [answer(410)]

    with pytest.raises(WebhookGone):
        send_webhook(receiver.url, {})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(app: Flask, receiver: Any, status: int) -> None:
    """A redirect is not followed; the error says where to, without the path."""
    receiver.answers = [answer(status, f"Location: http://localhost:{receiver.port}/secret")]

    with pytest.raises(WebhookRejected, match=rf"points to http://localhost:{receiver.port}: .* final URL") as raised:
        send_webhook(receiver.url, {})

    assert receiver.received.qsize() == 1
    assert "secret" not in str(raised.value)


def test_retry_after(app: Flask, receiver: Any) -> None:
    """What the receiver asks to wait is in the error."""
    receiver.answers = [answer(429, "Retry-After: 30")]

    with pytest.raises(WebhookUnavailable) as raised:
        send_webhook(receiver.url, {})

    assert raised.value.retry_after == 30


def test_no_context() -> None:
    """Outside of an app the defaults apply: this machine is not allowed."""
    with pytest.raises(WebhookBlocked, match="ASOK_WEBHOOK_ALLOW"):
        send_webhook("http://127.0.0.1:9/", {})


def test_no_context_allowed(receiver: Any) -> None:
    """Outside of an app the call's own `allow_private` counts."""
    assert send_webhook(receiver.url, {}, allow_private=True).status == 200


def test_app_without_extension(receiver: Any) -> None:
    """An app that has no FlaskAsok is no hindrance to a direct call."""
    with Flask("plain").app_context():
        assert send_webhook(receiver.url, {}, allow_private=["localhost"]).status == 200


def test_refused_connection(app: Flask, receiver: Any) -> None:
    """Where nobody listens, the error is a temporary one and says so."""
    receiver.close()

    with pytest.raises(WebhookUnavailable, match="Connection refused"):
        send_webhook(receiver.url, {})


def test_unknown_name(app: Flask) -> None:
    """A name that does not resolve is a temporary error."""
    with pytest.raises(WebhookUnavailable, match="cannot be reached"):
        send_webhook("http://nowhere.invalid/", {})


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 3601, 1e12, 10**400])
def test_bad_timeout(app: Flask, timeout: float) -> None:
    """A timeout that is no positive number, or longer than an hour, is a mistake of the caller."""
    with pytest.raises(ValueError, match="timeout"):
        send_webhook("http://localhost/", {}, timeout=timeout)


@pytest.mark.parametrize("id", ["", "a.b", "a b", "a\n", "é", "x" * 201, 7])
def test_bad_id(app: Flask, id: Any) -> None:
    """An id that would break the signature, or a header, is a mistake of the caller."""
    with pytest.raises(ValueError, match="id must be"):
        send_webhook("http://localhost/", {}, id=id)


@pytest.mark.parametrize(("name", "value"), [("timeout", "1"), ("timeout", True), ("reference", 7), ("secret", [])])
def test_bad_type(app: Flask, name: str, value: Any) -> None:
    """An argument of another type than promised is a TypeError."""
    with pytest.raises(TypeError, match=name):
        send_webhook("http://localhost/", {}, **{name: value})


def test_every_error_is_one(app: Flask) -> None:
    """Every failure of a delivery can be caught as WebhookError."""
    for error in (WebhookUnavailable, WebhookRejected, WebhookGone, WebhookBlocked):
        assert issubclass(error, WebhookError)
