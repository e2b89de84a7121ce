"""Which image a published file was made from: a mark at its end, so that nothing else is replaced by a rendition."""

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
"""A box of free space, as AVIF knows it. All other formats say where they end, and what follows is not looked at."""


def mark(original: str, file: str) -> bytes:
    """
    Return what `file`, made from the image at `original`, is to end with.

    It stands for the way from the one to the other, as a digest: both may be moved together, and no name is told.
    """
    folder, name = os.path.split(original)
    way = os.path.join(os.path.realpath(folder), name)
    # ValueError: from one drive to another there is none.
    with contextlib.suppress(ValueError):
        way = os.path.relpath(way, os.path.realpath(os.path.dirname(file)))
    digest = hashlib.sha256(os.fsencode(way.replace(os.sep, "/"))).hexdigest()
    return _HEAD + digest[:_DIGITS].encode()


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return a file less its mark, and the mark, which is empty where it has none."""
    return (data[:-_LENGTH], data[-_LENGTH:]) if _is_mark(data[-_LENGTH:]) else (data, b"")


def mark_of(file: BinaryIO) -> bytes:
    """Return the mark that an open file ends with, empty where it has none."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _LENGTH))
    return split(file.read())[1]


def may_replace(file: str, mark: bytes) -> bool:
    """
    Tell whether what is at `file` ends with `mark`. FileNotFoundError where nothing is there.

    A symbolic link is no image: it may be replaced, and what it leads to stays.
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
        # It is shorter, or cannot be looked at.
        return False


def _is_mark(tail: bytes) -> bool:
    return len(tail) == _LENGTH and tail.startswith(_HEAD) and set(tail[len(_HEAD) :]) <= set(b"0123456789abcdef")
