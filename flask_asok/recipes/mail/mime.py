"""A letter as the bytes that go over the wire."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Sequence
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from email.utils import formatdate

from . import fields
from .attachments import AttachedFile
from .checks import LONGEST_LINE
from .letter import Letter

_POLICY = SMTP.clone(cte_type="7bit", max_line_length=76)
"""No server needs 8BITMIME; lines of quoted-printable end at 76 letters (RFC 2045, 6.7)."""

_LINE_END = re.compile(rb"\r\n|\r|\n")

_NOT_ASCII = bytes(range(128, 256))

_METHOD = re.compile(r"^METHOD:([A-Za-z-]{1,30})\s*$", re.IGNORECASE | re.MULTILINE)


def as_bytes(letter: Letter, *, ascii_names: bool = False) -> bytes:
    """Return the finished mail, without Bcc; `ascii_names` removes from file names what is not ASCII."""
    if letter.content is not None:
        return letter.content
    message = EmailMessage(_POLICY)
    for field in _headers(letter):
        message[field.name] = field
    message["MIME-Version"] = "1.0"
    content = _content(letter, ascii_names)
    for name, value in content.items():
        message[name] = value
    message.set_payload(content.get_payload())
    return message.as_bytes()


def _headers(letter: Letter) -> list[fields.Field]:
    found = [
        fields.unstructured("Subject", letter.subject) if letter.subject else None,
        fields.addresses("From", [letter.sender]),
        # RFC 5322, 3.6.3: these are not empty.
        fields.addresses("To", letter.to) if letter.to else None,
        fields.addresses("Cc", letter.cc) if letter.cc else None,
        fields.addresses("Reply-To", [letter.reply_to]) if letter.reply_to else None,
        fields.verbatim("Date", formatdate(letter.date, localtime=True)),
        fields.verbatim("Message-ID", letter.message_id),
        *(fields.verbatim(name, text) for name, text in letter.headers.items()),
    ]
    return [field for field in found if field is not None]


def _content(letter: Letter, ascii_names: bool) -> MIMEPart:
    html = letter.alternatives.get("html")
    inline: list[MIMEPart] = []
    files: list[MIMEPart] = []
    for file in letter.attachments:
        (inline if html is not None and _is_shown_in(html, file) else files).append(_file(file, ascii_names))
    forms = [_text(letter.body or "", "plain", letter.charset)] if _has_text(letter) else []
    # Clients show the last form that they know, and those that know invitations show the buttons.
    for subtype, text in sorted(letter.alternatives.items(), key=lambda item: item[0] == "calendar"):
        form = _text(text, subtype, letter.charset)
        forms.append(_multipart("related", [form, *inline]) if subtype == "html" and inline else form)
    if len(forms) > 1:
        forms = [_multipart("alternative", forms)]
    return _multipart("mixed", [*forms, *files]) if files else forms[0]


def _has_text(letter: Letter) -> bool:
    """Return True if the mail has a text part: some clients would show an empty one instead of the HTML."""
    return bool(letter.body) or not (letter.alternatives or (letter.attachments and letter.body is None))


def _multipart(subtype: str, parts: Sequence[MIMEPart]) -> MIMEPart:
    whole = MIMEPart(_POLICY)
    whole["Content-Type"] = f"multipart/{subtype}"
    for part in parts:
        whole.attach(part)
    return whole


def _text(text: str, subtype: str, charset: str | None) -> MIMEPart:
    part = MIMEPart(_POLICY)
    method = _METHOD.search(text) if subtype == "calendar" else None
    part.set_content(
        text,
        subtype=subtype,
        charset=charset or "utf-8",
        cte=_encoding(text.encode(charset or "utf-8")),
        # RFC 6047, 2.4: without a method clients show no buttons.
        params={"method": method[1].upper()} if method else None,
    )
    return part


def _encoding(data: bytes) -> str:
    if _is_seven_bit(data, LONGEST_LINE):
        return "7bit"
    # The shorter one; quoted-printable takes three letters for what is not ASCII.
    ascii_only = data.translate(None, delete=_NOT_ASCII)
    return "base64" if len(ascii_only) < len(data) * 5 / 6 else "quoted-printable"


def _is_seven_bit(data: bytes, longest: int) -> bool:
    """Return True if SMTP carries the text as it is; its lines end at CR and LF only."""
    return data.isascii() and b"\0" not in data and max(map(len, _LINE_END.split(data))) <= longest


def _file(file: AttachedFile, ascii_names: bool) -> MIMEPart:
    part = MIMEPart(_POLICY)
    kind, data, maintype = file.content_type, file.data, file.content_type.partition("/")[0].lower()
    is_mail = kind.partition(";")[0].strip().lower() == "message/rfc822" and _is_seven_bit(data, 998)
    if maintype in ("message", "multipart") and not is_mail:
        # RFC 2045, 6.4: these may not be encoded.
        kind = "application/octet-stream"
    part["Content-Type"] = fields.verbatim("Content-Type", kind)
    part["Content-Disposition"] = fields.disposition(
        file.disposition, _in_ascii(file.filename) if ascii_names and file.filename else file.filename
    )
    for name, text in file.headers.items():
        is_bare = name.lower() == "content-id" and not text.startswith("<")
        part[name] = fields.verbatim(name, f"<{text}>" if is_bare else text)
    part["Content-Transfer-Encoding"] = "7bit" if is_mail else "base64"
    written = _LINE_END.sub(b"\r\n", data) if is_mail else base64.encodebytes(data)
    part.set_payload(written.decode("ascii"))
    return part


def _is_shown_in(html: str, file: AttachedFile) -> bool:
    """Return True for a picture that the HTML shows: clients would list it as a loose file otherwise."""
    for name, text in file.headers.items():
        if name.lower() == "content-id":
            return file.disposition.lower() == "inline" or f"cid:{text.strip('<>')}" in html
    return False


def _in_ascii(name: str) -> str:
    # What Flask-Mail does with MAIL_ASCII_ATTACHMENTS.
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return " ".join(name.split())
