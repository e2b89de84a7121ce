"""The sequence headers of AV1, which say how large a frame a decoder gets, whatever the boxes around them say."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ImageError

_SEQUENCE_HEADER = 1
_MOST = 100_000
"""Units that a file may have, and pieces in which they are; a still image has three units."""


class _Bits:
    """Reads numbers of some bits; zeros behind the end."""

    def __init__(self, data: memoryview) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)


def most_pixels(pieces: Iterable[memoryview]) -> int:
    """Return the pixels of the largest frame that the units in all pieces announce; ImageError if they are too many."""
    most, left = 0, _MOST
    for data in pieces:
        position, left = 0, left - 1
        while position + 2 <= len(data) and left >= 0:
            head = data[position]
            position += 2 if head & 4 else 1
            length, position = _length(data, position) if head & 2 else (len(data) - position, position)
            if head >> 3 & 15 == _SEQUENCE_HEADER:
                most = max(most, _frame_pixels(_Bits(data[position : position + min(length, 1 << 10)])))
            position, left = position + length, left - 1
        if left < 0:
            raise ImageError("The AVIF is in too many pieces.")
    return most


def _length(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, the lowest first, and where it ends."""
    length = 0
    for index, byte in enumerate(data[position : position + 8]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return length, position + index + 1
    return len(data), position


def _frame_pixels(bits: _Bits) -> int:
    bits.read(3 + 1)
    if bits.read(1):
        bits.read(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.read(4) + 1, bits.read(4) + 1
    return (bits.read(wide) + 1) * (bits.read(high) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    """Pass over times, decoder models and levels."""
    delay_bits = 0
    if bits.read(1):
        bits.read(32 + 32)
        if bits.read(1):
            zeros = next((count for count in range(32) if bits.read(1)), 32)
            bits.read(zeros if zeros < 32 else 0)
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    has_delays = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_delays and bits.read(1):
            bits.read(4)
