"""The tags of a TIFF, or of EXIF data, counted before they are read: Pillow makes an object of each number in them."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

MOST = 200_000
"""Numbers that a tag may have; the palette of a TIFF has 196,608 of them."""
_ORDERS = {b"II": "<", b"MM": ">"}
_PRIVATE, _COPYRIGHT = 32_768, 33_432
"""The first tag that only its own program reads, and one behind it that others do."""
_UNREAD = (1, 2, 7)
"""Kinds of values that stay bytes."""
_DIRECTORIES, _ENTRIES = 2, 1 << 16


def has_long_tag(exif: bytes) -> bool:
    """Return True if EXIF data have a tag that would cost much."""
    return longest(io.BytesIO(exif.removeprefix(b"Exif\0\0"))) > MOST


def longest(file: BinaryIO) -> int:
    """Return the length of the longest list of numbers in the first two directories; 0 for anything but a TIFF."""
    try:
        return _longest(file)
    except struct.error:
        # It is cut off, which Pillow will report.
        return 0
    finally:
        file.seek(0)


def _longest(file: BinaryIO) -> int:
    head = file.read(16)
    order = _ORDERS.get(head[:2])
    if order is None:
        return 0
    (version,) = struct.unpack_from(order + "H", head, 2)
    # A BigTIFF has numbers of 64 bits.
    number, counter, entry = ("Q", "Q", "HHQQ") if version == 43 else ("I", "H", "HHII")
    (position,) = struct.unpack_from(order + number, head, 8 if version == 43 else 4)
    found, end = 0, file.seek(0, io.SEEK_END)
    for _ in range(_DIRECTORIES):
        if not 0 < position < end:
            break
        file.seek(position)
        (count,) = struct.unpack(order + counter, file.read(struct.calcsize(order + counter)))
        body = file.read(min(count, _ENTRIES) * struct.calcsize(order + entry))
        for start in range(0, len(body), struct.calcsize(order + entry)):
            tag, kind, length, _ = struct.unpack_from(order + entry, body, start)
            if (tag < _PRIVATE or tag == _COPYRIGHT) and kind not in _UNREAD:
                found = max(found, length)
        following = file.read(struct.calcsize(order + number))
        position = struct.unpack(order + number, following)[0] if following else 0
    return found
