"""The segments of a JPEG: its layout, its scans, its end, and a copy without metadata."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import BinaryIO

from .errors import ImageError

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The beginning of a segment, and the end of coded data: 0xFF that is neither escaped nor a restart."""
_VIDEO = re.compile(rb"ftyp(?<=\0\0\0[\x08-\xff]ftyp)")
"""The head of an MP4; its word comes first, since it is found faster than zeros."""
_START, END = b"\xff\xd8", b"\xff\xd9"
_END, _SCAN = 0xD9, 0xDA
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(_END, 0xF0), 0xFE}) - {0xC8}
"""Segments with a length, and the end mark."""
_JFIF, _EXIF, _PROFILE, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES = frozenset({*range(0xC0, 0xD0)}) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_UNREAD = {
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical"),
}
_MOST = 20_000
_PIECES = 100_000
"""Segments that a file may have: a photo has dozens, one of a hundred scans has hundreds."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the samples are stored."""

    samples: int = 0
    """Of all components, in whole blocks."""
    in_scans: bool = False
    """True if several scans hold a part of the image each, so that the decoder keeps all of it until the last."""


def layout(file: BinaryIO) -> Layout:
    """Return the layout that the head states; an empty one if the head is broken, which the decoder will report."""
    frame, samples = b"", 0
    for kind, length in _head(file):
        if kind in _FRAMES:
            frame = bytes((kind,)) + file.read(max(0, length - 2))
            samples = _samples(frame)
        if kind == _SCAN and frame:
            return Layout(samples, frame[0] in _PROGRESSIVE or file.read(1) != frame[6:7])
    return Layout()


def unread_kind(file: BinaryIO) -> str:
    """Return what the head of a JPEG says it is, if no decoder of ours reads that: "lossless"; otherwise ""."""
    found = ""
    for kind, _ in _head(file):
        if kind in _UNREAD:
            found = _UNREAD[kind]
        elif kind in _FRAMES and file.read(1) == b"\x0c":
            found = "12-bit"
        if found or kind == _SCAN:
            break
    file.seek(0)
    return found


def _head(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the kind and the length of each segment of the head, with the file at its content."""
    position = 2
    for _ in range(_MOST):
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        kind, length = head[1], int.from_bytes(head[2:], "big")
        if kind in (0xFF, 0x01) or 0xD0 <= kind <= 0xD7:
            # Padding, and markers without a length.
            position += 1 if kind == 0xFF else 2
            continue
        yield kind, length
        position += 2 + length


def _samples(frame: bytes) -> int:
    height, width = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
    # Of each component there are its name, its factors and its table.
    factors = [(byte >> 4 or 1, byte & 15 or 1) for byte in frame[8::3][:4]]
    across, down = max((one for one, _ in factors), default=1), max((one for _, one in factors), default=1)
    blocks = sum(ceil(width * one / across / 8) * ceil(height * other / down / 8) for one, other in factors)
    return blocks * 64


def missing_end(file: BinaryIO) -> bytes:
    """Return the end mark if `file` is a JPEG without one, as cameras and uploads that lose the last bytes leave it."""
    found = b""
    if file.read(2) == _START:
        length = file.seek(0, io.SEEK_END)
        file.seek(max(0, length - 2))
        if file.read() != END:
            file.seek(0)
            found = b"" if any(kind == _END for kind, _, _ in _segments(file.read())) else END
    file.seek(0)
    return found


def end_of(data: bytes) -> int | None:
    """Return where the end mark stands, None if there is none."""
    return next((start for kind, start, _ in _segments(data) if kind == _END), None)


def has_video(data: bytes) -> bool:
    """Return True if a video follows the image, as phones append it: a motion photo."""
    # Few files have the word anywhere, and the end of an image is not found as quickly.
    end = end_of(data) if _VIDEO.search(data) else None
    return end is not None and _VIDEO.search(data, end) is not None


def scans(data: bytes, most: int) -> int:
    """Return the number of scans, at most `most` + 1."""
    count = 0
    for kind, _, _ in _segments(data):
        count += kind == _SCAN
        if count > most:
            break
    return count


def has_all_scans(data: bytes) -> bool:
    """Return True if the scans hold every coefficient of every component, to its last bit; their data may be cut."""
    missing: dict[int, dict[int, int]] = {}
    for kind, start, _ in _segments(data):
        body = data[start + 4 : start + 40]
        if kind in _FRAMES | {_SCAN} and len(body) < 6:
            return False
        if kind in _FRAMES:
            # A name, factors and a table for each component. Bits that are missing: all, written as -1.
            missing = {name: dict.fromkeys(range(64), -1) for name in body[6 : 6 + 3 * body[5] : 3]}
        elif kind == _SCAN and missing:
            count = body[0]
            names, (first, last, bits) = body[1 : 1 + 2 * count : 2], body[1 + 2 * count : 4 + 2 * count]
            for name in missing.keys() & set(names):
                missing[name].update(dict.fromkeys(range(first, last + 1), bits & 15))
    return bool(missing) and not any(left for bits in missing.values() for left in bits.values())


def first_scan(data: bytes, components: int) -> bytes | None:
    """
    Return a progressive JPEG with its first scan only, which has all mean colours.

    None if it is cut off, or its first scan lacks the mean colours of a component.
    """
    kind, after = 0, 0
    for kind, start, end in _segments(data):
        if kind == _SCAN and not after:
            # Behind the number of components and two bytes for each: which of the 64 coefficients, from 0 to 0.
            if (
                data[start + 4] != components
                or data[start + 5 + 2 * components : start + 7 + 2 * components] != b"\0\0"
            ):
                return None
            after = end
    return data[:after] + b"\xff\xd9" if kind == _END else None


def strip(data: bytes, exif: bytes) -> bytes | None:
    """
    Return the file without metadata but for `exif`, or None if it has any flaw from its start to its end.

    A decoder may recover from flaws, at the next restart marker for instance; this function does not try.
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
    """
    Yield the kind of each segment, and where it starts and ends; the coded data of a scan belongs to it.

    ImageError if there are too many: millions would take seconds, in the request that saves an upload.
    """
    position, left = 2, _PIECES
    while marker := _MARKER.search(data, position):
        left -= 1
        if left < 0:
            raise ImageError(f"The JPEG is in more than {_PIECES:,} pieces.")
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
        # A thumbnail may follow, and show parts that were cropped from the image.
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
