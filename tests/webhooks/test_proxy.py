"""Webhooks that go through a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest
from flask import Flask

from flask_asok import FlaskAsok, WebhookRejected, WebhookUnavailable, background, send_webhook

TIMEOUT = 10


def test_proxy(make_app: Any, receiver: Any) -> None:
    """With ASOK_WEBHOOK_PROXY the proxy is asked, with its password, and decides about addresses itself."""
    app = make_app(ASOK_WEBHOOK_ALLOW=[], ASOK_WEBHOOK_PROXY=f"http://me:p%40ss@localhost:{receiver.port}")

    with app.app_context():
        send_webhook("http://10.0.0.1:81/hook?a", {})

    request = receiver.next()
    assert request.line == "POST http://10.0.0.1:81/hook?a HTTP/1.1"
    assert request.headers["host"] == "10.0.0.1:81"
    assert request.headers["proxy-authorization"] == "Basic bWU6cEBzcw=="


def test_proxy_for_tls(make_app: Any, receiver: Any, tls_receiver: Any) -> None:
    """https goes through the proxy in a tunnel, verified to the receiver's name."""
    asked: list[bytes] = []

    def tunnel(sock: socket.socket, receiver: Any) -> None:
        asked.append(sock.recv(65536))
        with socket.create_connection(("127.0.0.1", tls_receiver.port)) as onward:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(onward, sock), daemon=True)
            back.start()
            _pump(sock, onward)
            back.join(TIMEOUT)

    receiver.behave = tunnel
    app = make_app(ASOK_WEBHOOK_PROXY=f"http://me:pass@localhost:{receiver.port}")

    with app.app_context():
        for _ in range(2):
            assert send_webhook(tls_receiver.url, {}).status == 200
        FlaskAsok().close(app, 2)

    (head,) = asked
    assert head.startswith(f"CONNECT localhost:{tls_receiver.port} HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic bWU6cGFzcw==" in head
    assert "proxy-authorization" not in tls_receiver.next().headers


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_proxy_that_refuses(make_app: Any, receiver: Any, scheme: str, status: int) -> None:
    """A proxy that refuses is a temporary error that names it without its password, over http and https alike."""
    receiver.answers = [f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()]
    app = make_app(ASOK_WEBHOOK_PROXY=f"http://me:pass@localhost:{receiver.port}")

    with app.app_context(), pytest.raises(WebhookUnavailable, match=f"answered {status}") as raised:
        send_webhook(f"{scheme}://hooks.example/", {})

    assert f"the proxy http://localhost:{receiver.port} answered" in str(raised.value)
    assert f"{scheme}://hooks.example" in str(raised.value)
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_wrong_password_of_the_proxy(make_app: Any, receiver: Any, scheme: str) -> None:
    """No webhook is dropped for it: each is tried again."""
    receiver.answers = [b"HTTP/1.1 407 Basic bWU6cGFzcw== No\r\nContent-Length: 0\r\n\r\n"] * 3
    app = make_app(ASOK_WEBHOOK_PROXY=f"http://me:pass@localhost:{receiver.port}")

    with app.app_context():
        task = background.using(retries=2, backoff=0)(send_webhook, f"{scheme}://hooks.example/", {})
        error = task.exception(TIMEOUT)

    assert isinstance(error, WebhookUnavailable)
    assert "answered 407 Basic *** No" in str(error)
    assert error.delivery is not None
    assert error.delivery.status is None
    assert task.attempts == receiver.received.qsize() == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("proxy", "words"),
    [("http://127.0.0.1:9", "Connection refused"), ("http://me:pass@proxy.invalid:3128", r"(?i)name|address")],
)
def test_no_proxy_there(make_app: Any, scheme: str, proxy: str, words: str) -> None:
    """A proxy that is down, or whose name is unknown, is named as what failed."""
    app = make_app(ASOK_WEBHOOK_PROXY=proxy)

    with app.app_context(), pytest.raises(WebhookUnavailable, match=words) as raised:
        send_webhook(f"{scheme}://hooks.example/", {})

    assert f"the proxy http://{proxy.rpartition('@')[2].removeprefix('http://')} failed" in str(raised.value)
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("what", ["TLS", "silence", "closes", "rubbish"])
def test_proxy_that_is_none(make_app: Any, tls_receiver: Any, receiver: Any, scheme: str, what: str) -> None:
    """Whatever else a proxy does, the error is a temporary one that names it."""
    at = tls_receiver if what == "TLS" else receiver

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        if what == "silence":
            receiver.closed.wait(TIMEOUT)
        if what == "rubbish":
            sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    receiver.behave = behave
    app = make_app(ASOK_WEBHOOK_PROXY=f"http://me:pass@localhost:{at.port}")

    with app.app_context(), pytest.raises(WebhookUnavailable) as raised:
        send_webhook(f"{scheme}://hooks.example/", {}, timeout=0.5 if what == "silence" else 5)

    assert f"the proxy http://localhost:{at.port}" in str(raised.value)
    assert f"{scheme}://hooks.example" in str(raised.value)
    assert "pass" not in str(raised.value)


def test_receivers_407(app: Flask, receiver: Any) -> None:
    """Without a proxy a 407 is the receiver's own refusal."""
    receiver.answers = [b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"]

    with pytest.raises(WebhookRejected, match="407"):
        send_webhook(receiver.url, {})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"A" * 100_000, "too long"),
        (b"HTTP/1.1 407 \x1b[31mNo\r\n\r\n", r"407 \[31mNo\.$"),
    ],
    ids=["ssh", "word", "10 MB header", "terminal"],
)
def test_proxy_that_talks_rubbish(make_app: Any, receiver: Any, answer: bytes, words: str) -> None:
    """A proxy that answers with anything else than HTTP is a temporary error that says so, and quotes none of it."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    receiver.behave = behave

    app = make_app(ASOK_WEBHOOK_PROXY=f"http://localhost:{receiver.port}")
    with app.app_context(), pytest.raises(WebhookUnavailable, match=words) as raised:
        send_webhook("https://example.com/", {})

    assert "SSH" not in repr(raised.value.__cause__)
