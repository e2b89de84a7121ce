"""Connections: kept, replaced, and to one of several addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest
from flask import Flask

from flask_asok import FlaskAsok, WebhookUnavailable, send_webhook
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
    assert send_webhook(receiver.url, {}, timeout=1).status == 200

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


def test_second_address_is_tried(receiver: Any, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first address of a name does not answer, the next one is tried."""
    dead = ("127.0.0.1", free_port)
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
