"""Long texts that a visitor sends: they are read and written in time that grows no faster than they do."""

from __future__ import annotations

import time
import unicodedata

import flask_mail
import pytest

from flask_asok import Mail, MailRefused, check_address
from flask_asok.recipes.mail.mime import as_bytes
from flask_asok.recipes.mail.recipe import compose

TIMEOUT = 10

SIZE = 80_000
LIMIT = 2.0
"""Seconds of CPU. Each needs a tenth of one at most; what grows with the square of its length needs many."""

TEXTS = {
    "space at the end": "hi" + " " * SIZE,
    "tabs at the end": "hi" + "\t" * SIZE,
    "space in the middle": "a" + " " * SIZE + "b",
    "commas": "," * SIZE,
    "quotes": '"' * SIZE,
    "backslashes": "\\" * SIZE,
    "one word": "x" * SIZE,
    "umlauts": "ä" * SIZE,
    "accents": "a" + "\u0301\u0316" * (SIZE // 2),
    "encoded words": "=?utf-8?q?x?=" * (SIZE // 13),
    "parentheses": "(" * SIZE,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "where",
    [
        lambda text: {"subject": text},
        lambda text: {"to": text},
        lambda text: {"to": [(text, "a@example.com")]},
        lambda text: {"to": f"a@{text}.example"},
        lambda text: {"sender": f"{text} <a@example.com>"},
        lambda text: {"reply_to": f'"{text}" <a@example.com>'},
        lambda text: {"body": text, "html": text},
        lambda text: {"attachments": [(text, b"x")]},
        lambda text: {"attachments": [flask_mail.Attachment(text, "image/png", b"x")]},
    ],
    ids=["subject", "to", "name", "domain", "sender", "reply_to", "body", "attachment", "flask-mail-attachment"],
)
def test_long_text(where, text):
    """Whatever a long text is made of, and wherever it is, it does not hold up the process."""
    arguments = {"to": "user@example.com", "sender": "shop@example.com", "body": "World", **where(text)}
    started = time.thread_time()

    mail = compose(**arguments)
    if hasattr(mail, "subject"):
        as_bytes(mail, ascii_names=True)

    assert time.thread_time() - started < LIMIT


def test_long_domain():
    """A domain longer than any that there is is refused before its letters are looked at; the error says no more."""
    started = time.thread_time()

    with pytest.raises(ValueError, match="is no mail address") as caught:
        check_address("a@" + "ä" * 20 * SIZE + ".example")

    assert time.thread_time() - started < LIMIT
    assert len(str(caught.value)) < 1_000


def test_domain_with_accents_of_their_own():
    """A domain within the limits is taken, of however many characters its letters are made."""
    label = "u\u0308\u0304" * 16
    text = "a@" + ".".join([label] * 6) + ".example"

    assert check_address(text) == check_address(unicodedata.normalize("NFC", text))
    assert len(text) > 300


class Signed(flask_mail.Message):
    """A Message that Flask-Mail writes, and that the application would then sign."""


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (lambda text: {"reply_to": (text, "a@example.com")}, "a name"),
        (lambda text: {"recipients": [(text, "a@example.com")]}, "a name"),
        (lambda text: {"subject": text}, "the subject"),
        (lambda text: {"extra_headers": {"X-Own": text}}, "the header X-Own"),
        (lambda text: {"attachments": [flask_mail.Attachment(text, None, b"x")]}, "the name of an attachment"),
        (
            lambda text: {"attachments": [flask_mail.Attachment("a", None, b"x", headers={"Content-ID": text})]},
            "the header Content-ID",
        ),
    ],
    ids=["reply_to", "to", "subject", "header", "attachment", "content-id"],
)
@pytest.mark.parametrize("text", ["ä " * SIZE + "ä", "(" * 600 + " ä" * SIZE], ids=["words", "parentheses"])
def test_long_text_of_a_class_of_your_own(app, handler, where, what, text):
    """A text that Flask-Mail would write for seconds, in the view, fails the task instead; the error names it."""
    started = time.thread_time()

    message = Signed(**{"subject": "Hello", "recipients": ["user@example.com"], "body": "World", **where(text)})
    error = Mail.send_message(message).exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert f"{what}, " in str(error)
    assert len(str(error)) < 1_000
    assert time.thread_time() - started < LIMIT
    assert handler.connections == 0


def test_parentheses_of_a_class_of_your_own(app, handler):
    """So does a name of parentheses, which Flask-Mail reads one within the other until Python gives up."""
    message = Signed("Hello", ["user@example.com"], body="World", reply_to="(" * 600 + " <a@example.com>")

    assert isinstance(Mail.send_message(message).exception(TIMEOUT), MailRefused)


def test_usual_text_of_a_class_of_your_own(app, handler):
    """A text as long as any that people write is sent."""
    subject, name = ("Grüße " * 1_000).strip(), ("Zoë " * 75).strip()
    message = Signed(subject, ["user@example.com"], body="World", reply_to=(name, "a@example.com"))

    Mail.send_message(message).result(TIMEOUT)

    assert handler.take().message["Reply-To"].addresses[0].addr_spec == "a@example.com"
