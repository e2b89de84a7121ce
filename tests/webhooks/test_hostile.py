"""Receivers that mean harm, or are broken: a delivery ends in time, in little memory, with an error that says why."""

from __future__ import annotations

import gzip
import itertools
import re
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_asok import Delivery, WebhookError, WebhookRejected, WebhookUnavailable, send_webhook

TIMEOUT = 0.5
LATE = 5
"""Seconds past the timeout, for a machine that is busy: what is not ended goes on for longer than that."""

Behave = Callable[[socket.socket, Any], None]


def drip(head: bytes, endless: bytes) -> Behave:
    """Send `head` at once, then the bytes of `endless` one by one, for ever."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(head)
        for byte in itertools.cycle(endless):
            if receiver.closed.wait(0.2):
                return
            sock.sendall(bytes([byte]))

    return behave


def flood(head: bytes, endless: bytes) -> Behave:
    """Send `head`, then `endless` as fast as it is taken."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(65536)
        sock.sendall(head)
        while not receiver.closed.is_set():
            sock.sendall(endless)

    return behave


def reply(data: bytes) -> Behave:
    """Send `data` after the whole request, and close: with a byte of it unread the system would reset instead."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        while len(body) < length:
            body += sock.recv(65536)
        sock.sendall(data)

    return behave


def silence(sock: socket.socket, receiver: Any) -> None:
    receiver.closed.wait(30)


def reset(sock: socket.socket, receiver: Any) -> None:
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def memory() -> int:
    """Return the most bytes that this process has ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


def timed(url: str, timeout: float = TIMEOUT) -> tuple[Delivery | WebhookError, float]:
    """Deliver; return the Delivery or the error, and the seconds it took."""
    started = time.monotonic()
    try:
        outcome: Delivery | WebhookError = send_webhook(url, {"n": 1}, timeout=timeout)
    except WebhookError as error:
        outcome = error
    return outcome, time.monotonic() - started


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(silence, id="silence"),
        pytest.param(drip(b"", b"HTTP/1.1 200 OK" * 9), id="status line"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), id="headers"),
        pytest.param(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers"),
        pytest.param(drip(b"", b"\r\n"), id="empty lines"),
    ],
)
def test_total_deadline(app: Flask, receiver: Any, behave: Behave) -> None:
    """However slowly an answer comes, the delivery ends at its timeout."""
    receiver.behave = behave

    error, seconds = timed(receiver.url)

    assert isinstance(error, WebhookUnavailable)
    assert seconds < TIMEOUT + LATE


@pytest.mark.parametrize(
    "behave", [silence, drip(b"", b"\x16\x03\x03\x40\x00" + b"\x02" * 99)], ids=["silence", "drip"]
)
def test_deadline_of_tls(app: Flask, tls_receiver: Any, behave: Behave) -> None:
    """A TLS handshake that never ends does so at the timeout."""
    tls_receiver.behave = behave

    error, seconds = timed(tls_receiver.url)

    assert isinstance(error, WebhookUnavailable)
    assert "within 0.5 s" in str(error)
    assert seconds < TIMEOUT + LATE


@pytest.mark.parametrize(
    "behave",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nyes", b"x"),
        drip(b"HTTP/1.1 200 OK\r\n\r\nyes", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n", b"1\r\nx\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["length", "until closed", "chunked", "trailers"],
)
def test_dripping_body(app: Flask, receiver: Any, behave: Behave) -> None:
    """A webhook that was answered 200 is delivered, but nobody waits past the timeout for the rest of the answer."""
    receiver.behave = behave

    # In which the status has to come.
    delivery, seconds = timed(receiver.url, 2)

    assert isinstance(delivery, Delivery)
    assert delivery.excerpt.startswith("yes")
    assert seconds < 2 + LATE


@pytest.mark.parametrize(("bytes_at_once", "seconds"), [(64, 0.2), (65536, 0.05)], ids=["barely", "slowly"])
@pytest.mark.parametrize("kind", ["receiver", "tls_receiver"], ids=["http", "https"])
def test_receiver_that_reads_slowly(
    make_app: Any, request: pytest.FixtureRequest, kind: str, bytes_at_once: int, seconds: float
) -> None:
    """A payload that is taken bit by bit ends at the timeout as well."""
    receiver = request.getfixturevalue(kind)

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if receiver.tls is not None:
            sock = receiver.tls.wrap_socket(sock, server_side=True)
            # The end of the test has to wake it from the middle of a record.
            receiver._socks.append(sock)
        with sock:
            while not receiver.closed.wait(seconds):
                sock.recv(bytes_at_once)

    receiver.behave = behave

    # More than the system's buffers take in.
    with make_app(ASOK_WEBHOOK_MAX_BYTES=10_000_000).app_context():
        started = time.monotonic()
        with pytest.raises(WebhookUnavailable):
            send_webhook(receiver.url, b"x" * 10_000_000, timeout=TIMEOUT)

    assert time.monotonic() - started < TIMEOUT + LATE


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["headers", "interim answers"],
)
def test_total_deadline_over_tls(app: Flask, tls_receiver: Any, head: bytes, endless: bytes) -> None:
    """So it is over https, where each byte comes in a record of its own."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        with receiver.tls.wrap_socket(sock, server_side=True) as sock:
            receiver._socks.append(sock)
            drip(head, endless)(sock, receiver)

    tls_receiver.behave = behave

    error, seconds = timed(tls_receiver.url)

    assert isinstance(error, WebhookUnavailable)
    assert "within 0.5 s" in str(error)
    assert seconds < TIMEOUT + LATE


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (reply(b""), "closed the connection"),
        (reset, "connection"),
        (reply(b"\x00\xff\xfe rubbish \x80" * 50), "not http"),
        (reply(b"SSH-2.0-OpenSSH_9.6\r\n"), "not http"),
        (reply(b"HTTP/1.1 two hundred\r\n\r\n"), "not http"),
        (reply(b"HTTP/1.1 99 Low\r\n\r\n"), "not http"),
        (reply(b"HTTP/3.0 200 OK\r\n\r\n"), "not http"),
        (reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), "two lengths"),
        (flood(b"", b"A" * 65536), "too long"),
        (flood(b"HTTP/1.1 200 ", b"A" * 65536), "too long"),
        (flood(b"HTTP/1.1 200 OK\r\nX: ", b"A" * 65536), "too long"),
        (flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000), "too long"),
        (reply(b"\x15\x03\x01\x00\x02\x02\x46"), "is tls, not http"),
        (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "too long"),
        (flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000), "too long"),
    ],
    ids=[
        "closed",
        "reset",
        "binary",
        "ssh",
        "word",
        "99",
        "version",
        "two lengths",
        "no line",
        "reason",
        "10 MB header",
        "100,000 headers",
        "tls",
        "endless 100",
        "endless 103",
    ],
)
def test_no_answer(app: Flask, receiver: Any, behave: Behave, words: str) -> None:
    """What is no answer is a temporary error that says what was wrong, well before the timeout."""
    receiver.behave = behave

    error, seconds = timed(receiver.url, 20)

    assert isinstance(error, WebhookUnavailable)
    assert words in str(error).lower()
    assert seconds < 10


@pytest.mark.parametrize(
    "behave",
    [
        flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        flood(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", b"x" * 65536),
        flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
        flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", b"x" * 65536),
        flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 9000),
        reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrubbish"),
        reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        reply(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx"),
        reply(b"HTTP/1.0 200\r\n\r\n"),
        reply(b"HTTP/1.1 200 OK\r\nno colon\r\n folded\r\n: x\r\n\x00\xff: \xfe\r\n\r\nx"),
        reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n"),
    ],
    ids=[
        "endless",
        "length",
        "chunks",
        "one chunk",
        "small chunks",
        "bad chunk",
        "cut",
        "bad length",
        "1.0",
        "bad headers",
        "interim",
    ],
)
def test_odd_body(app: Flask, receiver: Any, behave: Behave) -> None:
    """A 2xx is a delivery, whatever comes after it; no more than 64 KiB of it is read."""
    receiver.behave = behave

    delivery, seconds = timed(receiver.url, 20)

    assert isinstance(delivery, Delivery)
    assert len(delivery.excerpt) <= 1000
    assert seconds < 10


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"Set-Cookie: c%d=1\r\n" % number for number in range(101)),
        b"X: y\r\n" * 9_000,
        b"X: " + b"y" * 65_000 + b"\r\n",
        b"X: " + b"y" * 30_000 + b"\r\n " + b"z" * 30_000 + b"\r\n",
        b"Foo bar\r\n",
        b": empty\r\n",
        b" folded before any\r\n",
        b"X-\xfc: \xff\x00\x1b[31m\r\n",
        b"From me\r\n",
    ],
    ids=["101", "9,000", "long line", "folded", "no colon", "no name", "fold first", "bytes", "mbox"],
)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\n" + b"Link: x\r\n" * 10 + b"\r\n"])
def test_odd_head(app: Flask, receiver: Any, head: bytes, before: bytes) -> None:
    """Whatever stands in the 64 kB of a head, it is delivered with one request, and the connection serves the next."""
    receiver.answers = [before + b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nok"]

    assert [send_webhook(receiver.url, {}, timeout=20).excerpt for _ in range(2)] == ["ok", "ok"]

    assert receiver.received.qsize() == 2
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1  200\r\nContent-Length:2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2 ;a=b\r\nok\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["space", "list", "twice", "bare LF", "empty line", "no reason", "chunked", "1.0"],
)
def test_odd_framing(app: Flask, receiver: Any, answer: bytes) -> None:
    """An answer whose end can be told, however oddly, ends there, and its connection serves the next delivery."""
    receiver.answers = [answer]

    assert [send_webhook(receiver.url, {}, timeout=30).excerpt for _ in range(2)] == ["ok", "ok"]

    assert receiver.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    ],
)
def test_answer_without_an_end(app: Flask, receiver: Any, answer: bytes) -> None:
    """One whose end cannot be told is waited for no longer than a moment, and its connection is closed."""
    receiver.answers = [answer]

    assert [send_webhook(receiver.url, {}, timeout=60).excerpt for _ in range(2)] == ["ok", "ok"]

    assert receiver.connections == 2


def test_gzip_bomb(app: Flask, receiver: Any) -> None:
    """A compressed answer is never decompressed."""
    # Of 25 members, to be made quickly: 500 kB that become 500 MB.
    bomb = gzip.compress(b"\0" * 20_000_000) * 25
    before = memory()
    receiver.behave = reply(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    )

    delivery, _ = timed(receiver.url, 5)

    assert isinstance(delivery, Delivery)
    assert delivery.excerpt
    assert memory() - before < 40_000_000


def test_another_protocol(app: Flask, receiver: Any) -> None:
    """101 is a failure, and its connection serves no other delivery."""
    receiver.answers = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]

    error, _ = timed(receiver.url, 20)
    after, _ = timed(receiver.url, 20)

    assert isinstance(error, WebhookRejected)
    assert isinstance(after, Delivery)
    assert receiver.connections == 2


def test_answered_without_reading(app: Flask, receiver: Any) -> None:
    """A receiver that answers 413 and hangs up in the middle of the payload has answered."""

    def behave(sock: socket.socket, receiver: Any) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    receiver.behave = behave

    with pytest.raises(WebhookRejected, match="413"):
        send_webhook(receiver.url, b"x" * 200_000)


def test_memory(app: Flask, receiver: Any) -> None:
    """Endless answers to eight deliveries cost little memory."""
    timed(receiver.url)
    before = memory()
    receiver.behave = flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)

    for _ in range(8):
        timed(receiver.url, 5)

    assert memory() - before < 40_000_000
