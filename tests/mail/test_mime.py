"""The shape of a mail: its parts, their types and encodings, and the length of its lines."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message

import flask_mail
import pytest

from flask_asok import Mail
from flask_asok.recipes.mail.mime import as_bytes
from flask_asok.recipes.mail.recipe import compose

TIMEOUT = 10

FORWARDED = b"From: a@b.example\r\nSubject: inner\r\n\r\nx\r\n"


def parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)  # type: ignore[return-value]


def shape(part: Message) -> object:
    """Return the types of a mail's parts: a str, or a list whose first item is that of the whole."""
    kind = part.get_content_type().removeprefix("multipart/")
    return [kind, *map(shape, part.get_payload())] if part.get_content_maintype() == "multipart" else kind


def text_of(content: bytes) -> str:
    return parsed(content).get_content().replace("\r\n", "\n").removesuffix("\n")


@pytest.fixture
def picture():
    """A picture that the HTML shows."""
    return flask_mail.Attachment("logo.png", "image/png", b"PNG", "inline", {"Content-ID": "<logo>"})


FILE = ("a.bin", b"x", "application/x-own")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, "text/plain"),
        ({"body": "x"}, "text/plain"),
        ({"html": "x"}, "text/html"),
        ({"html": "x", "body": ""}, "text/html"),
        ({"body": "x", "html": "x"}, ["alternative", "text/plain", "text/html"]),
        ({"body": "x", "attachments": [FILE]}, ["mixed", "text/plain", "application/x-own"]),
        ({"html": "x", "attachments": [FILE]}, ["mixed", "text/html", "application/x-own"]),
        ({"attachments": [FILE]}, ["mixed", "application/x-own"]),
        (
            {"body": "x", "html": "x", "attachments": [FILE, FILE]},
            ["mixed", ["alternative", "text/plain", "text/html"], "application/x-own", "application/x-own"],
        ),
    ],
)
def test_shape(written, parts, expected):
    """Text and HTML are two forms of one mail; files stand beside them; there is no empty form."""
    assert shape(parsed(written(**parts))) == expected


def test_picture(written, picture):
    """A picture with a Content-ID belongs to the HTML, and is no loose file."""
    file = ("a.bin", b"x", "application/x-own")

    message = parsed(written(body="x", html='<img src="cid:logo">', attachments=[picture, file]))

    related = ["related", "text/html", "image/png"]
    assert shape(message) == ["mixed", ["alternative", "text/plain", related], "application/x-own"]
    (found,) = (part for part in message.walk() if part.get_content_type() == "image/png")
    assert (found["Content-ID"], found.get_content_disposition(), found.get_filename()) == (
        "<logo>", "inline", "logo.png",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("html", "disposition", "expected"),
    [
        ("x", "inline", ["related", "text/html", "image/png"]),
        ('<img src="cid:logo">', "attachment", ["related", "text/html", "image/png"]),
        ("x", "attachment", ["mixed", "text/html", "image/png"]),
        (None, "inline", ["mixed", "text/plain", "image/png"]),
    ],
)
def test_loose_picture(written, html, disposition, expected):
    """A file with a Content-ID that no HTML shows is one like any other."""
    file = flask_mail.Attachment("logo.png", "image/png", b"PNG", disposition, {"content-id": "logo"})

    message = parsed(written(body=None if html else "x", html=html, attachments=[file]))

    assert shape(message) == expected
    assert [part["Content-ID"] for part in message.walk() if part["Content-ID"]] == ["<logo>"]


def test_invitation(app, handler):
    """An invitation has the method that its text names, and comes last, where clients look for it."""
    text = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:Grüße\r\nEND:VCALENDAR\r\n"
    message = flask_mail.Message("Hello", ["user@example.com"], body="x", html="x", alts={"calendar": text})

    Mail.send_message(message).result(TIMEOUT)

    received = handler.take().message
    assert shape(received) == ["alternative", "text/plain", "text/html", "text/calendar"]
    calendar = list(received.walk())[-1]
    assert calendar["Content-Type"].params == {"method": "REQUEST", "charset": "utf-8"}
    assert calendar.get_content() == text


def test_calendar_without_a_method(app):
    """A calendar that names no method has none."""
    message = flask_mail.Message("Hello", ["user@example.com"], alts={"calendar": "BEGIN:VCALENDAR"})

    content = as_bytes(compose(message))

    assert parsed(content)["Content-Type"].params == {"charset": "utf-8"}


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", " "])
@pytest.mark.parametrize("field", ["body", "html"])
def test_lines(written, field, end):
    """A line ends where SMTP ends it: none is longer than a server takes, and the text is the same."""
    text = ("x" * 600 + end) * 3

    content = written(**{field: text})

    assert text_of(content) == text


@pytest.mark.parametrize("end", ["\x0c", "\n"])
def test_lines_of_a_calendar(app, end):
    """So do those of every other form."""
    text = ("x" * 600 + end) * 3
    message = flask_mail.Message("Hello", ["user@example.com"], alts={"calendar": text})

    content = as_bytes(compose(message))

    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert text_of(content) == text.removesuffix("\n")


@pytest.mark.parametrize("text", ["\0", "a\0b", "é\0", "=", "a \nb\t\n", ".\n..\n", "From me\n", "漢字" * 500, "é"])
def test_text(written, text):
    """Any text arrives as it was."""
    assert text_of(written(body=text)) == text.removesuffix("\n")


def test_readable_source(written):
    """Text of a language with few accents can be read in the source, one of another alphabet is not three times it."""
    assert b"Sch=C3=B6ne" in written(body="Schöne Grüße aus dem Urlaub, der Koffer kommt nach.")
    assert len(written(body="漢字" * 5_000)) < 45_000


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "iso-8859-15", "us-ascii", "utf-16"])
def test_charset(app, charset):
    """A Message's own charset is used, unless its line ends are no line ends in a mail."""
    message = flask_mail.Message("Hello", ["user@example.com"], body="one\ntwo", charset=charset)

    content = as_bytes(compose(message))

    assert text_of(content) == "one\ntwo"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("export.csv.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.tar.bz2", "application/x-bzip2"),
        ("a.csv.xz", "application/octet-stream"),
        ("a.csv.Z", "application/octet-stream"),
        ("a.csv.br", "application/octet-stream"),
        ("a.csv", "text/csv"),
        ("data:text/html,a.pdf", "application/pdf"),
        ("no_suffix", "application/octet-stream"),
    ],
)
def test_guessed_type(written, tmp_path, name, kind):
    """A compressed file is not taken for what is in it, in whatever way it is attached."""
    attachments = [(name, b"x"), flask_mail.Attachment(name, None, b"x")]
    if "/" not in name:
        (tmp_path / name).write_bytes(b"x")
        attachments.append(tmp_path / name)

    message = parsed(written(attachments=attachments))

    found = [part.get_content_type() for part in message.iter_attachments()]
    assert found[0] == kind
    if ":" not in name:
        assert found == [kind] * 3


def test_type_that_is_given(written):
    """A type that is given is used."""
    message = parsed(written(attachments=[("export.csv.gz", b"x", "application/x-own")]))

    assert [part.get_content_type() for part in message.iter_attachments()] == ["application/x-own"]


@pytest.mark.parametrize(
    "file",
    [
        ("fwd.eml", FORWARDED),
        ("fwd.eml", FORWARDED.replace(b"\r\n", b"\n")),
        ("fwd.eml", FORWARDED.decode()),
        ("fwd", FORWARDED, "message/rfc822"),
        ("fwd", FORWARDED, "Message/RFC822"),
        flask_mail.Attachment("fwd.eml", "message/rfc822", FORWARDED),
    ],
)
def test_forwarded_mail(written, file):
    """A mail that is attached is one that can be opened."""
    content = written(body="see", attachments=[file])

    (attached,) = parsed(content).iter_attachments()
    assert attached.get_content_type() == "message/rfc822"
    assert attached["Content-Transfer-Encoding"] == "7bit"
    assert attached.get_content()["Subject"] == "inner"
    assert FORWARDED in content


@pytest.mark.parametrize(
    "file",
    [
        ("fwd.eml", b"Subject: \xe9\r\n\r\nx"),
        ("fwd.eml", "Subject: é\r\n\r\nx"),
        ("fwd.eml", b"Subject: long\r\n\r\n" + b"x" * 2_000),
        ("fwd.eml", b"Subject: nul\r\n\r\n\0"),
        ("a", FORWARDED, "message/delivery-status"),
        ("a", FORWARDED, "message/partial; id=x; number=1"),
        ("a", FORWARDED, "message/external-body"),
        ("a", FORWARDED, "multipart/mixed"),
        ("a", b"--x\r\n\r\nx\r\n--x--", 'multipart/mixed; boundary="x"'),
    ],
)
def test_composite_type(written, file):
    """What may not be encoded, and cannot be sent as it is, is sent as a file."""
    (attached,) = parsed(written(body="see", attachments=[file])).iter_attachments()

    assert attached.get_content_type() == "application/octet-stream"
    data = file[1].encode() if isinstance(file[1], str) else file[1]
    assert attached.get_payload(decode=True) == data


def test_one_version(written):
    """The mail has one MIME-Version, its parts have none."""
    assert written(body="x", html="x", attachments=[("a.txt", "x")]).count(b"MIME-Version: 1.0") == 1
