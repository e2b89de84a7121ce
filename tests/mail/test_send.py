"""What goes over the wire, and what the caller gets."""

from __future__ import annotations

import email
import threading
from email.header import decode_header, make_header

import flask_mail
import pytest
from flask import g, render_template_string

from flask_asok import Mail, Task, background, send_mail

TIMEOUT = 10


def test_send(app, handler):
    """The mail of the documentation arrives, sent in the background."""
    task = Mail.send(to="user@example.com", subject="Hello", body="World")

    assert isinstance(task, Task)
    assert isinstance(task, threading.Thread)
    assert task.result(TIMEOUT).accepted == ["user@example.com"]
    mail = handler.take()
    assert (mail.mail_from, mail.rcpt_tos) == ("shop@example.com", ["user@example.com"])
    assert mail.message["Subject"] == "Hello"
    assert mail.message.get_content().strip() == "World"


def test_queue(app, handler):
    """Mail has a queue of its own, so that nothing else holds it up."""
    task = Mail.send("user@example.com", "Hello", "World")

    assert task.queue == "mail"
    task.join(TIMEOUT)


def test_every_argument(app, handler, tmp_path):
    """Text, HTML, copies, sender, reply address, headers and attachments all arrive as given."""
    (tmp_path / "invoice.pdf").write_bytes(b"%PDF-")

    receipt = Mail.send(
        to=["a@example.com", "Bée <b@example.com>"],
        subject="Grüße",
        body="Schöne Grüße",
        html="<p>Grüße</p>",
        cc=("Doe, John", "c@example.com"),
        bcc="d@example.com",
        sender=("Shop, Inc.", "other@example.com"),
        reply_to="help@example.com",
        attachments=[tmp_path / "invoice.pdf", ("note.txt", "naïve → text"), ("a.bin", b"\x00\xff", "image/x-own")],
        headers={"X-Campaign": "Frühling", "List-Unsubscribe": "<https://example.com/off>"},
    ).result(TIMEOUT)

    assert receipt.accepted == ["a@example.com", "b@example.com", "c@example.com", "d@example.com"]
    mail = handler.take()
    message = mail.message
    assert mail.mail_from == "other@example.com"
    assert mail.rcpt_tos == receipt.accepted
    assert {str(address) for address in message["To"].addresses} == {"a@example.com", "Bée <b@example.com>"}
    assert message["Cc"].addresses[0].display_name == "Doe, John"
    assert message["From"].addresses[0].display_name == "Shop, Inc."
    assert message["Reply-To"] == "help@example.com"
    assert message["Subject"] == "Grüße"
    assert message["X-Campaign"] == "Frühling"
    assert message["Message-ID"] == receipt.message_id
    assert "Bcc" not in message
    assert message.get_body(("plain",)).get_content().strip() == "Schöne Grüße"
    assert message.get_body(("html",)).get_content().strip() == "<p>Grüße</p>"
    files = {part.get_filename(): part for part in message.iter_attachments()}
    assert files["invoice.pdf"].get_content() == b"%PDF-"
    assert files["invoice.pdf"].get_content_type() == "application/pdf"
    assert files["note.txt"].get_content() == "naïve → text"
    assert (files["a.bin"].get_content(), files["a.bin"].get_content_type()) == (b"\x00\xff", "image/x-own")


def test_bcc_is_hidden(app, handler):
    """Nobody reads in a mail who got a blind copy of it."""
    Mail.send("user@example.com", "Hello", "World", bcc="boss@example.com").join(TIMEOUT)

    assert b"boss" not in handler.take().content


def test_nothing_but_ascii_on_the_wire(app, handler):
    """No server needs 8BITMIME, or room for lines longer than the 998 octets of RFC 5322."""
    Mail.send("user@example.com", "Hello", "é" * 3000, html="<p>" + "x" * 3000).join(TIMEOUT)

    mail = handler.take()
    assert mail.content.isascii()
    assert max(map(len, mail.content.splitlines())) <= 998
    assert mail.message.get_body(("plain",)).get_content().strip() == "é" * 3000
    assert mail.message.get_body(("html",)).get_content().strip() == "<p>" + "x" * 3000


@pytest.mark.parametrize("word", ["x", "日", " ", "😀"])
def test_long_words(app, handler, word):
    """A subject without a space, or a file with the longest name there is, makes no line that a server would cut."""
    Mail.send("user@example.com", f"a{word * 3000}b", "World", attachments=[(word * 255 + ".txt", b"x")]).join(TIMEOUT)

    mail = handler.take()
    assert max(map(len, mail.content.splitlines())) <= 998
    assert str(make_header(decode_header(email.message_from_bytes(mail.content)["Subject"]))) == f"a{word * 3000}b"
    (attached,) = mail.message.iter_attachments()
    assert attached.get_filename().strip() == (word * 255 + ".txt").strip()


def test_lines_with_dots(app, handler):
    """A line with a single dot ends no mail."""
    Mail.send("user@example.com", "Hello", "one\n.\n..two\nFrom me\n").join(TIMEOUT)

    assert handler.take().message.get_content().splitlines()[:4] == ["one", ".", "..two", "From me"]


def test_many_recipients(app, handler):
    """Long headers are folded, so that the mail of a hundred recipients is accepted."""
    people = [(f"Zoë {n}", f"user{n}@example.com") for n in range(100)]

    Mail.send(people, "Hello", "World").join(TIMEOUT)

    mail = handler.take()
    assert len(mail.rcpt_tos) == 100
    assert max(map(len, mail.content.splitlines())) <= 998
    assert {(each.display_name, each.addr_spec) for each in mail.message["To"].addresses} == set(people)


def test_one_mail_per_address(app, handler):
    """Who is named twice gets the mail once."""
    Mail.send(["user@example.com", "User <user@example.com>"], "Hello", "World", cc="user@example.com").join(TIMEOUT)

    assert handler.take().rcpt_tos == ["user@example.com"]


def test_international_domain(app, handler):
    """A domain with umlauts is sent to under its ASCII name."""
    Mail.send("user@bücher.example", "Hello", "World").join(TIMEOUT)

    assert handler.take().rcpt_tos == ["user@xn--bcher-kva.example"]


def test_message_id_names_the_sender(app, handler):
    """The Message-ID tells the sender's domain and not the name of the machine."""
    receipt = Mail.send("user@example.com", "Hello", "World").result(TIMEOUT)

    assert receipt.message_id.endswith("@example.com>")


def test_own_message_id(app, handler):
    """A Message-ID of the caller's is used, once."""
    receipt = Mail.send("user@example.com", "Hello", "World", headers={"message-id": "<1@x>"}).result(TIMEOUT)

    assert receipt.message_id == "<1@x>"
    assert handler.take().message.get_all("Message-ID") == ["<1@x>"]


def test_template(app, handler):
    """`template="welcome"` sends welcome.txt and welcome.html, the HTML escaped."""
    Mail.send("user@example.com", "Hi", template="welcome", context={"name": "<Ann>"}).join(TIMEOUT)

    message = handler.take().message
    assert message.get_body(("plain",)).get_content().strip() == "Hello <Ann>, welcome."
    assert message.get_body(("html",)).get_content().strip() == "<p>Hello &lt;Ann&gt;</p>"


def test_template_of_text_only(app, handler):
    """One of the two templates is enough."""
    Mail.send("user@example.com", "Hi", template="plain", context={"name": "Ann"}).join(TIMEOUT)

    message = handler.take().message
    assert message.get_content().strip() == "Hello Ann, only text."
    assert not message.is_multipart()


def test_lazy_text_is_of_the_caller(app, handler):
    """A lazy translation is read in the caller's thread and language."""

    class Lazy:
        def __str__(self) -> str:
            return render_template_string("Bonjour de {{ thread }}", thread=threading.current_thread().name)

    Mail.send("user@example.com", Lazy(), Lazy()).join(TIMEOUT)

    assert handler.take().message["Subject"] == f"Bonjour de {threading.current_thread().name}"


def test_open_file(app, handler, tmp_path):
    """A file that is closed right after the call is attached all the same."""
    (tmp_path / "a.txt").write_text("content")

    with (tmp_path / "a.txt").open("rb") as file:
        task = Mail.send("user@example.com", "Hi", "See file", attachments=[file])
    task.join(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("a.txt", "content")


def test_options(app, handler):
    """Options go through the door of all background work."""
    task = background.using(name="welcome")(send_mail, to="user@example.com", subject="Hello", body="World")

    assert task.result(TIMEOUT).accepted == ["user@example.com"]
    assert task.name == "welcome"


def test_directly(app, handler):
    """Called as a plain function it sends at once, in this thread."""
    receipt = send_mail("user@example.com", "Hello", "World")

    assert receipt.accepted == ["user@example.com"]
    assert handler.received.qsize() == 1


def test_send_message(app, handler):
    """A Flask-Mail Message is sent as it was at the call, under its own Message-ID."""
    flask_mail.Mail(app)
    message = flask_mail.Message("Hello", ["user@example.com"], body="World", sender=("Doe, John", "d@example.com"))
    message.attach("a.txt", "text/plain", "content")
    message.date = 1_700_000_000.0

    task = Mail.send_message(message)
    message.recipients.append("other@example.com")
    receipt = task.result(TIMEOUT)

    mail = handler.take()
    assert mail.rcpt_tos == ["user@example.com"]
    assert mail.message["From"].addresses[0].display_name == "Doe, John"
    assert mail.message["Message-ID"] == receipt.message_id == message.msgId
    assert mail.message["Date"].datetime.timestamp() == message.date


def test_message_that_signs(app, handler):
    """A Message of a class of yours writes its own bytes, in the caller's thread."""
    flask_mail.Mail(app)

    class Signed(flask_mail.Message):
        def as_bytes(self) -> bytes:
            return b"X-Signed-For: %s\r\n" % g.key + super().as_bytes()

    g.key = b"ann"
    Mail.send_message(Signed("Hello", ["user@example.com"], body="World")).join(TIMEOUT)

    assert handler.take().message["X-Signed-For"] == "ann"


def test_two_apps(make_app, serve, handler):
    """Two apps in one process send by their own settings."""
    one = make_app(serve())
    two = make_app(serve())
    two.config["MAIL_DEFAULT_SENDER"] = "two@example.com"

    for app in (one, two):
        with app.app_context():
            Mail.send("user@example.com", "Hello", "World").join(TIMEOUT)

    assert [handler.take().mail_from for _ in range(2)] == ["shop@example.com", "two@example.com"]


def test_inside_a_request(app, handler):
    """A view sends mail, and answers at once."""

    @app.post("/sign-up")
    def sign_up() -> str:
        g.task = Mail.send("user@example.com", "Hello", template="welcome", context={"name": "Ann"})
        app.extensions["last_task"] = g.task
        return "Thanks"

    assert app.test_client().post("/sign-up").text == "Thanks"

    app.extensions["last_task"].join(TIMEOUT)
    assert handler.take().rcpt_tos == ["user@example.com"]
