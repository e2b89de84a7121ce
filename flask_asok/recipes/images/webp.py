"""The chunks of a WebP: is it lossless, and a copy without metadata."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .errors import ImageError

_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_EXIF, _XMP = 0x08, 0x04
"""Flags of the head."""
_HEAD = 1 << 16
_PIECES = 100_000
"""Chunks that a file may have; an animation has one for each frame."""


def is_lossless(file: BinaryIO) -> bool:
    """Return True if the first frame is coded without loss: it is a drawing, and stays one."""
    position = file.tell()
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(position)
    lossless, lossy = head.find(b"VP8L"), head.find(b"VP8 ")
    return lossless >= 0 and (lossy < 0 or lossless < lossy)


def strip(data: bytes, exif: bytes) -> bytes:
    """Return the file without metadata other than `exif`; ImageError if it has too many chunks."""
    kept, left = bytearray(), _PIECES
    position, total = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    body = exif.removeprefix(b"Exif\0\0")
    while position + 8 <= total:
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + (length & 1)
        left -= 1
        if left < 0:
            raise ImageError(f"The WebP is in more than {_PIECES:,} pieces.")
        if kind in _KEPT:
            chunk = bytearray(data[position:end])
            if kind == b"VP8X":
                chunk[8] = chunk[8] & ~(_EXIF | _XMP) | (_EXIF if body else 0)
            kept += chunk
        position = end
    if body:
        kept += b"EXIF" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept
