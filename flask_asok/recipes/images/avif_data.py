"""Where the coded images of an AVIF are in the file: of its items, and of the tracks of an animation."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .errors import ImageError

_MOST = 100_000
"""Items, and their parts, that a file may have."""
_NUMBERS = 3 * _MOST
"""Numbers in one list of them; three stand for a run of parts."""
_IN_BOX = 1
"""The way in which an item is stored that is not in the file itself but in a box of the head."""


def coded(boxes: dict[bytes, list[bytes]], items: set[int], data: bytes) -> Iterator[memoryview]:
    """Yield the data of each of these items, and of each sample of all tracks; ImageError if they have no bounds."""
    for body in boxes.get(b"iloc", ()):
        for item, is_inside, parts in _places(body):
            if item in items:
                yield _put_together(memoryview(boxes.get(b"idat", [b""])[0] if is_inside else data), parts)
    for starts, sizes, runs in zip(*(boxes.get(kind, ()) for kind in (b"stco", b"stsz", b"stsc")), strict=False):
        for start, length in _samples(starts, sizes, runs):
            yield memoryview(data)[start : start + length]


def _put_together(whole: memoryview, parts: list[tuple[int, int]]) -> memoryview:
    pieces = [whole[start : start + length if length else None] for start, length in parts]
    if sum(map(len, pieces)) > len(whole):
        # Parts may overlap, and the decoder would copy each.
        raise ImageError("An image of the AVIF is larger than the file.")
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _places(body: bytes) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yield the number of an item, whether it is in a box, and the start and the length of each of its parts."""
    version, widths, more = body[0], body[4], body[5]
    of_number, of_index = (4 if version == 2 else 2), (more & 15 if version else 0)
    position, left = 6, _MOST

    def number(width: int) -> int:
        nonlocal position
        position += width
        return int.from_bytes(body[position - width : position], "big")

    for _ in range(number(of_number)):
        item, method = number(of_number), number(2) & 15 if version else 0
        number(2)
        base = number(more >> 4)
        count, parts = number(2), []
        left -= 1 + count
        if left < 0:
            raise ImageError("The AVIF is in too many pieces.")
        for _ in range(count):
            number(of_index)
            parts.append((base + number(widths >> 4), number(widths & 15)))
        yield item, method == _IN_BOX, parts


def _samples(starts: bytes, sizes: bytes, runs: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each sample of a track starts, and its length."""
    common, own = int.from_bytes(sizes[4:8], "big"), iter(_numbers(sizes[12:]))
    firsts = _numbers(runs[8:])
    counts = dict(zip(firsts[::3], firsts[1::3], strict=False))
    count = 0
    for chunk, start in enumerate(_numbers(starts[8:]), 1):
        count = counts.get(chunk, count)
        for _ in range(count):
            length = common or next(own, 0)
            yield start, length
            start += length


def _numbers(body: bytes) -> tuple[int, ...]:
    count = len(body) // 4
    if count > _NUMBERS:
        raise ImageError("The AVIF is in too many pieces.")
    return struct.unpack(f">{count}I", body[: 4 * count])
