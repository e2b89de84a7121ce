"""What raises at the call, before anything is queued, and what a mail may say."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

import flask_mail
import pytest
from jinja2 import TemplateNotFound

from flask_asok import Mail
from flask_asok.recipes.mail.mime import as_bytes
from flask_asok.recipes.mail.recipe import compose
from flask_asok.signals import task_queued

BREAKS = ["\r", "\n", "\r\n", "\0", "\x0b", "\x1b", "\x7f"]


@pytest.fixture
def app(make_app):
    """An app whose server nobody asks: nothing here may get so far."""
    app = make_app(MAIL_PORT=1)
    queued = []

    def receiver(sender, task) -> None:
        queued.append(task)

    with app.app_context(), task_queued.connected_to(receiver):
        yield app
    assert queued == []


def send(**changed):
    return Mail.send(**{"to": "user@example.com", "subject": "Hello", "body": "World", **changed})


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize(
    "where",
    [
        lambda text: {"headers": {"X-Own": text}},
        lambda text: {"headers": {f"X-{text}": "value"}},
        lambda text: {"attachments": [("a.txt", "data", f"text/plain{text}")]},
        lambda text: {"attachments": [flask_mail.Attachment("a", "text/plain", "x", "inline" + text)]},
        lambda text: {"attachments": [flask_mail.Attachment("a", "text/plain", "x", headers={"X": text})]},
    ],
    ids=["header", "header-name", "content-type", "disposition", "attachment-header"],
)
def test_header_injection(app, where, line_break):
    """A line break or a NUL in a header of the caller's is a ValueError, and Flask-Mail's BadHeaderError."""
    with pytest.raises(flask_mail.BadHeaderError) as caught:
        send(**where(f"a{line_break}Bcc: victim@example.com"))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["extra_headers", "mail_options", "rcpt_options", "alts", "charset"])
def test_injection_in_a_message(app, name):
    """What Flask-Mail does not look at is checked in its Messages as well."""
    evil = "a@example.com\r\nBcc: victim@example.com"
    values = {"extra_headers": {"X-Own": evil}, "alts": {f"html\r\n{evil}": "x"}, "charset": "utf\r\n8"}

    with pytest.raises(flask_mail.BadHeaderError) as caught:
        Mail.send_message(flask_mail.Message("Hello", ["a@example.com"], body="x", **{name: values.get(name, [evil])}))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("letters", ["(", "()", ":", "[", "=?utf-8?q?x?=", "Zoë "])
@pytest.mark.parametrize("field", ["to", "sender", "reply_to"])
def test_long_name(plain_app, letters, field):
    """What somebody puts into the name field is written as it is, however long or nested."""
    name = (letters * 3_000).strip()

    with plain_app.app_context():
        mail = compose(**{"to": "a@example.com", "sender": "b@example.com", field: f'"{name}" <c@example.com>'})
        content = as_bytes(mail)

    assert max(map(len, content.splitlines())) <= 998
    assert b"<c@example.com>" in content


@pytest.mark.parametrize(
    "address", [7, b"user@example.com", {"user@example.com": "x"}, object(), [7], [("a", "b", "c")]]
)
def test_no_address(app, address):
    """What is no text is a TypeError."""
    with pytest.raises(TypeError, match="to"):
        send(to=address)


@pytest.mark.parametrize("to", [None, [], ()])
def test_no_recipient(app, to):
    """A mail to nobody is a ValueError."""
    with pytest.raises(ValueError, match="no recipient"):
        send(to=to)


def test_blind_copies_only(plain_app):
    """Blind copies alone are recipients too; the mail has then no To, which may not be empty."""
    with plain_app.app_context():
        mail = compose(None, bcc="a@example.com", sender="b@example.com")
        content = as_bytes(mail)

    assert mail.envelope_to == ["a@example.com"]
    assert "To" not in email.message_from_bytes(content)


def test_no_sender(make_app):
    """A mail from nobody is a ValueError that names the setting."""
    with make_app(MAIL_DEFAULT_SENDER=None).app_context(), pytest.raises(ValueError, match="MAIL_DEFAULT_SENDER"):
        send()


@pytest.mark.parametrize(("given", "count"), [(None, 0), ("a.txt", 1), (Path("a.txt"), 1), (["a.txt"], 1)])
def test_few_attachments(tmp_path, monkeypatch, given, count):
    """No attachment may be None; a single path needs no list."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("x")

    mail = compose("a@example.com", sender="b@example.com", attachments=given)

    assert [each.filename for each in mail.attachments] == ["a.txt"] * count


def test_unreadable_attachment(app, tmp_path):
    """A file that is not there, or is a folder, raises at the call."""
    with pytest.raises(FileNotFoundError):
        send(attachments=[tmp_path / "missing.pdf"])
    with pytest.raises(OSError, match="directory"):
        send(attachments=[tmp_path])


def test_closed_attachment(app, tmp_path):
    """A closed file raises at the call."""
    (tmp_path / "a.txt").write_text("x")
    with (tmp_path / "a.txt").open() as file:
        pass

    with pytest.raises(ValueError, match="closed file"):
        send(attachments=[file])


@pytest.mark.parametrize("attachment", [7, ("a.txt",), ("a.txt", 7), ("a.txt", None), b"data", None])
def test_no_attachment(app, attachment):
    """What is no file is a TypeError."""
    with pytest.raises(TypeError, match=r"attach|data"):
        send(attachments=[attachment])


def test_nameless_file(app):
    """A file without a name asks for one."""
    import io

    with pytest.raises(TypeError, match="needs a name"):
        send(attachments=[io.BytesIO(b"x")])


@pytest.mark.parametrize("name", ["From", "to", "Bcc", "SUBJECT", "Content-Type", "Date"])
def test_header_of_ours(app, name):
    """A header that has an argument of its own would be there twice: ValueError."""
    with pytest.raises(ValueError, match="twice"):
        send(headers={name: "x@example.com"})


def test_reply_to_twice(app):
    """A Reply-To is given in one way or the other."""
    with pytest.raises(ValueError, match="twice"):
        send(reply_to="a@example.com", headers={"reply-to": "b@example.com"})


@pytest.mark.parametrize(
    "headers", [{"X-Own": "x" * 900}, {"Message-ID": "x" * 900}, {"X-Own": "a" + " " * 900}, {"X" * 77: "x"}]
)
def test_header_that_fits_no_line(app, headers):
    """A header that no line of a mail can hold is a ValueError: a server would refuse the mail, or cut the line."""
    with pytest.raises(ValueError, match="header"):
        send(headers=headers)


@pytest.mark.parametrize("content_type", ["text/plain; x=" + "x" * 900, "text/plain; url=a/b"])
def test_content_type_that_is_not_written(app, content_type):
    """So is a content type that is too long for it, or that Flask-Mail could not write."""
    with pytest.raises(ValueError, match="content type"):
        send(attachments=[("a.txt", "x", content_type)])


@pytest.mark.parametrize("field", ["subject", "body", "html"])
def test_text_that_is_none(app, field):
    """Bytes are a TypeError."""
    with pytest.raises(TypeError, match=field):
        send(**{field: b"bytes"})


def test_template_that_is_missing(app):
    """A template that does not exist raises at the call, and so does one that it includes."""
    with pytest.raises(TemplateNotFound, match="nothere"):
        Mail.send("user@example.com", "Hello", template="nothere")
    with pytest.raises(TemplateNotFound, match="missing"):
        Mail.send("user@example.com", "Hello", template="broken")


def test_template_or_text(app):
    """A template and a text is one too many; so is a context without a template."""
    with pytest.raises(TypeError, match="template"):
        send(template="welcome")
    with pytest.raises(TypeError, match="template"):
        send(context={"name": "Ann"})


def test_message_and_more(app):
    """A Message says all of a mail."""

    with pytest.raises(TypeError, match="Message"):
        Mail.send(flask_mail.Message("Hello", ["user@example.com"]), subject="Other")


def test_words_that_are_no_options(app):
    """The options of a Message's SMTP commands are words, its subtypes and dispositions names."""
    for options in ({"mail_options": [7]}, {"rcpt_options": ["NOTIFY=NEVER X"]}, {"alts": {"a b": "x"}}):
        message = flask_mail.Message("Hello", ["user@example.com"], body="x", **options)

        with pytest.raises(ValueError, match="is no"):
            Mail.send_message(message)


@pytest.mark.parametrize(
    ("field", "value"), [("msgId", "<a>\r\nBcc: b@example.com"), ("date", "today"), ("date", 1e20)]
)
def test_id_and_date_of_a_message(app, field, value):
    """What a Message says of itself is checked at the call as well."""
    message = flask_mail.Message("Hello", ["user@example.com"], body="x")
    setattr(message, field, value)

    with pytest.raises(ValueError, match=r"Message-ID|date"):
        Mail.send_message(message)


def test_charset_of_an_attachment(app):
    """Text is attached as UTF-8; a content type that names its charset is left alone."""
    attachments = [("a.txt", "é"), ("b.txt", "é", "text/plain; charset=utf-8"), ("c.json", "{}")]

    mail = compose("a@example.com", sender="b@example.com", attachments=attachments)

    assert [each.content_type for each in mail.attachments] == [
        'text/plain; charset="utf-8"',
        "text/plain; charset=utf-8",
        "application/json",
    ]
    assert mail.attachments[0].data == "é".encode()


def test_one_mistake_in_a_batch(app):
    """One mistake of the caller in a batch, and none of it is sent."""
    with pytest.raises(ValueError, match="no recipient"):
        Mail.send_many([{"to": "user@example.com"}, {"to": []}])


def test_charset_of_a_message(app):
    """A Message's own charset must be one."""
    message = flask_mail.Message("Hello", ["user@example.com"], body="→", charset="no-such-charset")

    with pytest.raises(ValueError, match="body"):
        Mail.send_message(message)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), "10", True, None])
def test_timeout_setting(make_app, timeout):
    """ASOK_MAIL_TIMEOUT is a number of seconds, or the app does not start."""
    with pytest.raises((TypeError, ValueError), match="ASOK_MAIL_TIMEOUT"):
        make_app(ASOK_MAIL_TIMEOUT=timeout)


@pytest.fixture
def plain_app(make_app):
    return make_app()
