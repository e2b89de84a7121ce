"""The mark at the end of a published file: it says which image the file was made from, and so what may replace it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from typing import BinaryIO

_WORDS = b"asok: made from "
_DIGITS = 32
_LENGTH = 8 + len(_WORDS) + _DIGITS
_HEAD = struct.pack(">I", _LENGTH) + b"free" + _WORDS
"""A box of free space, as AVIF defines it. All other formats state their end, and decoders ignore what follows."""


def mark(original: str, file: str) -> bytes:
    """
    Return the mark for `file`, made from the image at `original`.

    It is a digest of the relative path, so both may be moved together, and no name is revealed.
    """
    folder, name = os.path.split(original)
    way = os.path.join(os.path.realpath(folder), name)
    # ValueError: there is no relative path between drives.
    with contextlib.suppress(ValueError):
        way = os.path.relpath(way, os.path.realpath(os.path.dirname(file)))
    digest = hashlib.sha256(os.fsencode(way.replace(os.sep, "/"))).hexdigest()
    return _HEAD + digest[:_DIGITS].encode()


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the file without its mark, and the mark, empty if there is none."""
    return (data[:-_LENGTH], data[-_LENGTH:]) if _is_mark(data[-_LENGTH:]) else (data, b"")


def mark_of(file: BinaryIO) -> bytes:
    """Return the mark of an open file, empty if there is none."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _LENGTH))
    return split(file.read())[1]


def may_replace(file: str, mark: bytes) -> bool:
    """
    Return True if `file` ends with `mark`. FileNotFoundError if the file is missing.

    A symbolic link may be replaced too; its target is unchanged.
    """
    kind = os.stat(file, follow_symlinks=False).st_mode
    if not stat.S_ISREG(kind):
        return stat.S_ISLNK(kind)
    try:
        with open(file, "rb") as found:
            found.seek(-_LENGTH, os.SEEK_END)
            return found.read() == mark
    except FileNotFoundError:
        raise
    except OSError:
        # It is shorter, or cannot be read.
        return False


def _is_mark(tail: bytes) -> bool:
    return len(tail) == _LENGTH and tail.startswith(_HEAD) and set(tail[len(_HEAD) :]) <= set(b"0123456789abcdef")
