"""What it costs to decode an image, as its head tells: bytes of memory, and parts that take long for their size."""

from __future__ import annotations

from math import ceil, prod
from typing import BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin

from . import avif, jpeg, tag_counts
from .errors import ImageError

_STRIP_TAGS, _TILE_TAGS = (273, 278), (324, 322, 323)
LONGEST_SIDE = 65_535
"""Pixels of a side. JPEG and GIF cannot state more; the time for a long row, and the memory for rows, have no bound."""
_BITS, _COMPRESSION, _ORIENTATION, _SAMPLES, _PLANAR = 258, 259, 274, 277, 284
PARTS = 100_000
"""Strips or tiles that a TIFF may have: a million take eight seconds."""
RUN_LENGTH_BYTES = 6_000_000
"""Bytes that a run-length BMP may have: Pillow reads a million in 0.3 seconds."""
_SCANS = 100
"""How often a progressive JPEG may go through its pixels, which takes time but hardly any bytes; ten times is usual."""
_SAMPLES_OF_SCANS = 4_000_000_000
"""Samples times scans of a JPEG: 100 scans of 64 megapixels take three seconds."""
_SAMPLE_OF_SCANS = 2.05
"""Bytes of a sample that libjpeg holds until the last scan, and what goes with it."""
_WEBP, _WEBP_ANIMATION, _GIF_ANIMATION, _PNG_ANIMATION = 16.0, 19.5, 10.0, 17.0
"""Bytes of a pixel: the canvas, the one of the frame before, a copy, and Pillow's image."""
_REFERENCES = 8
"""Frames that an AVIF may look back to."""
_COPIES = {"jpeg": 2.0, "gif": 2.5, "webp": 2.0, "avif": 3.0}
"""Copies of the file that are in memory while it is decoded; formats that are not here are read in pieces."""
_COPIES_OF_ANIMATION = {"gif": 2.5, "webp": 4.0, "avif": 4.0, "png": 3.0}
_COPIES_TO_STRIP = 4
"""Further copies while the metadata is removed without encoding it anew."""
_PIXEL_BYTES = 8
"""Bytes that a pixel of a file may have: 16 bits in four channels."""


def memory(
    image: Image.Image, format: str, is_animated: bool, *, layout: jpeg.Layout | None, boxes: avif.Head | None
) -> int:
    """Return the bytes that the decoder and its result will need."""
    pixels = prod(image.size)
    if layout is not None:
        # A fraction of it is decoded; only what comes in several scans is held as a whole.
        return ceil(layout.samples * _SAMPLE_OF_SCANS) if layout.in_scans else 0
    own = _depth(image.mode)
    match format:
        case "webp":
            return ceil(pixels * (_WEBP_ANIMATION if is_animated else _WEBP))
        case "avif" if boxes is not None:
            planes = boxes.sample_bytes * (boxes.planes + boxes.has_alpha)
            # Pillow's copies; of an animation there are those of the frame before, too.
            copies = (len(image.getbands()) + own) * (2 if is_animated else 1)
            return ceil(max(pixels, boxes.coded_pixels) * (planes * (1 + _REFERENCES * is_animated) + copies) * 1.1)
        case "gif" if is_animated:
            return ceil(pixels * _GIF_ANIMATION)
        case "png" if is_animated:
            return ceil(pixels * _PNG_ANIMATION)
        case "bmp" if is_run_length(image):
            return pixels * (own + 2)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        turned = int(image.tag_v2.get(_ORIENTATION, 1)) in range(2, 9)
        return pixels * own * (2 if turned else 1) + _part(image)
    return pixels * own


def scaled(image: Image.Image, eighths: int) -> int:
    """Return the bytes of a JPEG that is decoded at this fraction of its size."""
    return prod(ceil(side * eighths / 8) for side in image.size) * _depth(image.mode)


def check_bytes(name: str, most: int, size: int, format: str, *, is_animated: bool = False, other: int = 0) -> None:
    """Raise ImageError if the copies of a file of `size` bytes take too much memory, beside `other` bytes."""
    copies = (_COPIES_OF_ANIMATION if is_animated else _COPIES).get(format, 0.0)
    needed = ceil(size * copies) + other
    if needed > most:
        raise ImageError(
            f"{name} has {size:,} bytes, of which copies are held: it needs {needed >> 20:,} MiB of memory; "
            f"{most >> 20:,} are accepted. Save it in fewer bytes, or set ASOK_IMAGE_MAX_MEMORY to accept more.",
            reason="too_many_bytes",
        )


def check_file(name: str, file: BinaryIO, most: int, size: int, format: str) -> None:
    """Raise ImageError if it takes too much memory to open a file that claims to be in this format."""
    check_bytes(name, most, size, format)
    if (count := tag_counts.longest(file)) > tag_counts.MOST:
        raise ImageError(
            f"{name} has {count:,} numbers in one list of its head, such as that of strips; {tag_counts.MOST:,} are "
            "accepted.",
            reason="too_many_pixels",
        )


def memory_to_strip(image: Image.Image, size: int) -> int:
    """Return what removing the metadata takes for those bytes of a file that are not due to the result's pixels."""
    return _COPIES_TO_STRIP * max(0, size - _PIXEL_BYTES * prod(image.size))


def check(name: str, most: int, needed: int, held: int = 0) -> None:
    """Raise ImageError if `needed` bytes, with those that are `held` for the result, are too many."""
    if needed + held > most:
        what = "written: an encoder holds all frames of a PNG" if held else "decoded"
        raise ImageError(
            f"{name} needs {needed + held >> 20:,} MiB of memory to be {what}; {most >> 20:,} are accepted. Set "
            "ASOK_IMAGE_MAX_MEMORY to accept more.",
            reason="too_many_pixels",
        )


def check_parts(name: str, image: Image.Image, size: int, pixels: int) -> None:
    """Raise ImageError if a file of `size` bytes is structured in a way that takes long."""
    if max(image.size) > LONGEST_SIDE:
        raise ImageError(
            f"{name} is {image.width:,} x {image.height:,} pixels; no side may have more than {LONGEST_SIDE:,}. Cut it "
            "into several images, or make it smaller.",
            reason="too_many_pixels",
        )
    if is_run_length(image) and size > RUN_LENGTH_BYTES:
        raise ImageError(
            f"{name} is a BMP in runs of more than {RUN_LENGTH_BYTES:,} bytes, which takes long. Save it without "
            "compression, or as a PNG.",
            reason="unsupported",
        )
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    parts = max(_count(image, _STRIP_TAGS[0]), _count(image, _TILE_TAGS[0]))
    if parts > PARTS:
        raise too_many_pixels(name, f"they are in {parts:,} parts; {PARTS:,} are accepted")
    width, height = (int(image.tag_v2.get(tag, 1)) for tag in _TILE_TAGS[1:])
    # A tile is decoded as a whole, however little of it is in the image.
    if width * height > pixels:
        raise too_many_pixels(name, f"tiles of {width} x {height}; {pixels:,} are accepted")


def check_scans(name: str, layout: jpeg.Layout, data: bytes) -> None:
    """Raise ImageError if a JPEG goes through its pixels too often."""
    most = min(_SCANS, _SAMPLES_OF_SCANS // max(1, layout.samples))
    if jpeg.scans(data, most) > most:
        raise ImageError(f"{name} goes through its pixels more than {most} times.", reason="damaged")


def too_many_pixels(name: str, text: str) -> ImageError:
    """Return the error that says what to set."""
    return ImageError(
        f"{name} has too many pixels: {text}. Set ASOK_IMAGE_MAX_PIXELS or ASOK_IMAGE_MAX_ANIMATION_PIXELS to accept "
        "more.",
        reason="too_many_pixels",
    )


def is_run_length(image: Image.Image) -> bool:
    """Return True if this is a run-length BMP."""
    return isinstance(image, ImageFile.ImageFile) and any(tile.codec_name == "bmp_rle" for tile in image.tile)


def _part(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return the unpacked bytes of a strip or tile, which is decoded as a whole."""
    tags = image.tag_v2
    if int(tags.get(_COMPRESSION, 1)) == 1:
        return 0
    width, height = image.size
    if _TILE_TAGS[0] in tags:
        width, height = (int(tags.get(tag, 1)) for tag in _TILE_TAGS[1:])
    else:
        height = min(height, int(tags.get(_STRIP_TAGS[1], height)))
    bits = tags.get(_BITS, 1)
    samples = 1 if int(tags.get(_PLANAR, 1)) == 2 else int(tags.get(_SAMPLES, 1))
    deep = max(bits) if isinstance(bits, tuple) else int(bits)
    return width * height * samples * deep // 8


def _count(image: TiffImagePlugin.TiffImageFile, tag: int) -> int:
    value = image.tag_v2.get(tag, ())
    return len(value) if isinstance(value, tuple) else 1


def _depth(mode: str) -> int:
    """Return the bytes that a pixel of this mode has in Pillow."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4
