"""Connections: pooled, verified, without anything from the environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask

from flask_asok import FlaskAsok, WebhookRejected, WebhookUnavailable, background, send_webhook
from flask_asok.recipes.webhooks.deadline import Deadline
from flask_asok.recipes.webhooks.policy import Policy
from flask_asok.recipes.webhooks.transport import ADDRESS_SECONDS, Transport
from flask_asok.recipes.webhooks.url import parse_url

TIMEOUT = 10


def test_connection_is_reused(app: Flask, tls_receiver: Any) -> None:
    """Deliveries to one receiver share a connection, so that TLS is negotiated once."""
    for _ in range(5):
        send_webhook(tls_receiver.url, {})

    assert tls_receiver.handshakes == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000,
    ],
    ids=["close", "not read to its end"],
)
def test_connection_is_not_reused(app: Flask, receiver: Any, answer: bytes) -> None:
    """A connection that is spent serves no other delivery."""
    receiver.answers = [answer]

    for _ in range(2):
        assert send_webhook(receiver.url, {}).status == 200

    assert receiver.connections == 2


def test_answer_cut_by_the_deadline(app: Flask, receiver: Any) -> None:
    """A connection on which the rest of an answer may still come serves no other delivery."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        receiver.behave = None
        receiver.closed.wait(TIMEOUT)

    receiver.behave = behave
    assert send_webhook(receiver.url, {}, timeout=0.2).status == 200

    # The receiver holds the first connection for longer than this.
    assert send_webhook(receiver.url, {}, timeout=3).status == 200
    assert receiver.connections == 2


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nX-A:"], ids=["silence", "half an answer"])
def test_reused_but_no_answer(app: Flask, receiver: Any, begun: bytes) -> None:
    """What is not answered, or not to its end, on a connection used before, is not sent a second time at once."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        sock.recv(65536)
        sock.sendall(begun)
        if begun:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            receiver.closed.wait(TIMEOUT)

    receiver.behave = behave
    send_webhook(receiver.url, b"")

    with pytest.raises(WebhookUnavailable):
        send_webhook(receiver.url, b"", timeout=0.3)

    assert receiver.connections == 1


def test_closed_meanwhile(receiver: Any) -> None:
    """A connection whose transport was closed during a delivery is closed after it."""
    transport = Transport()
    receiver.answer_when.clear()
    thread = threading.Thread(
        target=transport.post, args=(parse_url(receiver.url), {}, b"{}", Policy.of(True, ""), Deadline(TIMEOUT))
    )
    thread.start()
    receiver.next()

    transport.close()
    receiver.answer_when.set()
    thread.join(TIMEOUT)

    assert receiver.done.acquire(timeout=TIMEOUT)


def test_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address is an ordinary error."""
    transport = Transport()
    monkeypatch.setattr(transport._resolver, "resolve", lambda host, port, deadline: [])

    with pytest.raises(OSError, match="no address"):
        transport.post(parse_url("http://localhost/"), {}, b"{}", Policy(), Deadline(TIMEOUT))
    transport.close()


def test_closed_while_idle(app: Flask, receiver: Any) -> None:
    """A connection that the receiver has closed meanwhile is replaced, and nobody notices."""
    receiver.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    send_webhook(receiver.url, {})
    receiver._socks[0].shutdown(socket.SHUT_RDWR)

    assert send_webhook(receiver.url, {}).status == 200
    assert receiver.connections == 2


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_closed_in_the_very_moment(app: Flask, receiver: Any, how: str) -> None:
    """A connection that is closed as the next webhook is sent on it is replaced once."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        sock.recv(65536)
        receiver.behave = None
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    receiver.behave = behave
    send_webhook(receiver.url, {})

    assert send_webhook(receiver.url, {}).status == 200
    assert receiver.connections == 2


def test_timeout_of_an_idle_connection(app: Flask, receiver: Any) -> None:
    """A 408 on a connection used before tells of the idle time: the webhook goes out at once on a new one."""
    receiver.answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ]
    send_webhook(receiver.url, {})

    assert send_webhook(receiver.url, {}).status == 200
    assert receiver.connections == 2


def test_timeout_of_a_new_connection(app: Flask, receiver: Any) -> None:
    """A 408 on a new connection is an answer like any other."""
    receiver.answers = [b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"] * 3

    for _ in range(2):
        with pytest.raises(WebhookUnavailable, match="408"):
            send_webhook(receiver.url, {})

    assert receiver.connections == 2


def test_replaced_only_once(app: Flask, receiver: Any) -> None:
    """A receiver that closes each connection without an answer is a temporary error."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        if receiver.connections == 1:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            sock.recv(65536)

    receiver.behave = behave
    send_webhook(receiver.url, {})

    with pytest.raises(WebhookUnavailable, match=r"closed the connection|reset by peer"):
        send_webhook(receiver.url, {})

    assert receiver.connections == 2


def test_unknown_authority(make_app: Any, tls_receiver: Any) -> None:
    """A certificate that no known authority has issued is not accepted."""
    with make_app(ASOK_WEBHOOK_CA_FILE=None).app_context(), pytest.raises(WebhookUnavailable, match="certificate"):
        send_webhook(tls_receiver.url, {})

    assert tls_receiver.received.empty()


def test_other_name(app: Flask, tls_receiver: Any) -> None:
    """A certificate for another name is not accepted."""
    with pytest.raises(WebhookUnavailable, match="certificate"):
        send_webhook(f"https://127.0.0.1:{tls_receiver.port}/", {})


def test_no_tls_there(app: Flask, receiver: Any) -> None:
    """https to a receiver that speaks http is an error, and nothing is sent in the clear."""
    receiver.behave = lambda sock, receiver: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with pytest.raises(WebhookUnavailable, match=r"no TLS on this port.*http://"):
        send_webhook(f"https://localhost:{receiver.port}/", {})


def test_old_tls(app: Flask, make_receiver: Any, authority: trustme.CA) -> None:
    """A receiver that speaks only TLS 1.1 is told by what it lacks."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(WebhookUnavailable, match=r"no TLS 1\.2"):
        send_webhook(make_receiver(context).url, {})


def test_http_on_a_tls_port(app: Flask, tls_receiver: Any) -> None:
    """http to a receiver that speaks https is a temporary error."""
    with pytest.raises(WebhookUnavailable, match="cannot be reached"):
        send_webhook(f"http://localhost:{tls_receiver.port}/", {})


def test_tls_for_an_address(app: Flask, make_receiver: Any, authority: trustme.CA) -> None:
    """A certificate may be for an address instead of a name."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    receiver = make_receiver(context)

    assert send_webhook(f"https://127.0.0.1:{receiver.port}/", {}).status == 200


def test_nothing_from_the_environment(
    app: Flask, receiver: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a proxy nor a password is picked up from the environment, and no cookie is kept."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine localhost login me password sesame\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    receiver.answers = [b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"]

    for _ in range(2):
        send_webhook(receiver.url, {})
        headers = receiver.next().headers

        assert "authorization" not in headers
        assert "cookie" not in headers


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


def test_many_threads(app: Flask, tls_receiver: Any) -> None:
    """Deliveries of many threads each get their own answer."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait(TIMEOUT)
        try:
            for _ in range(5):
                with app.app_context():
                    assert send_webhook(tls_receiver.url, {"n": number}).excerpt == "ok"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    assert not errors
    assert tls_receiver.received.qsize() == 30
    assert tls_receiver.handshakes <= 6


def test_second_address_is_tried(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first address of a name does not answer, the next one is tried."""
    closed = socket.create_server(("127.0.0.1", 0))
    dead = closed.getsockname()
    closed.close()
    transport = Transport()
    monkeypatch.setattr(
        transport._resolver,
        "resolve",
        lambda host, port, deadline: [(socket.AF_INET, dead), (socket.AF_INET, ("127.0.0.1", receiver.port))],
    )

    answer = transport.post(parse_url(receiver.url), {}, b"{}", Policy.of(True, ""), Deadline(TIMEOUT))
    transport.close()

    assert answer.status == 200


def test_first_address_is_a_black_hole(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that drops every packet costs a moment of the delivery's time, and not its share of it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = [socket.socket() for _ in range(4)]
    for sock in full:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    transport = Transport()
    found = [(socket.AF_INET, listener.getsockname()), (socket.AF_INET, ("127.0.0.1", receiver.port))]
    monkeypatch.setattr(transport._resolver, "resolve", lambda host, port, deadline: found)
    started = time.monotonic()

    answer = transport.post(parse_url(receiver.url), {}, b"{}", Policy.of(True, ""), Deadline(3600))
    transport.close()

    assert answer.status == 200
    assert time.monotonic() - started < 3 * ADDRESS_SECONDS
    for sock in (listener, *full):
        sock.close()


def test_no_socket_for_the_first_address(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no sockets for one of the addresses, as without IPv6, the next one is tried."""
    transport = Transport()
    monkeypatch.setattr(
        transport._resolver,
        "resolve",
        lambda host, port, deadline: [
            (9999, ("127.0.0.1", receiver.port)),
            (socket.AF_INET, ("127.0.0.1", receiver.port)),
        ],
    )

    answer = transport.post(parse_url(receiver.url), {}, b"{}", Policy.of(True, ""), Deadline(TIMEOUT))
    transport.close()

    assert answer.status == 200


def test_idle_connections_end(app: Flask, receiver: Any) -> None:
    """Closing the app closes the connections that wait for the next delivery."""
    send_webhook(receiver.url, {})

    FlaskAsok().close(app, 2)

    assert receiver.done.acquire(timeout=TIMEOUT)


def test_at_most_so_many_idle(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest idle connection is closed where there are too many."""
    monkeypatch.setattr("flask_asok.recipes.webhooks.transport.MOST_IDLE", 1)
    transport = Transport()

    # Another policy is another key.
    for allow in (["127.0.0.1"], ["127.0.0.1", "::1"], ["localhost"]):
        transport.post(parse_url(receiver.url), {}, b"{}", Policy.of(allow, ""), Deadline(TIMEOUT))

    assert receiver.done.acquire(timeout=TIMEOUT)
    assert receiver.done.acquire(timeout=TIMEOUT)
    assert len(transport._idle) == 1
    transport.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(app: Flask, receiver: Any) -> None:
    """A forked child makes connections of its own, and the parent's stay whole."""
    send_webhook(receiver.url, {})

    pid = os.fork()
    if pid == 0:  # pragma: no cover - coverage does not follow a fork that ends so
        code = 1
        with contextlib.suppress(BaseException):
            signal.alarm(20)
            code = 0 if send_webhook(receiver.url, {"who": "child"}).status == 200 else 2
        os._exit(code)
    _, status = os.waitpid(pid, 0)

    assert status == 0
    assert send_webhook(receiver.url, {}).status == 200
    assert [receiver.next().connection for _ in range(3)] == [1, 2, 1]
