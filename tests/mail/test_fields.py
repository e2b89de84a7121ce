"""The headers of a mail and the names of its files: whatever they hold, it is read as it was written."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.utils import unquote

import flask_mail
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_asok import Mail

TIMEOUT = 10


def message_of(content):
    return email.message_from_bytes(content, policy=email.policy.default)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Prüf.pdf", b"Content-Disposition: attachment; filename*=utf-8''Pr%C3%BCf.pdf\r\n"),
        ("a b.pdf", b'Content-Disposition: attachment; filename="a b.pdf"\r\n'),
        ("😀.pdf", b"Content-Disposition: attachment; filename*=utf-8''%F0%9F%98%80.pdf\r\n"),
        ('a"b.pdf', b"Content-Disposition: attachment; filename*=utf-8''a%22b.pdf\r\n"),
        ("a\\b.pdf", b"Content-Disposition: attachment; filename*=utf-8''a%5Cb.pdf\r\n"),
        ("=?utf-8?q?a?=.pdf", b"filename*=utf-8''%3D%3Futf-8%3Fq%3Fa%3F%3D.pdf\r\n"),
    ],
)
def test_name_of_a_file(written, name, line):
    """The name of a file is written as RFC 2231 has it where it is not plain."""
    assert line in written(attachments=[(name, b"x", "application/x-own")])


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=names)
@example("\\")
@example('a\\"; filename=evil.exe; x="')
@example("a'b''c.pdf")
@example("100%25.pdf")
@example(" a.pdf ")
@example('""')
@example("<a>")
@example("é" * 300)
@example("😀" * 300)
@example("x" * 2_000)
@example("日" * 2_000)
@example("a;b,c.pdf")
def test_names_that_clients_read(written, name):
    """Whatever name a file has: the older and the newer parser read just that."""
    content = written(attachments=[(name, b"x", "application/x-own")])

    for policy in (email.policy.compat32, email.policy.default):
        message = email.message_from_bytes(content, policy=policy)
        part = list(message.walk())[-1]
        found = part.get_filename()
        assert found is not None
        # The older one takes off quotation marks or angle brackets around a name.
        assert found.strip() in (name.strip(), unquote(name).strip())
        assert [key for key, _ in part.get_params(header="Content-Disposition")] == ["attachment", "filename"]


@pytest.mark.parametrize("name", ["a.txt", "Prüf ü\u3000 .txt", "日"])
def test_ascii_names(make_app, serve, handler, name):
    """MAIL_ASCII_ATTACHMENTS leaves of a name what is ASCII, as Flask-Mail does."""
    with make_app(serve(), MAIL_ASCII_ATTACHMENTS=True).app_context():
        Mail.send("user@example.com", attachments=[(name, b"x")]).result(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_filename() == {"a.txt": "a.txt", "日": None}.get(name, "Pruf u .txt")


@pytest.mark.parametrize(
    "subject",
    ["=?utf-8?q?x?=", " a ", "a\tb", "x" * 100, ("word " * 50).strip(), "a" + " " * 898 + "b" * 899, "é " * 300 + "x"],
)
def test_subject(written, subject):
    """Whatever the subject is, it is read as it was written."""
    message = email.message_from_bytes(written(subject=subject), policy=email.policy.default)

    assert str(message["Subject"]) == subject


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029", "\xa0", "\u200b", "\ufeff", "\u3000", "\u202e"])
@pytest.mark.parametrize("text", ["a{}b", "{}x", "x{}", "a{} b", "\u00e9{}\u00fc"])
def test_characters_that_look_like_line_ends(written, text, char):
    """What ends a line elsewhere ends none in a header, in a name, or in a further header."""
    text = text.format(char)

    raw = email.message_from_bytes(written(subject=text, to=[(f"A{text}B", "a@example.com")], headers={"X-Own": text}))

    for name, expected in (("Subject", text), ("X-Own", text), ("To", f"A{text}B")):
        value = raw[name].replace("\r\n", "").removesuffix("<a@example.com>")
        assert str(make_header(decode_header(value))).removesuffix(" ") == expected
        assert not raw[name].startswith(("\r", " "))


def test_headers_for_programs(written):
    """A header that programs read is not encoded, but broken between two words."""
    long = "<https://example.com/off?" + "x" * 200 + ">, " + "<mailto:off@example.com>"

    content = written(headers={"List-Unsubscribe": long})

    assert b"List-Unsubscribe: <https://example.com/off?" in content
    assert b"\r\n <mailto:off@example.com>\r\n" in content
    assert message_of(content)["List-Unsubscribe"] == long


@pytest.mark.parametrize("headers", [{"References": "<a@x>", "references": "<b@x>"}, {"X-A": "1", "x-a": "2"}])
def test_header_that_is_there_twice(written, headers):
    """A header that is given twice, in two cases, is a mistake of the caller."""
    with pytest.raises(ValueError, match="twice"):
        written(headers=headers)


@pytest.mark.parametrize("name", ["Content-Disposition", "content-type"])
def test_header_of_an_attachment(written, name):
    """So is one that the attachment has of its own."""
    with pytest.raises(ValueError, match="twice"):
        written(attachments=[flask_mail.Attachment("a", "text/plain", "x", headers={name: "x"})])


def test_header_that_ends_with_space(written):
    """A header of a word and of more space than a line holds is a ValueError too."""
    with pytest.raises(ValueError, match="header"):
        written(headers={"X-Own": "a" + " " * 600 + "b" * 600})


@pytest.mark.parametrize(
    "name",
    [
        "Ann", "Ann Lee", "Doe, John", 'The "Boss"', "back\\slash", "a@b", "J. Doe", "=?utf-8?q?x?=", "Zoë",
        "x" * 100, "two  spaces", "(comment)", "a;b", "<x>", "Zoë, John", 'Zoë "Boss"',
    ],
)  # fmt: skip
def test_name(written, name):
    """Whatever the name is, it is read as it was written, and nobody else is named."""
    content = written(to=[(name, "a@example.com"), ("Bob", "b@example.com")], reply_to=(name + " x", "c@example.com"))

    message = message_of(content)
    assert [(each.display_name, each.addr_spec) for each in message["To"].addresses] == [
        (name, "a@example.com"),
        ("Bob", "b@example.com"),
    ]
    assert [(each.display_name, each.addr_spec) for each in message["Reply-To"].addresses] == [
        (name + " x", "c@example.com")
    ]


def test_long_name(written):
    """A name that needs several encoded words is read as one."""
    raw = email.message_from_bytes(written(to=[("日" * 200, "a@example.com")]))["To"]

    assert str(make_header(decode_header(raw.replace("\r\n", "").rpartition("<")[0]))).strip() == "日" * 200
