"""Which addresses are understood, how, and which are refused."""

from __future__ import annotations

import unicodedata
from email.utils import parseaddr

import flask_mail
import idna
import pytest

from flask_asok import Mail, MailRefused, check_address
from flask_asok.recipes.mail.addresses import one_address, some_addresses
from flask_asok.recipes.mail.domains import ascii_domain
from flask_asok.recipes.mail.recipe import compose

TIMEOUT = 10


@pytest.mark.parametrize("text", [" " * 20_000 + "x", "\t" * 20_000 + "<", f"x{' ' * 20_000}x", '"' + "\\a" * 20_000])
def test_long_address(text):
    """What somebody puts into the address field of a form is refused at once, however long it is."""
    with pytest.raises(ValueError, match=r"mail address|several") as caught:
        check_address(text)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("a@example.com", "a@example.com"),
        (" a@example.com ", "a@example.com"),
        ("Ann <a@example.com>", "a@example.com"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@bu\u0308cher.example", "a@xn--bcher-kva.example"),
        ("a@xn--fa-hia.example", "a@xn--fa-hia.example"),
    ],
)
def test_check_address(text, bare):
    """A page can ask beforehand, and gets the bare address."""
    assert check_address(text) == bare


def test_check_no_text():
    """What is no text is a TypeError."""
    with pytest.raises(TypeError, match="takes a str"):
        check_address(None)


@pytest.mark.parametrize(
    "domain",
    [
        "faß.example",
        "FA\u1e9e.example",
        "\u03b2\u03cc\u03bb\u03bf\u03c2.example",
        "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example",
        "\u0936\u094d\u200d\u0930.example",
        "b\u00adc.example",
        "\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.com",
        "example\u3002com",
        "example\uff0ecom",
        "\u2460.example",
        "\ufb01.example",
        "a\u00b2.example",
        "\u2603.example",
        "\U0001f600.example",
        "bücher\uff0eexample",
        "\u0301a.example",
        "ab--ü.example",
        "bü_cher.example",
    ],
)
@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender", "reply_to"])
def test_two_domains(make_app, domain, field, refused):
    """A domain that mail servers may take for two is sent to neither: the error asks for the xn-- form."""
    with make_app(MAIL_PORT=1).app_context():
        error = refused(**{field: f"user@{domain}"})

    assert "xn--" in str(error)


# Ideographs, Hangul syllables and what is for private use are alike to both standards: one of 32 stands for them.
CHARACTERS = (
    *range(0x80, 0x3400), *range(0x3400, 0xA000, 32), *range(0xA000, 0xAC00), *range(0xAC00, 0xD800, 32),
    *range(0xE000, 0xF900, 32), *range(0xF900, 0x10000),
)  # fmt: skip


def test_domains_as_by_idna_2008():
    """Whatever character a domain has, the name used has one meaning in IDNA 2003 and 2008."""
    disagreed, taken = [], 0
    for number in CHARACTERS:
        name = f"a{chr(number)}b"
        if encoded := ascii_domain(name):
            taken += 1
            try:
                other = idna.encode(unicodedata.normalize("NFC", name.lower())).decode()
            except idna.IDNAError as error:
                other = repr(error)
            if encoded != other:
                disagreed.append((name, encoded, other))

    assert disagreed == []
    assert taken > 10_000


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@example.com", "a@example.com"),
        (" a@example.com ", "a@example.com"),
        ("<a@example.com>", "a@example.com"),
        ('"Doe, John" <a@example.com>', '"Doe, John" <a@example.com>'),
        ("a@example.com <a@example.com>", ("a@example.com", "a@example.com")),
        ("Zoë <a@example.com>", "Zoë <a@example.com>"),
        ("root@localhost", "root@localhost"),
        ("a@[127.0.0.1]", "a@[127.0.0.1]"),
        ("o'neil+tag@example.com", "o'neil+tag@example.com"),
        (("Name", "a@example.com"), ("Name", "a@example.com")),
        ((" ", "a@example.com"), "a@example.com"),
        ([["Name", "a@example.com"]], ("Name", "a@example.com")),
    ],
)
def test_good_address(value, found):
    """What people write is understood, and reaches Flask-Mail's receivers in a form that they read right."""
    (address,) = some_addresses("to", value, [])

    assert address.spec.startswith(("a@", "root@", "o'neil"))

    def parsed(one):
        return one if isinstance(one, tuple) else parseaddr(one)

    assert parsed(address.value) == parsed(found)


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
@pytest.mark.parametrize("name", ["bob@partner.example", "ann@example.com", "@ann", "Ann"])
@pytest.mark.parametrize("listed", [False, True])
def test_name_that_is_an_address(app, handler, field, name, listed):
    """In to, cc and bcc a tuple is a name and an address, whatever the name: nobody else gets the mail."""
    pair = (name, "ann@example.com")

    Mail.send(**{"to": None, field: [pair] if listed else pair}).result(TIMEOUT)

    assert handler.take().rcpt_tos == ["ann@example.com"]


@pytest.mark.parametrize(
    "value",
    [
        ["a@example.com", "b@example.com"],
        ("a@example.com", "b@example.com"),
        "a@example.com <b@example.com>",
        "a@example.com, b@example.com",
        "a@example.com; b@example.com",
    ],
)
@pytest.mark.parametrize("field", ["sender", "reply_to"])
def test_two_where_one_is_wanted(app, value, field, refused):
    """Two addresses where one is wanted are not taken for a name and an address, and the error asks for no list."""
    error = refused(**{field: value})
    message = flask_mail.Message("Hello", ["user@example.com"], body="x", **{field: value})

    for each in (error, Mail.send_message(message).exception(TIMEOUT)):
        assert isinstance(each, MailRefused)
        assert "one is wanted" in str(each)
        assert "Pass a list" not in str(each)


def test_three_where_one_is_wanted(app):
    """Any other list is a mistake of the caller."""
    with pytest.raises(TypeError, match="reply_to takes"):
        Mail.send("user@example.com", reply_to=["a@example.com", "b@example.com", "c@example.com"])


def test_list_in_the_place_of_a_pair(app, refused):
    """A list in a list of recipients may be a name and an address, not two addresses."""
    assert "two addresses" in str(refused(to=[["a@example.com", "b@example.com"]]))


@pytest.mark.parametrize("value", [("Ann", "ann@example.com"), ["Ann", "ann@example.com"]])
def test_pair_where_one_is_wanted(value):
    """A name and an address may come from JSON or TOML, which know no tuples."""
    address = one_address("sender", value)

    assert (address.name, address.spec) == ("Ann", "ann@example.com")


def test_comma_in_the_sender():
    """Flask-Mail turns the pair ("Doe, John", ...) of a Message into text; it is understood."""
    mail = compose("a@example.com", sender="Doe, John <d@example.com>")

    assert mail.sender.value == ("Doe, John", "d@example.com")


def test_order(app, handler):
    """The recipients come in the order in which they were given, in every process."""
    people = [f"{name}@example.com" for name in "gcafbed"]

    receipt = Mail.send(people, "Hello", "World", cc=["z@example.com", "y@example.com"]).result(TIMEOUT)

    mail = handler.take()
    assert [address.addr_spec for address in mail.message["To"].addresses] == people
    assert [address.addr_spec for address in mail.message["Cc"].addresses] == ["z@example.com", "y@example.com"]
    assert mail.rcpt_tos == receipt.accepted == [*people, "z@example.com", "y@example.com"]
