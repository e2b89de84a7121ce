"""Files attached to an email, read when it is queued."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from .safe_text import LONGEST_LINE, HeaderInjectionError, checked_headers, checked_line

# Without a second slash, where Flask-Mail would split it.
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;[\t -.0-~]*)?")

_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedFile:
    """One file of an email, with its bytes."""

    filename: str | None
    content_type: str
    data: bytes = field(repr=False)
    disposition: str = "attachment"
    headers: dict[str, str] = field(default_factory=dict)


def attached_file(value: Any, problems: list[str]) -> AttachedFile:
    """
    Return the file that `value` stands for, read to its end.

    A path; `(filename, data)` or `(filename, data, content_type)`, with data of str, bytes or a file open for reading;
    a file that has a name (an upload); a Flask-Mail Attachment. An upload is read from its start, an open file from
    where it is. Adds a reason to `problems` for a name that cannot be sent, since a visitor may have chosen it. Raises
    OSError for a file that cannot be read.
    """
    from flask_mail import Attachment

    if isinstance(value, Attachment):
        kind = _unless_guessed(value.content_type, value.filename)
        return _file(problems, value.filename, value.data, kind, value.disposition, value.headers)
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        return _file(problems, path.name, path.read_bytes())
    if isinstance(value, tuple) and len(value) in (2, 3):
        return _file(problems, *value)
    if hasattr(value, "read"):
        name = getattr(value, "filename", None) or getattr(value, "name", None)
        if not isinstance(name, str) or not name:
            raise TypeError("An attached file needs a name: pass (filename, file).")
        # The type of an upload is the browser's claim.
        said = getattr(value, "mimetype", None)
        kind = _unless_guessed(said, name) if _is_type(said) else None
        return _file(problems, os.path.basename(name), value, kind)
    raise TypeError(
        "attachments takes paths, (filename, data) or (filename, data, content_type), open files and Flask-Mail "
        f"Attachments, not {type(value).__name__}."
    )


def _file(
    problems: list[str],
    filename: Any,
    data: Any,
    content_type: Any = None,
    disposition: Any = "attachment",
    headers: Any = None,
) -> AttachedFile:
    name = None if filename is None else _checked_name(filename, problems)
    if hasattr(data, "read"):
        data = _read(data)
    kind = content_type or (name and _guessed(name))
    kind = kind or ("text/plain" if isinstance(data, str) else "application/octet-stream")
    if not _is_type(kind):
        raise HeaderInjectionError(f"{kind!r} is no content type of an attachment.")
    if isinstance(data, str):
        data = data.encode()
        if kind.startswith("text/") and "charset" not in kind.lower():
            kind += '; charset="utf-8"'
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"The data of attachment {name!r} must be bytes, str or a file, not {type(data).__name__}.")
    if not isinstance(disposition, str) or not re.fullmatch(r"[A-Za-z-]+", disposition):
        raise HeaderInjectionError(f"{disposition!r} is no disposition of an attachment.")
    return AttachedFile(
        filename=name,
        content_type=kind,
        data=bytes(data),
        disposition=disposition,
        headers=checked_headers(headers or {}),
    )


def _is_type(kind: Any) -> bool:
    return isinstance(kind, str) and len(kind) <= LONGEST_LINE and _CONTENT_TYPE.fullmatch(kind) is not None


def _read(file: Any) -> Any:
    if not (hasattr(file, "stream") and hasattr(file, "filename")):
        return file.read()
    # An upload: the application may have saved it already, or will do so.
    _rewind(file.stream)
    data = file.read()
    _rewind(file.stream)
    return data


def _rewind(stream: Any) -> None:
    with contextlib.suppress(AttributeError, OSError):
        stream.seek(0)


def _checked_name(filename: Any, problems: list[str]) -> str:
    try:
        return checked_line("The name of an attachment", filename)
    except ValueError as error:
        problems.append(str(error))
        return ""


def _guess(name: str) -> tuple[str | None, str | None]:
    # guess_type() reads a name as a URL: "data:text/html,x.pdf" is one, and from Python 3.13 on "//[a.pdf" an error.
    return guess_type(re.sub("[:/]", "_", name))


def _guessed(name: str) -> str | None:
    kind, encoding = _guess(name)
    # For a compressed file, `kind` is the type of the content.
    return kind if encoding is None else _COMPRESSED.get(encoding, "application/octet-stream")


def _unless_guessed(kind: Any, name: Any) -> Any:
    """Return the type, or None if it was guessed from the name as if the file were not compressed."""
    if not isinstance(name, str):
        return kind
    guessed, encoding = _guess(name)
    return None if encoding is not None and kind == guessed else kind
