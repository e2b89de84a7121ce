"""Addresses and other texts that a visitor may have typed: none of them raises in the view."""

from __future__ import annotations

import io
import re

import flask_mail
import pytest
from werkzeug.datastructures import FileStorage

from flask_asok import Mail, MailRefused, check_address, send_mail
from flask_asok.signals import mail_refused

TIMEOUT = 10

BREAKS = ["\r", "\n", "\r\n", "\0", "\x0b", "\x1b", "\x7f"]

BAD = [
    "", " ", "user", "abc", "@example.com", "user@", "user@example..com", "user@-example.com", "us er@example.com",
    ".user@example.com", "us..er@example.com", "user@exa mple.com", "<user@example.com", "user@example.com>",
    "a@example.com, b@example.com", "a@example.com;b@example.com", "a@example.com, B <b@example.com>",
    "Doe, John <a@example.com>", f"{'x' * 65}@example.com", f"a@{'x.' * 130}com", "jörg@example.com",
    "user@exämple..com", "user@example.com ORCPT=x", 'a"b@example.com', "user@@example.com", "a@b@example.com",
    "user@example.com.", "a\ud800@example.com", "a@\ud800.example",
]  # fmt: skip


@pytest.mark.parametrize("address", BAD)
def test_bad_address(app, handler, address, refused):
    """An address that no server would take fails the task and raises nothing at the call; the error shows it."""
    error = refused(to=address)

    assert "to: " in str(error)
    assert (error.code, error.receipts[0].accepted) == (None, [])
    assert handler.connections == 0


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender", "reply_to"])
def test_every_field(app, handler, field, refused):
    """Nor does one raise in another field; nobody gets half of such a mail."""
    error = refused(**{field: "jörg@b.example"})

    assert f"{field}: 'jörg@b.example' is not ASCII" in str(error)
    assert handler.connections == 0


def test_default_sender(make_app, refused):
    """The default sender is an address as well."""
    with make_app(MAIL_DEFAULT_SENDER="nobody", MAIL_PORT=1).app_context():
        assert "sender: 'nobody' is no mail address" in str(refused())


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize(
    "where",
    [
        lambda text: {"subject": text},
        lambda text: {"to": f"{text} <user@example.com>"},
        lambda text: {"to": f"user@example.com{text}"},
        lambda text: {"to": [(text, "user@example.com")]},
        lambda text: {"cc": ("Name", f"user@example.com{text}")},
        lambda text: {"bcc": [f"user{text}@example.com"]},
        lambda text: {"sender": (text, "user@example.com")},
        lambda text: {"reply_to": f"{text} <user@example.com>"},
        lambda text: {"attachments": [(text, "data")]},
        lambda text: {"attachments": [FileStorage(io.BytesIO(b"x"), text)]},
        lambda text: {"attachments": [flask_mail.Attachment(text, None, b"x")]},
    ],
    ids=[
        "subject", "to", "to-address", "to-pair", "cc", "bcc", "sender", "reply_to", "attachment", "upload",
        "flask-mail-attachment",
    ],
)  # fmt: skip
def test_line_break(app, handler, where, line_break, refused):
    """A line break or a NUL that a visitor typed fails the task; no header comes of it."""
    error = refused(**where(f"a{line_break}Bcc: victim@example.com"))

    assert repr(line_break[0]) in str(error)
    assert str(error).isprintable()
    assert handler.connections == 0


@pytest.mark.parametrize("field", ["recipients", "cc", "bcc", "sender", "reply_to", "subject"])
def test_message(app, handler, field):
    """The same holds for a Flask-Mail Message."""
    evil = "a@example.com\r\nBcc: victim@example.com"
    values = {"subject": "Hello", "recipients": ["user@example.com"], "body": "x"}
    message = flask_mail.Message(**{**values, field: evil if field in ("sender", "reply_to", "subject") else [evil]})

    task = Mail.send_message(message)

    assert isinstance(task.exception(TIMEOUT), MailRefused)
    assert handler.connections == 0


@pytest.mark.parametrize("field", ["subject", "body", "html"])
def test_half_of_a_character(app, handler, field, refused):
    """Text that cannot be encoded, as JSON brings half of an emoji, fails the task; the error names the field."""
    error = refused(**{field: "so good \ud83d"})

    assert f"{field} cannot be encoded" in str(error)
    assert str(error).isprintable()
    assert handler.connections == 0


def test_charset_of_a_message(app, handler):
    """So does text that the charset of a Flask-Mail Message has no letters for."""
    message = flask_mail.Message("Hello", ["user@example.com"], body="so good \U0001f600", charset="iso-8859-1")

    error = Mail.send_message(message).exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert "body cannot be encoded" in str(error)
    assert handler.connections == 0


def test_message_that_signs(app):
    """A Message of a class of yours is not asked for bytes that it cannot make."""

    class Signed(flask_mail.Message):
        def as_bytes(self) -> bytes:
            raise AssertionError("asked")

    error = Mail.send_message(Signed("Hello", ["abc"], body="World")).exception(TIMEOUT)

    assert isinstance(error, MailRefused)


@pytest.mark.parametrize("said", ["nonsense\x0b", "image/" + "x" * 1_000])
def test_upload_of_any_type(app, handler, said):
    """What a browser calls a type, and is none, is guessed from the name instead; so is one of a thousand letters."""
    upload = FileStorage(io.BytesIO(b"GIF89a"), "a.gif", content_type=said)

    Mail.send("user@example.com", "Hi", "x", attachments=[upload]).result(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_content_type() == "image/gif"


def test_log(app, caplog, refused):
    """The log names the address, on one line and not longer than needed."""
    refused(to="abc\n" * 5_000)

    (message,) = caplog.messages
    assert message.startswith("Background task send_mail failed: MailRefused")
    assert r"to: 'abc\\nabc" in message
    assert message.isprintable()
    assert len(message) < 1_000


def test_many_bad_addresses(app, refused):
    """An error that has a thousand reasons shows some of them."""
    assert len(str(refused(to=["abc"] * 1_000))) < 1_000


def test_directly(app, handler):
    """Called as a plain function it raises the same error."""
    with pytest.raises(MailRefused, match="'abc' is no mail address"):
        send_mail("abc", "Hello", "World")


@pytest.mark.parametrize("directly", [False, True])
def test_batch(app, handler, directly):
    """In a batch the others are sent; the task fails with the receipts of all."""
    from flask_asok.recipes.mail import send_mails

    mails = [{"to": "a@example.com"}, {"to": "abc"}, {"to": "c@example.com"}]
    if directly:
        with pytest.raises(MailRefused) as caught:
            send_mails(mails)
        error = caught.value
    else:
        error = Mail.send_many(mails).exception(TIMEOUT)

    assert "1 of 3 mails were refused. Mail " in str(error)
    assert "cannot be sent: to: 'abc' is no mail address." in str(error)
    assert [receipt.accepted for receipt in error.receipts] == [["a@example.com"], [], ["c@example.com"]]
    assert handler.received.qsize() == 2


@pytest.mark.usefixtures("quick")
def test_batch_put_off(app, handler):
    """What the server puts off in such a batch is sent later all the same."""
    handler.data_answers = ["451 later", ""]

    error = Mail.send_many([{"to": "abc"}, {"to": "b@example.com"}]).exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert [receipt.later for receipt in error.receipts] == [[], ["b@example.com"]]
    assert handler.take().rcpt_tos == ["b@example.com"]


def test_nobody_is_called_dead(app, refused):
    """The signal that tells of dead addresses tells nothing of those that a bad subject kept from their mail."""
    heard = []

    def receiver(sender, **kwargs) -> None:
        heard.append(kwargs)

    with mail_refused.connected_to(receiver):
        refused(subject="a\nb")

    assert heard == []


@pytest.mark.parametrize("address", [*BAD, "a@example.com\nBcc: b@example.com"])
def test_check_bad_address(address):
    """What would fail the task is a ValueError for a page that asks."""
    with pytest.raises(ValueError, match=re.escape(repr(address[:150])[:-1])) as caught:
        check_address(address)
    assert not str(caught.value).startswith("address")
