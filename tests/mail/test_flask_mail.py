"""Side by side with Flask-Mail: its settings, its object, its tests."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from importlib import metadata

import flask_mail
import pytest

from flask_asok import Mail, MailRefused
from flask_asok.recipes.mail import Receipt, Refusal, recorded
from flask_asok.recipes.mail.outgoing import OutgoingMail

TIMEOUT = 10


@pytest.fixture
def testing_app(make_app):
    """An app under test whose mail server must not be asked."""
    app = make_app(TESTING=True, MAIL_PORT=1)
    with app.app_context():
        yield app


def test_record_messages(testing_app):
    """Flask-Mail's `record_messages()` sees mail that was sent in the background, as it was given."""
    mail = flask_mail.Mail(testing_app)

    with mail.record_messages() as outbox:
        task = Mail.send(
            to=["a@example.com", ("Ann", "b@example.com"), "Bob <c@example.com>"],
            subject="Hello",
            body="World",
            html="<p>World</p>",
            cc="d@example.com",
            attachments=[("a.txt", "text")],
        )
        task.join(TIMEOUT)

    (message,) = outbox
    assert isinstance(message, flask_mail.Message)
    assert message.recipients == ["a@example.com", ("Ann", "b@example.com"), "Bob <c@example.com>"]
    assert (message.subject, message.body, message.html) == ("Hello", "World", "<p>World</p>")
    assert (message.sender, message.cc) == ("shop@example.com", ["d@example.com"])
    assert [(each.filename, each.data) for each in message.attachments] == [("a.txt", b"text")]
    assert "World" in str(message)


def test_recorded(testing_app, make_app):
    """`recorded(app)` does so without a Mail object, for one app."""
    other = make_app(TESTING=True)

    with recorded(testing_app) as outbox:
        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)
        with other.app_context():
            Mail.send("user@example.com", "Other", "World").join(TIMEOUT)

    assert [message.subject for message in outbox] == ["Hello"]


def test_sent_from_a_worker(testing_app):
    """The signal comes where the mail is sent: in the task's thread, with its app context."""
    seen = []

    def receiver(app, message) -> None:
        seen.append((app, threading.current_thread()))

    with flask_mail.email_dispatched.connected_to(receiver):
        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)

    assert seen[0][0] is testing_app
    assert seen[0][1] is not threading.current_thread()


def test_testing_sends_nothing(make_app, serve, handler):
    """An app in testing mode sends nothing; MAIL_SUPPRESS_SEND=False makes it."""
    server = serve()
    silent, loud = make_app(server, TESTING=True), make_app(server, TESTING=True, MAIL_SUPPRESS_SEND=False)

    for app in (silent, loud):
        with app.app_context():
            assert Mail.send("user@example.com", app.name, "World").result(TIMEOUT).accepted

    assert handler.received.qsize() == 1
    assert handler.connections == 1


def test_testing_set_late(make_app, serve, handler):
    """`app.testing = True` after the extension was set up, as fixtures do, is seen."""
    app = make_app(serve())
    app.testing = True

    with app.app_context():
        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)

    assert handler.connections == 0


def test_app_keeps_its_own(make_app, serve, handler):
    """An app with a `Mail(app)` keeps it, and its settings count."""
    app = make_app(serve())
    mail = flask_mail.Mail(app)
    mail.state.default_sender = "changed@example.com"

    with app.app_context():
        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)

    assert app.extensions["mail"] is mail.state
    assert handler.take().mail_from == "changed@example.com"


def test_set_up_after_the_first_mail(make_app, serve, handler):
    """`Mail(app)` may come later; from then on it counts."""
    app = make_app(serve())
    with app.app_context():
        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)
        app.config["MAIL_DEFAULT_SENDER"] = "later@example.com"
        flask_mail.Mail(app)

        Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)

    assert [handler.take().mail_from for _ in range(2)] == ["shop@example.com", "later@example.com"]


def test_message_from_the_start(make_app, serve, handler):
    """Flask-Mail's Message works before the first mail in an app that has no Mail of its own."""
    app = make_app(serve())

    with app.app_context():
        message = flask_mail.Message("Hello", ["user@example.com"], body="World")
        Mail.send_message(message).join(TIMEOUT)

    assert message.sender == "shop@example.com"
    assert handler.take().mail_from == "shop@example.com"


def test_mail_of_the_app_beforehand(make_app):
    """An app that had its `Mail(app)` before the extension keeps it too."""
    from flask import Flask

    from flask_asok import FlaskAsok

    app = Flask("shop")
    mail = flask_mail.Mail(app)

    FlaskAsok(app)

    assert app.extensions["mail"] is mail.state


def test_nothing_is_loaded_before():
    """An app that sends no mail loads neither Flask-Mail nor smtplib."""
    code = (
        "import sys; from flask import Flask; from flask_asok import FlaskAsok; FlaskAsok(Flask('shop')); "
        "import json; print(json.dumps([name in sys.modules for name in ('flask_mail', 'smtplib')]))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert json.loads(printed.stdout) == [False, False]


def test_what_receivers_get(testing_app):
    """A Message that receivers get has all that Flask-Mail 0.10 gives its own, and the bytes that were sent."""
    with recorded(testing_app) as outbox:
        Mail.send("user@example.com", "Hello", "World", bcc="boss@example.com").join(TIMEOUT)

    (message,) = outbox
    assert vars(message).keys() - {"_content"} == vars(flask_mail.Message("Hello")).keys()
    assert metadata.version("flask-mail").startswith("0.10.")
    assert message.send_to == {"user@example.com", "boss@example.com"}
    assert b"World" in bytes(message)
    assert b"boss" not in message.as_bytes()


def test_light_import():
    """Importing the recipe loads neither Flask-Mail nor smtplib."""
    code = (
        "import sys; from flask_asok.recipes.mail import Mail; "
        "import json; print(json.dumps([name in sys.modules for name in ('flask_mail', 'smtplib')]))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert json.loads(printed.stdout) == [False, False]


def plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if hasattr(value, "__dataclass_fields__"):
        return all(plain(getattr(value, name)) for name in value.__dataclass_fields__)
    return value is None or type(value) in (str, bytes, int, float, bool)


def test_what_is_queued(testing_app, tmp_path):
    """A queued mail is plain data that another process could read, and it has no password in it."""
    from markupsafe import Markup

    from flask_asok.recipes.mail.recipe import compose

    testing_app.config.update(MAIL_USERNAME="shop", MAIL_PASSWORD="hunter2")
    (tmp_path / "a.txt").write_text("content")
    with (tmp_path / "a.txt").open() as file:
        mail = compose(
            ("Ann", "a@example.com"), "Hi", Markup("x"), html=Markup("<p>"), attachments=[file], headers={"X-A": "é"}
        )

    assert isinstance(mail, OutgoingMail)
    assert plain(mail)
    assert b"hunter2" not in pickle.dumps(mail)
    assert pickle.loads(pickle.dumps(mail)) == mail


def test_error_travels():
    """An error keeps its answer and its receipts on the way from another process, and its repr is one line of log."""
    receipt = Receipt("<1@x>", [], [Refusal("a@example.com", 550, "unknown")])
    error = MailRefused("a@example.com: 550 unknown", code=550, receipts=[receipt])

    for copy in (pickle.loads(pickle.dumps(error)), MailRefused(*error.args)):
        assert (str(copy), copy.code, copy.receipts) == (str(error), 550, [receipt])
        assert repr(copy) == "MailRefused('a@example.com: 550 unknown')"


def test_repr_hides_the_text(testing_app):
    """What a mail says is not in its repr, which may end up in a log."""
    from flask_asok.recipes.mail.recipe import compose

    mail = compose("a@example.com", "Hi", "reset-token-123")

    assert "reset-token-123" not in repr(mail)
    assert mail.message_id in repr(mail)
