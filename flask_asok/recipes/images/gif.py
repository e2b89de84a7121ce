"""The blocks of a GIF: counted before a frame is decoded, and copied without its comments."""

from __future__ import annotations

_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def drawn_pixels(data: bytes, most: int, least: int) -> int:
    """
    Return width times height times frames, or any number above `most` as soon as it is reached.

    A frame counts as `least` at the least.
    """
    total = 0
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    try:
        position = _after_header(data)
        while total <= most:
            start = position
            if data[start] == _EXTENSION:
                position = _after_blocks(data, start + 2)
            elif data[start] == _IMAGE:
                # A frame that leaves the screen makes the screen larger, for this and all following frames.
                left, top, wide, high = _extent(data, start)
                width, height = max(width, left + wide), max(height, top + high)
                total += max(width * height, least)
                position = _after_image(data, start)
            elif data[start] == _TRAILER:
                break
            else:
                position += 1
    except IndexError:
        # Cut off: the decoder will say so.
        pass
    return total


def strip(data: bytes) -> bytes | None:
    """Return the file without comments and anything else that is not drawn, or None where it cannot be followed."""
    kept = bytearray()
    try:
        position = _after_header(data)
        kept += data[:position]
        while data[position] != _TRAILER:
            start = position
            if data[start] == _IMAGE:
                position = _after_image(data, start)
            elif data[start] == _EXTENSION:
                position = _after_blocks(data, start + 2)
                kind = data[start + 1]
                loops = kind == _APPLICATION and data[start + 3 : start + 14] in _LOOPS
                if kind != _GRAPHIC_CONTROL and not loops:
                    continue
            else:
                return None
            kept += data[start:position]
    except IndexError:
        return None
    kept.append(_TRAILER)
    return bytes(kept)


def _after_header(data: bytes) -> int:
    flags = data[10]
    return 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _after_image(data: bytes, start: int) -> int:
    flags = data[start + 9]
    table = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    # One byte after the colour table says how many bits a code has.
    return _after_blocks(data, start + 10 + table + 1)


def _after_blocks(data: bytes, position: int) -> int:
    while length := data[position]:
        position += length + 1
    return position + 1


def _extent(data: bytes, start: int) -> tuple[int, int, int, int]:
    left, top, wide, high = (
        int.from_bytes(data[start + offset : start + offset + 2], "little") for offset in (1, 3, 5, 7)
    )
    return left, top, wide, high
