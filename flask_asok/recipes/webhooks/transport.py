"""Connections that send one POST and read its answer: kept, verified, to checked addresses, until a deadline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from .answer import Answer, Malformed, Reader
from .deadline import Deadline
from .errors import WebhookBlocked
from .policy import Policy
from .reasons import ProxyFailed, explain
from .resolver import Resolver
from .url import Proxy, Url, parse_proxy

ADDRESS_SECONDS = 2.0
"""How long each of several addresses has to accept a connection: enough for a second try by the system."""
MOST_IDLE = 64
"""Connections to keep open for further deliveries, for all hosts together."""
IDLE_SECONDS = 30.0
_PIECE = 16 * 1024

Key = tuple[str, str, int, Policy]


class _Connection(HTTPConnection):
    """A connection to a checked address. `deadline` is the one of the delivery that uses it now."""

    deadline: Deadline
    reader: Reader | None = None

    def __init__(self, host: str, port: int, transport: Transport, policy: Policy, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        self._transport = transport
        self._policy = policy

    def _new_conn(self) -> socket.socket:
        return self._transport.connect(self.host, self.port, self._policy, self.deadline, is_tls=False)

    def send(self, data: Any) -> None:
        _send(self.sock, data, self.deadline)


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""

    def _new_conn(self) -> socket.socket:
        return self._transport.connect(self.host, self.port, self._policy, self.deadline, is_tls=True)


class Transport:
    """
    The connections of one application in one process; any number of threads may use it.

    urllib3 verifies certificates. Its pools would log the path of a URL; `Reader` says why http.client, below it, does
    not read the answer. Nothing comes from the environment but OpenSSL's own `SSL_CERT_FILE` and `SSL_CERT_DIR`, and
    Python's `SSLKEYLOGFILE`.
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

        Raises WebhookBlocked before it sends a packet; OSError if the receiver cannot be reached or does not answer in
        time, TimeoutError and ProxyFailed included; Malformed if the answer is not HTTP.
        """
        # A delivery under a stricter policy must not use a connection made under another one.
        key = (url.scheme, url.host, url.port, policy)
        answer = self._post_again(key, url, headers, body, deadline)
        if answer is None:
            answer = self._exchange(self._open(url, policy, deadline), key, url, headers, body)
        if answer.status == 407 and (proxy := self.proxy_for(url)):
            raise ProxyFailed(proxy, f"answered {self._said(answer)}")
        return answer

    def proxy_for(self, url: Url) -> str | None:
        """Return the URL, without credentials, of a proxy whose answers look like the receiver's: for http only."""
        return str(self._proxy.url) if self._proxy is not None and url.scheme == "http" else None

    def connect(self, host: str, port: int, policy: Policy, deadline: Deadline, *, is_tls: bool) -> socket.socket:
        """Connect to `host`, or to the proxy, and for TLS through the proxy."""
        host = host.strip("[]")
        if (proxy := self._proxy) is None:
            return self._dial(host, port, policy, deadline)
        try:
            sock = self._dial(proxy.url.host, proxy.url.port, None, deadline)
            if is_tls:
                try:
                    self._tunnel(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy, deadline)
                except BaseException:
                    sock.close()
                    raise
            return sock
        except ProxyFailed:
            raise
        except (OSError, Malformed) as error:
            raise ProxyFailed(str(proxy.url), f"failed: {explain(error)}") from None

    def _tunnel(self, sock: socket.socket, authority: str, proxy: Proxy, deadline: Deadline) -> None:
        _send(sock, _head(f"CONNECT {authority}", {"Host": authority, **proxy.headers}), deadline)
        answer = Reader(sock, deadline).head()
        if not 200 <= answer.status < 300:
            raise ProxyFailed(str(proxy.url), f"answered {self._said(answer)}")

    def _said(self, answer: Answer) -> str:
        """Return the status and the reason of a proxy's answer, without its credentials."""
        words = answer.reason
        for value in self._proxy.headers.values() if self._proxy is not None else ():
            words = words.replace(value.split()[-1], "***")
        return f"{answer.status} {words}".strip()

    def _dial(self, host: str, port: int, policy: Policy | None, deadline: Deadline) -> socket.socket:
        """Resolve `host` once, check every address by `policy`, and connect to one of these very addresses."""
        addresses = self._resolver.resolve(host, port, deadline)
        if policy is not None and (refusal := policy.refusal(host, (each[1][0] for each in addresses))):
            raise WebhookBlocked(f"Webhook not sent: {refusal}.")
        failure = OSError("the name has no address")
        for number, (family, address) in enumerate(addresses, start=1):
            sock = None
            try:
                # In the block: a system without IPv6 fails here for an IPv6 address.
                sock = socket.socket(family, socket.SOCK_STREAM)
                # An address that never answers must leave time for the others.
                others = len(addresses) - number
                sock.settimeout(min(deadline.left() / (others + 1), ADDRESS_SECONDS) if others else deadline.left())
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The whole TLS handshake gets this timeout: the ssl module counts it over all reads of one handshake.
                sock.settimeout(deadline.left())
                return sock
            except OSError as error:
                if sock is not None:
                    sock.close()
                failure = error
        try:
            raise failure
        finally:
            # The error's traceback holds this frame, and the frame would hold the error: a cycle.
            del failure

    def close(self) -> None:
        """Close the idle connections now, and each of the others after its delivery."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, conn, _ in idle:
            conn.close()
        self._resolver.close()

    def _post_again(
        self, key: Key, url: Url, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> Answer | None:
        """POST on a kept connection; None if there is none, or the receiver has closed it."""
        if (conn := self._take(key)) is None:
            return None
        conn.deadline = deadline
        try:
            answer = self._exchange(conn, key, url, headers, body)
        except OSError:
            # The receiver closed it while it was idle. If any byte arrived it did answer; and past the deadline a
            # second try ends before it begins.
            if conn.reader is not None and conn.reader.began:
                raise
            return None
        # The receiver sent a 408 before this request arrived: it is about the idle time, and nothing was read.
        return None if answer.status == 408 else answer

    def _exchange(self, conn: _Connection, key: Key, url: Url, headers: Mapping[str, str], body: bytes) -> Answer:
        is_reusable = False
        conn.reader = None
        target = url.target
        if self._proxy is not None and url.scheme == "http":
            target = f"{url}{url.target}"
            headers = {**headers, **self._proxy.headers}
        fields = {
            "Host": url.authority,
            "Accept-Encoding": "identity",
            "Content-Length": str(len(body)),
            **headers,
        }
        try:
            with _stop_greenlet(conn.deadline):
                if conn.sock is None:
                    conn.connect()
                # The receiver may answer without reading everything, with a 413 for example.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    conn.send(_head(f"POST {target}", fields) + body)
                conn.reader = Reader(conn.sock, conn.deadline)
                answer = conn.reader.answer()
                is_reusable = answer.is_reusable
            return answer
        finally:
            if is_reusable:
                self._put(key, conn)
            else:
                conn.close()

    def _open(self, url: Url, policy: Policy, deadline: Deadline) -> _Connection:
        host = f"[{url.host}]" if ":" in url.host else url.host
        conn = (
            _Connection(host, url.port, self, policy)
            if url.scheme == "http"
            else _TLSConnection(host, url.port, self, policy, ssl_context=self._tls())
        )
        conn.deadline = deadline
        return conn

    def _tls(self) -> ssl.SSLContext:
        """Return the one context: making it reads all CAs of the system, which takes about 50 ms."""
        with self._lock:
            if self._context is None:
                context = ssl.create_default_context()
                if self._ca_file is not None:
                    context.load_verify_locations(self._ca_file)
                self._context = context
            return self._context

    def _take(self, key: Key) -> _Connection | None:
        """Take the most recently used idle connection, so that the others can expire."""
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
    """End the block at the deadline if gevent has replaced `ssl`, whose sockets renew their timeout for each byte."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("ssl"):
        return contextlib.nullcontext()
    timeout: AbstractContextManager[Any] = sys.modules["gevent"].Timeout(deadline.left(), TimeoutError("timed out"))
    return timeout


def _head(request: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("A header of the webhook holds a line break.")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _send(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    view = memoryview(data)
    # In pieces: an ssl socket takes its timeout anew for each record.
    for start in range(0, len(view), _PIECE):
        sock.settimeout(deadline.left())
        sock.sendall(view[start : start + _PIECE])
