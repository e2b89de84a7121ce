"""A JPEG: how small it can be decoded; its scans counted before one is, and copied without what is not drawn."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The beginning of a segment, and the end of coded data: 0xFF that is neither escaped nor a restart."""
_END, _SCAN = 0xD9, 0xDA
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(_END, 0xF0), 0xFE}) - {0xC8}
"""What has a length; the end is counted among them."""
_JFIF, _EXIF, _PROFILE, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE

_SCALES = {1: 8, 2: 4, 3: 3, 4: 2}
"""The eighths to which libjpeg shrinks while it decodes, and the denominator that asks for them through Pillow."""


def scale(size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """Return the eighths, and their denominator, at which a picture of `size` is just no smaller than `least`."""
    for eighths, denominator in _SCALES.items():
        if all(side * eighths >= 8 * small for side, small in zip(size, least, strict=True)):
            return eighths, denominator
    return 8, 1


def scans(data: bytes, most: int) -> int:
    """Return how often the picture is gone through, or `most` and one where that is more."""
    count = 0
    for kind, _, _ in _segments(data):
        count += kind == _SCAN
        if count > most:
            break
    return count


def strip(data: bytes, exif: bytes) -> bytes | None:
    """
    Return the file without metadata but for `exif`, or None where it is not flawless from its start to its end.

    A decoder may find its way through flaws, from one restart marker to the next for instance; it is not guessed here.
    """
    kept = bytearray(b"\xff\xd8")
    notice = _notice(exif)
    kind, before = 0, 2
    for kind, start, end in _segments(data):
        if kind not in _SEGMENTS or data[before:start].strip(b"\xff"):
            return None
        before = end
        segment = _kept(kind, data[start:end])
        if notice and segment and kind != _JFIF:
            # The place for it is behind the first one, which says that this is a JPEG.
            kept += notice
            notice = b""
        kept += segment
    return bytes(kept) if kind == _END else None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of each segment, and where it starts and ends; the coded data of a scan belongs to it."""
    position = 2
    while marker := _MARKER.search(data, position):
        start = marker.start()
        kind = data[start + 1]
        if kind == _END:
            yield kind, start, start + 2
            return
        position = start + 2
        if kind in _SEGMENTS:
            position += int.from_bytes(data[position : position + 2], "big")
        if kind == _SCAN:
            following = _MARKER.search(data, position)
            position = following.start() if following else len(data)
        yield kind, start, position


def _kept(kind: int, segment: bytes) -> bytes:
    """Return what stays of a segment."""
    body = segment[4:]
    if kind == _JFIF and body.startswith(b"JFIF\0") and len(body) >= 14:
        # A small picture may follow, and show what was cut off the large one.
        return b"\xff\xe0\0\x10" + body[:12] + b"\0\0"
    if kind == _ADOBE and body.startswith(b"Adobe"):
        return b"\xff\xee\0\x0e" + body[:12] if len(body) > 12 else segment
    if kind == _PROFILE and body.startswith(b"ICC_PROFILE\0"):
        return segment
    return b"" if _JFIF <= kind <= 0xEF or kind == _COMMENT else segment


def _notice(exif: bytes) -> bytes:
    if not exif:
        return b""
    body = b"Exif\0\0" + exif.removeprefix(b"Exif\0\0")
    return bytes((0xFF, _EXIF)) + struct.pack(">H", len(body) + 2) + body
