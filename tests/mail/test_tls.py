"""TLS: the server's certificate is verified, or nothing is sent."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from flask_asok import MailRefused


@pytest.mark.parametrize(("days", "text"), [((-20, -10), "has expired"), ((10, 20), "not yet valid")])
def test_certificate_out_of_date(attempt, make_app, serve, handler, ca, ca_file, days, text):
    """A certificate that is out of date is the server's matter: no file of ours would help."""
    now = datetime.now(UTC)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    begin, end = (now + timedelta(days=count) for count in days)
    ca.issue_cert("localhost", not_before=begin, not_after=end).configure_cert(context)
    server = serve(tls_context=context)
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert text in str(error)
    assert "ASOK_MAIL_CA_FILE" not in str(error)
    assert "needs a new one" in str(error)


def test_starttls(attempt, make_app, serve, handler, server_tls, ca_file):
    """With MAIL_USE_TLS the mail goes over TLS, verified against the certificates in ASOK_MAIL_CA_FILE."""
    server = serve(tls_context=server_tls, require_starttls=True)
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert error is None
    assert handler.take().message["Subject"] == "Hello"


def test_tls_from_the_start(attempt, make_app, serve, handler, server_tls, ca_file):
    """With MAIL_USE_SSL as well."""
    server = serve(ssl_context=server_tls, server_hostname="localhost")
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_SSL=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert error is None
    assert handler.take().message["Subject"] == "Hello"


@pytest.mark.parametrize("key", ["MAIL_USE_TLS", "MAIL_USE_SSL"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_unverified(attempt, make_app, serve, handler, server_tls, ca_file, key, wrong, tmp_path):
    """A certificate of another authority, or for another name: nothing is sent, not even the login."""
    server = serve(**({"ssl_context": server_tls} if key == "MAIL_USE_SSL" else {"tls_context": server_tls}))
    if wrong == "authority":
        trustme.CA().cert_pem.write_to_path(ca_file)
    name = "127.0.0.1" if wrong == "name" else "localhost"
    app = make_app(server, MAIL_SERVER=name, ASOK_MAIL_CA_FILE=ca_file, **{key: True})
    app.config.update(MAIL_USERNAME="shop", MAIL_PASSWORD="secret")

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "ASOK_MAIL_CA_FILE" in str(error)
    assert (handler.transactions, handler.logins) == (0, [])


def test_no_starttls(attempt, make_app, serve, handler):
    """Where TLS is wanted and the server has none, nothing is sent in the clear."""
    app = make_app(serve(), MAIL_USE_TLS=True)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "STARTTLS" in str(error)
    assert handler.transactions == 0


def test_tls_on_a_plain_port(attempt, make_app, serve, handler):
    """MAIL_USE_SSL on a port without TLS: the error says which setting is for which port."""
    app = make_app(serve(), MAIL_USE_SSL=True)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "MAIL_USE_TLS" in str(error)


def test_missing_ca_file(attempt, make_app, serve, handler, ca_file):
    """A file of certificates that was deleted since the app was set up fails the mail; the error names the setting."""
    app = make_app(serve(), MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE=ca_file)
    os.unlink(ca_file)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert str(error) == f"ASOK_MAIL_CA_FILE: {ca_file} can no longer be read: No such file or directory."
