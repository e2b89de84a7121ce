"""The login at the server, and where its password must not show."""

from __future__ import annotations

import traceback

import pytest

from flask_asok import Mail, MailRefused, MailUnavailable

TIMEOUT = 15


@pytest.fixture
def login_server(serve, handler, server_tls):
    return serve(tls_context=server_tls, require_starttls=True, auth_required=True, authenticator=handler.authenticate)


def login_app(make_app, server, ca_file, password):
    return make_app(
        server,
        MAIL_SERVER="localhost",
        MAIL_USE_TLS=True,
        MAIL_USERNAME="shop",
        MAIL_PASSWORD=password,
        ASOK_MAIL_CA_FILE=ca_file,
    )


def test_login(attempt, make_app, login_server, handler, ca_file):
    """MAIL_USERNAME and MAIL_PASSWORD log in, once per connection."""
    app = login_app(make_app, login_server, ca_file, "secret")

    error, _ = attempt(app)

    assert error is None
    assert handler.logins == [(b"shop", b"secret")]


def test_wrong_password(make_app, login_server, handler, ca_file):
    """A wrong password is not tried again, which could lock the account; it is in no error."""
    app = login_app(make_app, login_server, ca_file, "hunter2")

    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")
        error = task.exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert (error.code, task.attempts) == (535, 1)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(("username", "password"), [("shop", "hünter2"), ("shöp", "hunter2")])
def test_login_that_is_not_ascii(attempt, make_app, login_server, handler, ca_file, caplog, username, password):
    """A login that smtplib cannot send fails with a text that says so; the password is in no log."""
    app = login_app(make_app, login_server, ca_file, password)
    app.config["MAIL_USERNAME"] = username

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "must be ASCII" in str(error)
    assert password not in caplog.text
    assert "nter2" not in "".join(traceback.format_exception(error))


def test_login_that_is_a_number(attempt, make_app, login_server, handler, ca_file):
    """FLASK_MAIL_PASSWORD=123456 is a number to Flask; it is sent as it was written."""
    app = login_app(make_app, login_server, ca_file, 123456)

    error, _ = attempt(app)

    assert error.code == 535
    assert set(handler.logins) == {(b"shop", b"123456")}


@pytest.mark.usefixtures("quick")
def test_login_put_off(make_app, login_server, handler, ca_file):
    """A login that the server puts off (454) is tried again."""
    app = login_app(make_app, login_server, ca_file, "later")

    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")
        error = task.exception(TIMEOUT)

    assert isinstance(error, MailUnavailable)
    assert (error.code, task.attempts) == (454, 4)


def test_debug_hides_the_password(attempt, make_app, login_server, handler, ca_file, capfd):
    """MAIL_DEBUG, which is on in debug mode, prints the conversation but no login."""
    app = login_app(make_app, login_server, ca_file, "secret")
    app.config["MAIL_DEBUG"] = True

    error, _ = attempt(app)

    printed = capfd.readouterr().err
    assert error is None
    assert "user@example.com" in printed
    assert "AUTH PLAIN" not in printed.upper().replace("250-", "").replace("AUTH LOGIN PLAIN", "")
    assert "c2VjcmV0" not in printed
    assert "AHNob3AAc2VjcmV0" not in printed
