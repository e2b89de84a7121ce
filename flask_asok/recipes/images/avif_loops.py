"""The boxes of an animated AVIF that say how often it is played; Pillow neither reads nor writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_FOR_EVER = {4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
_INSIDE = (b"moov", b"trak", b"edts")
_DURATIONS = {b"mvhd": (16, 24), b"tkhd": (20, 28)}
"""Where the duration of all plays stands, of the movie and of each track, in 32 bits and in 64."""


def plays(data: bytes) -> int:
    """Return how often it plays in all; 0 is forever, also the meaning of a file that does not say."""
    total = once = None
    repeats = False
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"tkhd" and total is None:
            total = _number(data, *_duration(data, kind, start))
        elif kind == b"elst" and once is None:
            repeats = bool(data[start + 3] & 1)
            once = _number(data, start + 8, 8 if data[start] else 4)
    if once is None:
        return 0
    if not repeats:
        return 1
    if not total or not once or total in _FOR_EVER.values():
        return 0
    return max(1, round(total / once))


def with_plays(data: bytes, plays: int) -> bytes:
    """Return a file of Pillow, which plays forever, changed to play `plays` times."""
    if not plays:
        return data
    once = 0
    changed = bytearray(data)
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"elst" and data[start + 3] & 1:
            once = _number(data, start + 8, 8 if data[start] else 4)
            changed[start + 3] = int(plays > 1)
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind in _DURATIONS:
            position, width = _duration(data, kind, start)
            changed[position : position + width] = (once * plays).to_bytes(width, "big")
    return bytes(changed)


def _boxes(data: bytes, position: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box, and where its body starts and ends, also of those inside."""
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1 and start + 8 <= end:
            length, start = struct.unpack_from(">Q", data, start)[0], start + 8
        stop = min(position + length, end) if length else end
        if stop < start:
            return
        yield kind, start, stop
        if kind in _INSIDE[depth : depth + 1]:
            yield from _boxes(data, start, stop, depth + 1)
        position = stop


def _duration(data: bytes, kind: bytes, start: int) -> tuple[int, int]:
    short, long = _DURATIONS[kind]
    return (start + long, 8) if data[start] else (start + short, 4)


def _number(data: bytes, position: int, width: int) -> int:
    return int.from_bytes(data[position : position + width], "big")
