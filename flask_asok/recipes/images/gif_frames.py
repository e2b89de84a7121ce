"""The frames of a GIF, drawn on its screen one after the other, as browsers do."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from . import gif

_BAND = 1 << 20
"""Pixels that are drawn at a time: it bounds the memory for their colours."""
_BEYOND = 1 << 24
"""Pixels that a frame may have if the screen has fewer: those outside are decoded, too."""
_CLEAR = (0, 0, 0, 0)
_BACKGROUND, _PREVIOUS = 2, 3
"""What happens to the area of a frame after its time; higher numbers mean the same as the last."""


def shown(data: bytes, screen: tuple[int, int]) -> Iterator[tuple[Image.Image, float]]:
    """
    Yield the screen after each frame, and the milliseconds of the frame.

    Undrawn areas are clear, whatever background the file names. A frame is cut at the edges of the screen.
    """
    canvas = Image.new("RGBA", screen, _CLEAR)
    for block in gif.images(data):
        left, top, right, bottom = block.box
        if (right - left) * (bottom - top) > max(screen[0] * screen[1], _BEYOND):
            raise ValueError("a frame is larger than the image")
        # What is outside would be kept in memory, too.
        box = min(left, screen[0]), min(top, screen[1]), min(right, screen[0]), min(bottom, screen[1])
        kept = canvas.crop(box) if block.disposal >= _PREVIOUS else None
        frame = _decode(block)
        if frame is not None:
            _draw(frame, canvas, block.box[:2])
        yield canvas, block.hundredths * 10.0
        if block.disposal == _BACKGROUND:
            canvas.paste(_CLEAR, box)
        elif kept is not None:
            canvas.paste(kept, box[:2])


def still(data: bytes, screen: tuple[int, int]) -> Image.Image:
    """Return the screen with the first frame on it, if possible in few colours: a large one needs a quarter so."""
    blocks = gif.images(data)
    block = next(blocks)
    # Raises if the file ends in the middle of what announces a second one.
    next(blocks, None)
    frame = _decode(block)
    if frame is not None and block.box == (0, 0, *screen):
        return frame
    if frame is not None and (clear := _unused(frame)) is not None:
        canvas = Image.new(frame.mode, screen, clear)
        if frame.mode == "P":
            canvas.putpalette(frame.getpalette() or [])
        canvas.paste(frame, block.box[:2])
        canvas.info["transparency"] = clear
        return canvas
    canvas = Image.new("RGBA", screen, _CLEAR)
    if frame is not None:
        _draw(frame, canvas, block.box[:2])
    return canvas


def _decode(block: gif.ImageBlock) -> Image.Image | None:
    """Return the pixels of one block, in its palette; None if it has no pixels."""
    left, top, right, bottom = block.box
    if right == left or bottom == top:
        return None
    size, options = (right - left, bottom - top), (block.bits, block.interlaced, -1)
    frame = Image.frombytes("P" if block.palette else "L", size, block.data, "gif", options)
    if block.palette:
        frame.putpalette(block.palette)
    if block.transparency is not None:
        frame.info["transparency"] = block.transparency
    return frame


def _draw(frame: Image.Image, canvas: Image.Image, corner: tuple[int, ...]) -> None:
    width, height = frame.size
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = frame.crop((0, top, width, min(top + rows, height))).convert("RGBA")
        canvas.paste(band, (corner[0], corner[1] + top), band)


def _unused(frame: Image.Image) -> int | None:
    """Return the number that means "clear" in `frame`, or one that may come to mean it."""
    named = frame.info.get("transparency")
    if isinstance(named, int):
        return named
    counts = frame.histogram()
    return next((index for index in range(255, -1, -1) if not counts[index]), None)
