"""Send one POST and read its answer: pooled, verified, to checked addresses, and over at its deadline."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3.connection import HTTPConnection, HTTPSConnection

from ...errors import WebhookBlocked
from .address import Policy, Url, parse_proxy
from .deadline import Deadline
from .resolver import Resolver

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read, its head included."""
MOST_IDLE = 64
"""Connections that are kept open for the next delivery, all hosts together."""
IDLE_SECONDS = 30.0
_PIECE = 16 * 1024

Key = tuple[str, str, int, Policy]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said."""

    status: int
    headers: Message = field(repr=False)
    body: bytes = field(repr=False)
    """The first bytes of it, never decompressed; possibly cut."""


class Malformed(Exception):
    """The answer is not HTTP, or more of it than anybody needs. Its text quotes nothing that the receiver sent."""


class _Reader(io.RawIOBase):
    """
    Reads an answer off a socket until the deadline, up to a number of bytes.

    Past the head, `in_body`, whatever goes wrong is only the end of the answer: its status has been read.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        # Counted by the socket, which so stays open until the answer is read.
        self._file = sock.makefile("rb", buffering=0)
        self._deadline = deadline
        self._left = LONGEST_ANSWER
        self.began = False
        self.in_body = False
        self.is_cut = False

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client.HTTPResponse` calls on what it takes for a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)[: self._left]
        if not view:
            return self._cut(Malformed("the head of the answer is too long"))
        try:
            # Before each read: a byte now and then would renew any timeout set once.
            self._sock.settimeout(self._deadline.left())
            count = self._file.readinto(view) or 0
        except OSError as error:
            return self._cut(error)
        self._left -= count
        self.began = self.began or count > 0
        self.is_cut = self.is_cut or count == 0
        return int(count)

    def _cut(self, error: Exception) -> int:
        if not self.in_body:
            raise error
        self.is_cut = True
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that skips all interim ones, not only 100. But 101 is final: nobody asked for another protocol."""

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != 101:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(HTTPConnection):
    """A connection to the address that was checked. `deadline` is that of the delivery that has it."""

    deadline: Deadline
    reader: _Reader | None = None

    def __init__(self, host: str, port: int, transport: Transport, policy: Policy | None, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        self._transport = transport
        self._policy = policy

    def _new_conn(self) -> socket.socket:
        return self._transport.connect(self.host, self.port, self._policy, self.deadline)

    def send(self, data: Any) -> None:
        view = memoryview(data)
        # In pieces: an ssl socket takes its timeout anew for each record.
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(self.deadline.left())
            self.sock.sendall(view[start : start + _PIECE])

    def response_class(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> _Response:  # type: ignore[override]
        self.reader = _Reader(sock, self.deadline)
        return _Response(self.reader, debuglevel, method)  # type: ignore[arg-type]

    def getresponse(self) -> http.client.HTTPResponse:  # type: ignore[override]
        # Not urllib3's own: that one decompresses, and logs the path of the URL with headers it cannot parse.
        return http.client.HTTPConnection.getresponse(self)


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class Transport:
    """
    The connections of one application in one process; any number of threads may use it.

    urllib3 connects, tunnels and verifies; its pools are not used, since they log the path of a URL. Nothing is taken
    from the environment but OpenSSL's own `SSL_CERT_FILE` and `SSL_CERT_DIR`, and Python's `SSLKEYLOGFILE`.
    """

    def __init__(self, ca_file: str | None = None, proxy: str | None = None) -> None:
        self._ca_file = ca_file
        self._proxy = parse_proxy(proxy) if proxy else None
        self._resolver = Resolver()
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()  # guards _idle, and the making of _context
        self._idle: list[tuple[Key, _Connection, float]] = []
        self._closed = False

    def post(self, url: Url, headers: Mapping[str, str], body: bytes, policy: Policy, deadline: Deadline) -> Answer:
        """
        POST `body` and return the answer, whatever its status.

        Raises WebhookBlocked before a packet is sent; OSError, TimeoutError among them, when the receiver cannot be
        reached or does not answer in time; Malformed when the answer is not HTTP.
        """
        # A connection made under one policy must not serve a delivery under a stricter one.
        key = (url.scheme, url.host, url.port, policy)
        if (conn := self._take(key)) is not None:
            conn.deadline = deadline
            try:
                return self._exchange(conn, key, url, headers, body)
            except OSError:
                # The receiver closed it while it was idle. Anything that was answered is an answer, though; and past
                # the deadline the next try ends before it begins.
                if conn.reader is not None and conn.reader.began:
                    raise
        return self._exchange(self._open(url, policy, deadline), key, url, headers, body)

    def connect(self, host: str, port: int, policy: Policy | None, deadline: Deadline) -> socket.socket:
        """Resolve `host` once, check every address by `policy`, and connect to one of these very addresses."""
        found = self._resolver.resolve(host.strip("[]"), port, deadline)
        if policy is not None and (refusal := policy.refusal(host.strip("[]"), (each[1][0] for each in found))):
            raise WebhookBlocked(f"Webhook not sent: {refusal}.")
        failure = OSError("the name has no address")
        for number, (family, address) in enumerate(found):
            sock = None
            try:
                # Within: a system without IPv6 fails here for an address of the other kind.
                sock = socket.socket(family, socket.SOCK_STREAM)
                # A fair share of the time for each address, so that a black hole does not use up the others' turn.
                sock.settimeout(deadline.left() / (len(found) - number))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The whole TLS handshake is held to this: OpenSSL's caller counts one timeout over all its reads.
                sock.settimeout(deadline.left())
                return sock
            except OSError as error:
                if sock is not None:
                    sock.close()
                failure = error
        try:
            raise failure
        finally:
            # The error's traceback holds this frame from here on, and the frame the error: a cycle.
            del failure

    def close(self) -> None:
        """Close the idle connections; the others are closed after their delivery."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, conn, _ in idle:
            conn.close()
        self._resolver.close()

    def _exchange(self, conn: _Connection, key: Key, url: Url, headers: Mapping[str, str], body: bytes) -> Answer:
        reusable = False
        conn.reader = None
        target = url.target
        if self._proxy is not None and url.scheme == "http":
            target = f"{url}{url.target}"
            headers = {**headers, **self._proxy.headers}
        try:
            with _stop_greenlet(conn.deadline):
                if conn.sock is None:
                    conn.timeout = conn.deadline.left()
                    # A proxy answers with HTTP as well, or does not.
                    _understood(conn.connect)
                    conn.reader = None
                conn.timeout = conn.deadline.left()
                # It may answer without reading it all: 413, for one.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    conn.request("POST", target, body=body, headers={"Host": url.authority, **headers})
                answer, reusable = _read(conn)
            return answer
        finally:
            if reusable:
                self._put(key, conn)
            else:
                conn.close()

    def _open(self, url: Url, policy: Policy, deadline: Deadline) -> _Connection:
        host = f"[{url.host}]" if ":" in url.host else url.host
        proxy = self._proxy
        at = (host, url.port) if proxy is None else (proxy.url.host, proxy.url.port)
        conn: _Connection
        if url.scheme == "http":
            conn = _Connection(*at, self, None if proxy else policy)
        else:
            conn = _TLSConnection(*at, self, None if proxy else policy, ssl_context=self._tls())
            if proxy is not None:
                conn.set_tunnel(host, url.port, headers=proxy.headers)
        conn.deadline = deadline
        return conn

    def _tls(self) -> ssl.SSLContext:
        """Return the one context: to make it reads all the system's CAs, some 50 ms."""
        with self._lock:
            if self._context is None:
                context = ssl.create_default_context()
                if self._ca_file is not None:
                    context.load_verify_locations(self._ca_file)
                self._context = context
            return self._context

    def _take(self, key: Key) -> _Connection | None:
        """Take the idle connection that was used last, to let the others grow old."""
        now = time.monotonic()
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                its_key, conn, since = self._idle[index]
                if its_key == key:
                    del self._idle[index]
                    if now - since < IDLE_SECONDS and conn.is_connected:
                        return conn
                    conn.close()
        return None

    def _put(self, key: Key, conn: _Connection) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._closed:
                self._idle.append((key, conn, now))
            old = self._idle[:-MOST_IDLE]
            old += [entry for entry in self._idle[-MOST_IDLE:] if now - entry[2] >= IDLE_SECONDS]
            for entry in old:
                self._idle.remove(entry)
        for _, its_conn, _ in old:
            its_conn.close()
        if self._closed:
            conn.close()


def _stop_greenlet(deadline: Deadline) -> AbstractContextManager[Any]:
    """End what is done within at the deadline, where gevent has replaced `ssl`: its own renews a timeout per byte."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("ssl"):
        return contextlib.nullcontext()
    timeout: AbstractContextManager[Any] = sys.modules["gevent"].Timeout(deadline.left(), TimeoutError("timed out"))
    return timeout


def _understood(step: Callable[[], T]) -> T:
    """Return what `step` returns; Malformed when what it read is no HTTP."""
    try:
        return step()
    except OSError:
        # First: a connection that ends is an HTTPException too, a certificate that is not accepted a ValueError.
        raise
    except (http.client.HTTPException, ValueError):
        pass
    # Out here, so that it carries no error that quotes the answer: an echo would be our own secrets.
    raise Malformed("the answer is not HTTP")


def _read(conn: _Connection) -> tuple[Answer, bool]:
    """Return the answer, and whether the connection is good for another one."""
    response = _understood(conn.getresponse)
    reader = conn.reader
    assert reader is not None
    with contextlib.closing(response):
        if len(set(response.headers.get_all("content-length", ()))) > 1:
            raise Malformed("the answer has two lengths")
        reader.in_body = True
        try:
            body = response.read(LONGEST_ANSWER)
        except (http.client.HTTPException, ValueError) as error:
            body = getattr(error, "partial", b"")
        complete = response.isclosed() and not reader.is_cut
        # http.client takes a 101 for the end of the exchange; the other side has just begun with something else.
        reusable = complete and response.status != 101 and not response.will_close
        return Answer(response.status, response.headers, body), reusable
