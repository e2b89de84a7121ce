"""Certificates, versions of TLS, and what is not taken from the environment."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask

from flask_asok import WebhookUnavailable, send_webhook


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
