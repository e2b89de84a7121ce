"""Real receivers for each test: http or https on this machine, that answer, or misbehave, as the test says."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask

from flask_asok import FlaskAsok, signals

TIMEOUT = 10
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Received:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes
    connection: int
    names: list[str]
    """Of the headers as they came, in lower case."""


class Receiver:
    """
    Keep every request in `received`; answer with the bytes in `answers`, one after the other, then with 200.

    `behave(sock, receiver)` takes over a connection from its first byte, before TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.tls = tls
        self.address = address
        self.received: queue.Queue[Received] = queue.Queue()
        self.answers: list[bytes] = []
        self.behave: Callable[[socket.socket, Receiver], None] | None = None
        self.answer_when = threading.Event()
        """Requests are answered once it is set, as it is unless a test clears it."""
        self.answer_when.set()
        self.closed = threading.Event()
        self.connections = 0
        self.handshakes = 0
        self.done = threading.Semaphore(0)
        """Released whenever a connection has ended."""
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((address, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/hook"

    def next(self) -> Received:
        return self.received.get(timeout=TIMEOUT)

    def close(self) -> None:
        self.closed.set()
        self.answer_when.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._socks.append(sock)
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), sock:
            if self.behave is not None:
                self.behave(sock, self)
            else:
                self._converse(sock, number)
        self.done.release()

    def _converse(self, sock: socket.socket, number: int) -> None:
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_side=True)
            self._socks.append(sock)
            self.handshakes += 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, sock.makefile("rb") as file:
            while (request := read_request(file, number)) is not None:
                self.received.put(request)
                self.answer_when.wait(TIMEOUT)
                answer = self.answers.pop(0) if self.answers else OK
                if answer:
                    sock.sendall(answer)
                if not answer or b"onnection: close" in answer:
                    return


def read_request(file: Any, number: int = 0) -> Received | None:
    line = file.readline().decode().strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    names: list[str] = []
    while text := file.readline().decode().strip():
        name, _, value = text.partition(": ")
        headers[name.lower()] = value
        names.append(name.lower())
    return Received(line, headers, file.read(int(headers.get("content-length", 0))), number, names)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    """Open as many receivers as a test wants."""
    receivers: list[Receiver] = []

    def make(tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Receiver:
        receivers.append(Receiver(tls, address))
        return receivers[-1]

    yield make
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def receiver(make_receiver: Callable[..., Receiver]) -> Receiver:
    """A receiver over http."""
    return make_receiver()


def _tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def tls_receiver(make_receiver: Callable[..., Receiver], authority: trustme.CA) -> Receiver:
    """A receiver over https, whose certificate is good for localhost only."""
    return make_receiver(_tls(authority, "localhost"))


@pytest.fixture
def make_app(ca_file: Path) -> Iterator[Callable[..., Flask]]:
    """Make an app that may deliver to this machine; closed at the end."""
    apps: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = Flask("shop")
        app.config.update({"ASOK_WEBHOOK_ALLOW": ["127.0.0.0/8", "::1"], "ASOK_WEBHOOK_CA_FILE": str(ca_file)})
        app.config.update(config)
        FlaskAsok(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        FlaskAsok().close(app, 2)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    """An app whose context is pushed."""
    app = make_app()
    with app.app_context():
        yield app


class Heard:
    """Keep what the webhook signals of an app say."""

    def __init__(self, app: Flask) -> None:
        self.failed: list[dict[str, Any]] = []
        self.gone: list[dict[str, Any]] = []
        self._receivers = (self._on_failed, self._on_gone)
        signals.webhook_failed.connect(self._on_failed, app)
        signals.webhook_gone.connect(self._on_gone, app)

    def _on_failed(self, app: Flask, **kwargs: Any) -> None:
        self.failed.append(kwargs)

    def _on_gone(self, app: Flask, **kwargs: Any) -> None:
        self.gone.append(kwargs)


@pytest.fixture
def hear() -> type[Heard]:
    """`hear(app)` keeps what the webhook signals of an app say from now on."""
    return Heard
