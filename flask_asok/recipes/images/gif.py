"""The blocks of a GIF: counted before a frame is decoded, read, and copied without its comments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import ImageError

_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_PIECES, _PIECE_BYTES = 100_000, 64
"""Pieces that a file may have, besides one for so many bytes: each is read several times."""


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """One frame, not decoded yet."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom, on the screen or beyond it."""
    palette: bytes
    """Its own or the common one; empty if there is none, which means shades of grey."""
    transparency: int | None
    hundredths: int
    """Of a second, for which it is shown."""
    disposal: int
    interlaced: bool
    bits: int
    """How many a code has at first."""
    data: bytes


def images(data: bytes) -> Iterator[ImageBlock]:
    """
    Yield the frames; of one that is cut off, what there is of it. ValueError if the file ends before its pixels.

    A file without its trailer that ends behind a whole frame is taken for whole: a GIF does not say how many it has.
    """
    end = _after_header(data)
    common, control, is_announced = data[13:end], bytes(4), False
    try:
        for kind, start, end in _blocks(data):
            if kind == _EXTENSION and data[start + 1] == _GRAPHIC_CONTROL and data[start + 2] >= 4:
                control, is_announced = data[start + 3 : start + 7], True
            elif kind == _IMAGE:
                yield _image(data, start, end, common, control)
                # It is about one frame only.
                control, is_announced = bytes(4), False
    except IndexError:
        if end < len(data):
            yield _cut_off(data, end, common, control)
        elif is_announced:
            raise ValueError("it is cut off") from None


def loops(data: bytes) -> int | None:
    """Return how often it repeats after the first play; 0 is forever, None means that it does not say."""
    found = None
    try:
        for kind, start, _ in _blocks(data):
            if kind == _EXTENSION and _says_loops(data, start):
                body = data[start + 14 : start + 18]
                if len(body) == 4 and body[0] >= 3 and body[1] == 1:
                    found = int.from_bytes(body[2:4], "little")
    except IndexError:
        pass
    return found


def drawn_pixels(data: bytes, most: int, least: int) -> int:
    """
    Return width times height times frames, or any number above `most` as soon as it is reached.

    A frame counts as `least` at the least. ImageError if the file is in too many pieces.
    """
    total = 0
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    try:
        for kind, start, _ in _blocks(data):
            if kind == _IMAGE:
                # A frame that leaves the screen makes the screen larger, for this and all following frames.
                left, top, wide, high = _extent(data, start)
                width, height = max(width, left + wide), max(height, top + high)
                total += max(width * height, least)
                if total > most:
                    break
    except IndexError:
        # Cut off: the decoder will say so.
        pass
    return total


def strip(data: bytes) -> bytes | None:
    """Return the file without comments and other blocks that are not drawn; None if its structure is broken."""
    kept = bytearray(data[: _after_header(data)])
    try:
        for kind, start, end in _blocks(data):
            if kind == _IMAGE or (
                kind == _EXTENSION and (data[start + 1] == _GRAPHIC_CONTROL or _says_loops(data, start))
            ):
                kept += data[start:end]
            elif kind != _EXTENSION:
                return None
    except IndexError:
        return None
    kept.append(_TRAILER)
    return bytes(kept)


def _blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """
    Yield the kind of each block before the trailer, and where it starts and ends; a byte of no kind is one, too.

    IndexError if the file ends before the trailer, ImageError if it is in so many pieces that it takes long.
    """
    position, left = _after_header(data), _PIECES + len(data) // _PIECE_BYTES
    while (kind := data[position]) != _TRAILER:
        start, left = position, left - 1
        if kind == _EXTENSION:
            position = start + 2
        elif kind == _IMAGE:
            position = _after_table(data, start)
        else:
            position = start + 1
        if kind in (_EXTENSION, _IMAGE):
            while (length := data[position]) and left >= 0:
                position, left = position + length + 1, left - 1
            position += 1
        if left < 0:
            raise ImageError("The GIF is in too many pieces.")
        yield kind, start, position


def _says_loops(data: bytes, start: int) -> bool:
    return data[start + 1] == _APPLICATION and data[start + 3 : start + 14] in _LOOPS


def _cut_off(data: bytes, start: int, common: bytes, control: bytes) -> ImageBlock:
    try:
        if data[start] == _IMAGE:
            return _image(data, start, len(data), common, control)
    except IndexError:
        pass
    raise ValueError("it is cut off")


def _image(data: bytes, start: int, end: int, common: bytes, control: bytes) -> ImageBlock:
    left, top, wide, high = _extent(data, start)
    flags = data[start + 9]
    after_table = start + 10 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    return ImageBlock(
        box=(left, top, left + wide, top + high),
        palette=data[start + 10 : after_table] or common,
        transparency=control[3] if control[0] & 1 else None,
        hundredths=int.from_bytes(control[1:3], "little"),
        disposal=control[0] >> 2 & 7,
        interlaced=bool(flags & 0x40),
        bits=data[after_table],
        data=data[after_table + 1 : end],
    )


def _after_header(data: bytes) -> int:
    flags = data[10]
    return 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _after_table(data: bytes, start: int) -> int:
    flags = data[start + 9]
    table = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    # One byte after the colour table says how many bits a code has.
    return start + 10 + table + 1


def _extent(data: bytes, start: int) -> tuple[int, int, int, int]:
    left, top, wide, high = (
        int.from_bytes(data[start + offset : start + offset + 2], "little") for offset in (1, 3, 5, 7)
    )
    return left, top, wide, high
