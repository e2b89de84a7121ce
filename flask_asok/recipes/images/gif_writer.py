"""Write a GIF frame by frame, with one frame in memory at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image, ImageChops

CLEAR = 255
"""The palette index that means transparent."""
MOST_HUNDREDTHS = 0xFFFF
_KEEP, _BACKGROUND = 1, 2


@dataclass(slots=True)
class _Pending:
    """A frame that may still come to last longer."""

    image: Image.Image
    corner: tuple[int, int]
    hundredths: int


class GifWriter:
    """Takes frames of 255 colours and `CLEAR`, and gives the file. Equal ones that follow each other become one."""

    def __init__(self, common: Image.Image, size: tuple[int, int], *, loops: int | None, is_opaque: bool) -> None:
        self._common = _Table(common)
        self._is_opaque = is_opaque
        self._seen: Image.Image | None = None
        self._pending: _Pending | None = None
        self._file = bytearray(b"GIF89a" + struct.pack("<HHBBB", *size, self._common.flags, 0, 0) + self._common.data)
        if loops is not None:
            self._file += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loops, 0)

    def add(self, image: Image.Image, hundredths: int) -> None:
        """Add a frame, an image in mode P."""
        seen = image.convert("RGB" if self._is_opaque else "RGBA")
        changed = _apart(seen, self._seen) if self._seen is not None else None
        if self._pending is not None and changed is not None and changed.getbbox() is None:
            together = self._pending.hundredths + hundredths
            if together <= MOST_HUNDREDTHS:
                self._pending.hundredths = together
                return
        self._flush()
        self._seen = seen
        box = None if changed is None else changed.getbbox() or (0, 0, 1, 1)
        if not self._is_opaque:
            # Clear areas must not show the frame before, so each frame is drawn on an empty screen.
            box = image.point([255] * CLEAR + [0], "L").getbbox() or (0, 0, 1, 1)
        part = image.crop(box)
        if self._is_opaque and changed is not None:
            part.paste(CLEAR, mask=ImageChops.invert(changed.crop(box)))
        self._pending = _Pending(part, box[:2] if box else (0, 0), hundredths)

    def finish(self) -> bytes:
        """Return the file."""
        self._flush()
        return bytes(self._file) + b";"

    def _flush(self) -> None:
        if self._pending is None:
            return
        image, (left, top) = self._pending.image, self._pending.corner
        disposal = _KEEP if self._is_opaque else _BACKGROUND
        table = self._common if self._common.is_of(image) else _Table(image)
        own = b"" if table is self._common else table.data
        clear = table.colours
        self._file += struct.pack("<BBBBHBB", 0x21, 0xF9, 4, disposal << 2 | 1, self._pending.hundredths, clear, 0)
        self._file += struct.pack("<BHHHHB", 0x2C, left, top, *image.size, table.flags if own else 0) + own
        numbers = [*range(table.colours), *[0] * (CLEAR - table.colours), clear]
        packed = image.point(numbers).tobytes("gif", ("P", 8, 0))
        self._file += b"\x08" + packed + b"\0"
        self._pending = None


def still_gif(image: Image.Image) -> bytes:
    """
    Return an image of at most 255 colours as a file; pixels of the index `CLEAR` are transparent.

    Not by Pillow, which writes other colours where the transparent index is not the one behind the last colour.
    """
    writer = GifWriter(image, image.size, loops=None, is_opaque="transparency" not in image.info)
    writer.add(image, 0)
    return writer.finish()


class _Table:
    """A colour table as the file stores it: the used colours and one for clear, padded to a power of two."""

    def __init__(self, image: Image.Image) -> None:
        self._palette = image.getpalette("RGB")
        self.colours: int = used_colours(image)
        bits = self.colours.bit_length()
        self.flags: int = 0x80 | bits - 1
        self.data: bytes = bytes(self._palette or ())[: 3 * self.colours].ljust(3 << bits, b"\0")

    def is_of(self, image: Image.Image) -> bool:
        """Return True if `image` has the same palette."""
        return image.getpalette("RGB") == self._palette


def used_colours(image: Image.Image) -> int:
    """Return how many colours of its palette, from the first, an image needs."""
    return max((index for index, count in enumerate(image.histogram()[:CLEAR]) if count), default=0) + 1


def _apart(image: Image.Image, other: Image.Image) -> Image.Image:
    """Return a mask of the pixels that differ."""
    first, *bands = ImageChops.difference(image, other).split()
    for band in bands:
        first = ImageChops.lighter(first, band)
    return first.point([0] + [255] * 255)
