"""The frames of an animated PNG, drawn one after the other, as the standard says."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image, ImageChops

_BAND = 1 << 20
"""Pixels that are laid over others at a time, for which Pillow needs twice their memory."""
_CLEAR = (0, 0, 0, 0)
_KEEP, _BACKGROUND, _PREVIOUS = range(3)
"""What happens to the area of a frame after its time."""
_OVER = 1
"""The way to draw that lets the frame before shine through."""
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_RAW = {
    (_GREY, 1): ("1", "1"),
    (_GREY, 2): ("L", "L;2"),
    (_GREY, 4): ("L", "L;4"),
    (_GREY, 8): ("L", "L"),
    (_GREY, 16): ("L", "L;16B"),
    (_RGB, 8): ("RGB", "RGB"),
    (_RGB, 16): ("RGB", "RGB;16B"),
    (_PALETTE, 1): ("P", "P;1"),
    (_PALETTE, 2): ("P", "P;2"),
    (_PALETTE, 4): ("P", "P;4"),
    (_PALETTE, 8): ("P", "P"),
    (_GREY_ALPHA, 8): ("LA", "LA"),
    (_GREY_ALPHA, 16): ("RGBA", "LA;16B"),
    (_RGBA, 8): ("RGBA", "RGBA"),
    (_RGBA, 16): ("RGBA", "RGBA;16B"),
}
"""Pillow's mode and raw mode, by colour type and bit depth."""
_LOW = {_GREY: "L;16", _RGB: "RGB;16L"}
"""How the lower halves of 16 bits are read."""

_CHUNKS, _CHUNK_BYTES = 1_000_000, 64
"""Chunks that a file may have, besides one for so many bytes: each takes its time, however small."""


@dataclass(slots=True)
class _Frame:
    """One frame, or the stand-in: its place, its time, and the pieces of its data."""

    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    duration: float = 0.0
    disposal: int = _KEEP
    blend: int = 0
    pieces: list[bytes] = field(default_factory=list)

    @property
    def box(self) -> tuple[int, int, int, int]:
        (left, top), (width, height) = self.corner, self.size
        return left, top, left + width, top + height


class _Pixels:
    """How the pixels of one file are packed: its head, its palette and its transparency."""

    def __init__(self, head: bytes) -> None:
        width, height, self.bits, self.kind, _, _, interlaced = struct.unpack(">IIBBBBB", head[:13])
        self.size: tuple[int, int] = (width, height)
        self.interlaced = int(interlaced)
        self.palette = b""
        self.transparency = b""

    def decode(self, frame: _Frame) -> Image.Image:
        """Return a frame in RGBA; any error may be raised if pixels are missing."""
        data = b"".join(frame.pieces)
        mode, raw = _RAW[self.kind, self.bits]
        image = self._read(frame, data, mode, raw)
        if mode == "P":
            image.putpalette(self.palette)
            image.info["transparency"] = self.transparency or b"\xff"
        elif self.transparency and self.kind in _LOW:
            if mode == "1":
                image = image.convert("L")
            values = struct.unpack(">" + "H" * (len(self.transparency) // 2), self.transparency)
            if self.bits == 16:
                low = _keyed(self._read(frame, data, mode, _LOW[self.kind]), [value & 255 for value in values])
                image = _keyed(image, [value >> 8 for value in values])
                # A pixel is clear if both of its halves match.
                image.putalpha(ImageChops.lighter(image.getchannel("A"), low.getchannel("A")))
            else:
                white = (1 << self.bits) - 1
                image = _keyed(image, [(value & white) * 255 // white for value in values])
        return image.convert("RGBA")

    def finish(self, canvas: Image.Image) -> Image.Image:
        """Return the canvas in the channels that Pillow reports for the file, which its colour profile is for."""
        is_grey = self.kind == _GREY or (self.kind == _GREY_ALPHA and self.bits == 8)
        return canvas.convert("LA") if is_grey else canvas

    def _read(self, frame: _Frame, data: bytes, mode: str, raw: str) -> Image.Image:
        return Image.frombytes(mode, frame.size, data, "zip", (raw, self.interlaced))


def shown(data: bytes) -> Iterator[tuple[Image.Image, float]]:
    """Yield the canvas after each frame, and the milliseconds of the frame. It is clear at first."""
    pixels, canvas, number = None, None, 0
    for pixels, frame in _frames(data):
        if frame.duration < 0:
            # The stand-in.
            continue
        if canvas is None:
            canvas = Image.new("RGBA", pixels.size, _CLEAR)
        if frame.box[2] > canvas.width or frame.box[3] > canvas.height:
            raise ValueError(f"frame {number} is larger than the image")
        kept = canvas.crop(frame.box) if frame.disposal == _PREVIOUS and number else None
        drawn = pixels.decode(frame)
        if frame.blend == _OVER:
            _lay_over(drawn, canvas, frame.corner)
        else:
            canvas.paste(drawn, frame.corner)
        yield pixels.finish(canvas), frame.duration
        number += 1
        if kept is not None:
            canvas.paste(kept, frame.corner)
        elif frame.disposal in (_BACKGROUND, _PREVIOUS):
            # There is nothing before the first one.
            canvas.paste(_CLEAR, frame.box)


def still(data: bytes) -> Image.Image:
    """Return what a decoder for plain PNG shows."""
    pixels, frame = next(_frames(data))
    return pixels.finish(pixels.decode(frame))


def _frames(data: bytes) -> Iterator[tuple[_Pixels, _Frame]]:
    """Yield the frames and, first and with a negative duration, the stand-in if there is one."""
    pixels: _Pixels | None = None
    frame: _Frame | None = None
    sequence = 0
    for kind, body in _chunks(data):
        if kind in (b"fcTL", b"fdAT"):
            if int.from_bytes(body[:4], "big") != sequence:
                raise ValueError("its frames are not in order")
            sequence += 1
        if kind == b"IHDR":
            pixels = _Pixels(body)
        elif pixels is None:
            raise ValueError("it does not begin with its head")
        elif kind == b"PLTE":
            pixels.palette = body
        elif kind == b"tRNS":
            pixels.transparency = body
        elif kind == b"fcTL":
            if frame is not None:
                yield pixels, frame
            frame = _control(body)
        elif kind == b"IDAT":
            frame = frame or _Frame(pixels.size, duration=-1.0)
            frame.pieces.append(body)
        elif kind == b"fdAT" and frame is not None:
            frame.pieces.append(body[4:])
    if pixels is not None and frame is not None:
        yield pixels, frame


def _control(body: bytes) -> _Frame:
    _, width, height, left, top, numerator, denominator, disposal, blend = struct.unpack(">IIIIIHHBB", body[:26])
    duration = 1000.0 * numerator / (denominator or 100)
    return _Frame((width, height), (left, top), duration, disposal, blend)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the body of each chunk; of one that is cut off, what there is of it."""
    position = 8
    left = _CHUNKS + len(data) // _CHUNK_BYTES
    while position + 8 <= len(data):
        left -= 1
        if left < 0:
            raise ValueError("it is in too many pieces")
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def _lay_over(image: Image.Image, canvas: Image.Image, corner: tuple[int, int]) -> None:
    width, height = image.size
    rows = max(1, _BAND // max(1, width))
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        canvas.alpha_composite(band, (corner[0], corner[1] + top))


def _keyed(image: Image.Image, values: list[int]) -> Image.Image:
    """Return `image` in RGBA, with this colour made clear."""
    image.info["transparency"] = values[0] if len(values) == 1 else tuple(values)
    return image.convert("RGBA")
