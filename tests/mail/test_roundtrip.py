"""What passes the checks arrives as it was given."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flask_asok.recipes.mail.mime import as_bytes
from flask_asok.recipes.mail.recipe import compose

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120)
names = text.map(lambda name: " ".join(name.split()))


@settings(max_examples=100, phases=[Phase.generate])
@given(
    name=names,
    subject=names,
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    file=text,
    data=st.binary(max_size=300),
    value=names,
)
def test_what_passes_arrives(name, subject, body, file, data, value):
    """Whatever passes the checks becomes a mail that says just that, with no header that was not asked for."""
    mail = compose(
        [(name, "user@example.com")],
        subject,
        body,
        sender="shop@example.com",
        attachments=[(file, data, "application/x-own")],
        headers={"X-Own": value},
    )
    content = as_bytes(mail)

    message = email.message_from_bytes(content, policy=email.policy.default)
    assert content.isascii()
    assert sorted(message.keys()) == sorted(
        ["Content-Type", "MIME-Version", "From", "To", "Date", "Message-ID", "X-Own", *(["Subject"] if subject else [])]
    )
    assert decoded(message, "To") == (name, "user@example.com")
    assert decoded(message, "Subject") == subject
    assert decoded(message, "X-Own") == value
    plain, attached = message.iter_parts()
    assert lines(plain.get_payload(decode=True).decode()) == lines(body)
    assert attached.get_payload(decode=True) == data


def decoded(message: EmailMessage, name: str) -> object:
    """Decode by the rule that what separates two encoded words is no space: newer parsers forgot it for names."""
    raw = dict(message.raw_items()).get(name, "")
    display, spec = parseaddr(raw.replace("\r\n", "")) if name == "To" else (raw, "")
    text = str(make_header(decode_header(display.replace("\r\n", "")))).strip()
    return (text, spec) if spec else text


def lines(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
