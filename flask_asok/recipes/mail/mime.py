"""An email as the bytes that go over the wire."""

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
from .outgoing import OutgoingMail
from .safe_text import LONGEST_LINE

_POLICY = SMTP.clone(cte_type="7bit", max_line_length=76)
"""The server need not support 8BITMIME; lines of quoted-printable end at 76 characters (RFC 2045, 6.7)."""

_LINE_END = re.compile(rb"\r\n|\r|\n")

_NOT_ASCII = bytes(range(128, 256))

_METHOD = re.compile(r"^METHOD:([A-Za-z-]{1,30})\s*$", re.IGNORECASE | re.MULTILINE)


def as_bytes(mail: OutgoingMail, *, ascii_names: bool = False) -> bytes:
    """Return the finished email, without Bcc; `ascii_names` strips non-ASCII characters from file names."""
    if mail.content is not None:
        return mail.content
    message = EmailMessage(_POLICY)
    for field in _headers(mail):
        message[field.name] = field
    message["MIME-Version"] = "1.0"
    content = _content(mail, ascii_names)
    for name, value in content.items():
        message[name] = value
    message.set_payload(content.get_payload())
    return message.as_bytes()


def _headers(mail: OutgoingMail) -> list[fields.Field]:
    found = [
        fields.unstructured("Subject", mail.subject) if mail.subject else None,
        fields.addresses("From", [mail.sender]),
        # RFC 5322, 3.6.3: these must not be empty.
        fields.addresses("To", mail.to) if mail.to else None,
        fields.addresses("Cc", mail.cc) if mail.cc else None,
        fields.addresses("Reply-To", [mail.reply_to]) if mail.reply_to else None,
        fields.verbatim("Date", formatdate(mail.date, localtime=True)),
        fields.verbatim("Message-ID", mail.message_id),
        *(fields.verbatim(name, text) for name, text in mail.headers.items()),
    ]
    return [field for field in found if field is not None]


def _content(mail: OutgoingMail, ascii_names: bool) -> MIMEPart:
    html = mail.alternatives.get("html")
    inline: list[MIMEPart] = []
    files: list[MIMEPart] = []
    for file in mail.attachments:
        (inline if html is not None and _is_shown_in(html, file) else files).append(_file(file, ascii_names))
    forms = [_text(mail.body or "", "plain", mail.charset)] if _has_text(mail) else []
    # Clients show the last form that they support; those that support invitations then show the buttons.
    for subtype, text in sorted(mail.alternatives.items(), key=lambda item: item[0] == "calendar"):
        form = _text(text, subtype, mail.charset)
        forms.append(_multipart("related", [form, *inline]) if subtype == "html" and inline else form)
    if len(forms) > 1:
        forms = [_multipart("alternative", forms)]
    return _multipart("mixed", [*forms, *files]) if files else forms[0]


def _has_text(mail: OutgoingMail) -> bool:
    """Return True if the email gets a text part: some clients would show an empty one instead of the HTML."""
    return bool(mail.body) or not (mail.alternatives or (mail.attachments and mail.body is None))


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
        # RFC 6047, 2.4: without a method, clients show no buttons.
        params={"method": method[1].upper()} if method else None,
    )
    return part


def _encoding(data: bytes) -> str:
    if _is_seven_bit(data, LONGEST_LINE):
        return "7bit"
    # The shorter one; quoted-printable needs three characters for each non-ASCII byte.
    ascii_only = data.translate(None, delete=_NOT_ASCII)
    return "base64" if len(ascii_only) < len(data) * 5 / 6 else "quoted-printable"


def _is_seven_bit(data: bytes, longest: int) -> bool:
    """Return True if SMTP carries the text unchanged; only CR and LF end its lines."""
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
    """Return True for an image that the HTML shows: clients would list it as a separate file otherwise."""
    for name, text in file.headers.items():
        if name.lower() == "content-id":
            return file.disposition.lower() == "inline" or f"cid:{text.strip('<>')}" in html
    return False


def _in_ascii(name: str) -> str:
    # As Flask-Mail does for MAIL_ASCII_ATTACHMENTS. One by one: of all together it sorts the accents, which go anyway,
    # and thousands in a row take minutes.
    letters = "".join(unicodedata.normalize("NFKD", char) for char in name)
    return " ".join(letters.encode("ascii", "ignore").decode("ascii").split())
