"""`flask asok send-test-mail ADDR`."""

from __future__ import annotations

import pytest


def run(app, *args):
    return app.test_cli_runner().invoke(args=["asok", "send-test-mail", *args])


def test_sent(make_app, serve, handler):
    """It sends a mail at once, and tells the server, the encryption and the answer."""
    server = serve()
    app = make_app(server)

    result = run(app, "user@example.com")

    assert result.exit_code == 0
    assert f"127.0.0.1:{server.port}, no encryption, no login" in result.output
    assert handler.take().message["Message-ID"] in result.output


def test_refused(make_app, serve, handler):
    """It exits with 1 and shows the answer of a server that does not take the mail."""
    handler.data_answers = ["554 5.7.1 no spam"]

    result = run(make_app(serve()), "user@example.com")

    assert result.exit_code == 1
    assert "554 5.7.1 no spam" in result.output
    assert "Traceback" not in result.output


def test_password_is_not_shown(make_app, serve, handler):
    """The login is shown by its name only."""
    app = make_app(serve(), MAIL_USERNAME="shop", MAIL_PASSWORD="hunter2")

    result = run(app, "user@example.com")

    assert "login as shop" in result.output
    assert "hunter2" not in result.output


def test_bad_address(make_app, serve):
    """A mistake in the address is a mistake in the command: exit 2."""
    result = run(make_app(serve()), "user")

    assert result.exit_code == 2
    assert "'user' is no mail address" in result.output


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"MAIL_SERVER": None}, "MAIL_SERVER is None"),
        ({"MAIL_SERVER": "a..b"}, "MAIL_SERVER is 'a..b'"),
        ({"MAIL_USE_TLS": True, "MAIL_USE_SSL": True}, "are both set"),
        ({"MAIL_SUPPRESS_SEND": "maybe"}, "MAIL_SUPPRESS_SEND is 'maybe'"),
        ({"MAIL_DEFAULT_SENDER": "nobody"}, "sender: 'nobody' is no mail address"),
    ],
)
def test_wrong_setting(make_app, config, text):
    """A setting that no mail can be sent by is named: exit 1."""
    result = run(make_app(MAIL_PORT=1, **config), "user@example.com")

    assert result.exit_code == 1
    assert text in result.output
    assert "Traceback" not in result.output


def test_settings_from_the_environment(make_app, serve, handler):
    """What it tells is what it does."""
    server = serve()
    app = make_app(server, MAIL_USE_TLS="false")

    result = run(app, "user@example.com")

    assert result.exit_code == 0
    assert f"127.0.0.1:{server.port}, no encryption, no login" in result.output


def test_no_sender(make_app, serve):
    """Without a sender it names the setting."""
    result = run(make_app(serve(), MAIL_DEFAULT_SENDER=None), "user@example.com")

    assert result.exit_code == 2
    assert "MAIL_DEFAULT_SENDER" in result.output


def test_suppressed(make_app, serve, handler):
    """An app that sends nothing does not look as if it did."""
    result = run(make_app(serve(), MAIL_SUPPRESS_SEND=True), "user@example.com")

    assert result.exit_code == 1
    assert "MAIL_SUPPRESS_SEND" in result.output
    assert handler.connections == 0
