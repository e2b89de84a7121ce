"""Files that go along with a mail, read when the mail is queued."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from .checks import LONGEST_LINE, HeaderInjectionError, checked_headers, checked_line

# Without a second slash, at which Flask-Mail would divide it.
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;[\t -.0-~]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedFile:
    """One file of a letter, with its bytes."""

    filename: str | None
    content_type: str
    data: bytes = field(repr=False)
    disposition: str = "attachment"
    headers: dict[str, str] = field(default_factory=dict)


def attached_file(value: Any) -> AttachedFile:
    """
    Return the file that `value` stands for, read to its end.

    A path; `(filename, data)` or `(filename, data, content_type)`, with data of str, bytes or a file open for reading;
    a file that has a name (an upload); a Flask-Mail Attachment. Raises OSError for a file that cannot be read.
    """
    from flask_mail import Attachment

    if isinstance(value, Attachment):
        return _file(value.filename, value.data, value.content_type, value.disposition, value.headers)
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        return _file(path.name, path.read_bytes())
    if isinstance(value, tuple) and len(value) in (2, 3):
        return _file(*value)
    if hasattr(value, "read"):
        name = getattr(value, "filename", None) or getattr(value, "name", None)
        if not isinstance(name, str) or not name:
            raise TypeError("An attached file needs a name: pass (filename, file).")
        return _file(os.path.basename(name), value, getattr(value, "mimetype", None) or None)
    raise TypeError(
        "attachments takes paths, (filename, data) or (filename, data, content_type), open files and Flask-Mail "
        f"Attachments, not {type(value).__name__}."
    )


def _file(
    filename: Any,
    data: Any,
    content_type: Any = None,
    disposition: str = "attachment",
    headers: dict[str, Any] | None = None,
) -> AttachedFile:
    name = None if filename is None else checked_line("The name of an attachment", filename)
    if hasattr(data, "read"):
        data = data.read()
    kind = content_type or (name and guess_type(name)[0])
    kind = kind or ("text/plain" if isinstance(data, str) else "application/octet-stream")
    if not isinstance(kind, str) or len(kind) > LONGEST_LINE or not _CONTENT_TYPE.fullmatch(kind):
        raise HeaderInjectionError(f"{kind!r} is no content type of an attachment.")
    if isinstance(data, str):
        # Flask-Mail would write what is not Latin-1 as escapes.
        data = data.encode()
        if kind.startswith("text/") and "charset" not in kind.lower():
            kind += '; charset="utf-8"'
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"The data of attachment {name!r} must be bytes, str or a file, not {type(data).__name__}.")
    if not re.fullmatch(r"[A-Za-z-]+", disposition):
        raise HeaderInjectionError(f"{disposition!r} is no disposition of an attachment.")
    return AttachedFile(
        filename=name,
        content_type=kind,
        data=bytes(data),
        disposition=disposition,
        headers=checked_headers(headers or {}),
    )
