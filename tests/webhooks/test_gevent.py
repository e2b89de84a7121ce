"""The same under gevent, whose sockets are others; in a process of its own, since it replaces them for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gevent")

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import itertools, socket, ssl, sys, threading, time
from flask import Flask
from flask_asok import FlaskAsok, WebhookUnavailable, background, send_webhook

certificate, ca_file = sys.argv[1:]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(certificate)


def good(sock):
    sock = tls.wrap_socket(sock, server_side=True)
    while data := sock.recv(65536):
        if data.endswith(b"{}"):
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")


def drip(head, endless):
    def behave(sock):
        sock.recv(65536)
        sock.sendall(head)
        for byte in itertools.cycle(endless):
            time.sleep(0.1)
            sock.sendall(bytes([byte]))

    return behave


def listen(behave):
    def serve():
        sock, _ = listener.accept()
        try:
            behave(sock)
        except OSError:
            pass

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    return f"localhost:{listener.getsockname()[1]}"


app = Flask("shop")
app.config.update(ASOK_WEBHOOK_ALLOW=["localhost"], ASOK_WEBHOOK_CA_FILE=ca_file)
FlaskAsok(app)
with app.app_context():
    url = "https://" + listen(good)
    for _ in range(2):
        assert background(send_webhook, url, {}).result(10).status == 200
    for scheme, head, endless in [
        ("https", b"", b"\\x16\\x03\\x03\\x40\\x00" + b"\\x02" * 99),
        ("http", b"HTTP/1.1 200 OK\\r\\n", b"X: y\\r\\n"),
    ]:
        url = f"{scheme}://{listen(drip(head, endless))}/"
        started = time.monotonic()
        try:
            send_webhook(url, {}, timeout=0.5)
        except WebhookUnavailable as error:
            assert "within 0.5 s" in str(error), error
        else:
            raise AssertionError("delivered")
        assert time.monotonic() - started < 10
FlaskAsok().close(app, 1)
"""


EARLY = "from flask_asok.recipes import import_late; import_late()"
"""As `asok.preload()` does it, and gunicorn's --preload before gevent replaces anything."""


@pytest.mark.parametrize("before", ["", EARLY], ids=["first", "preloaded"])
def test_gevent(authority: object, ca_file: Path, tmp_path: Path, before: str) -> None:
    """Webhooks are delivered, over one connection, and a drip ends at the timeout, TLS handshake included."""
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))  # type: ignore[attr-defined]

    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, str(certificate), str(ca_file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
