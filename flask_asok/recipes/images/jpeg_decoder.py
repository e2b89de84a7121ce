"""
Decode a JPEG from memory at a fraction of its size.

The decoder is Pillow's, called directly: `Image.draft` knows no 3/8, and `Image.load` copies the file piece by piece.
The arguments of the decoder are private to Pillow; a test names the versions that they were checked with.
"""

from __future__ import annotations

from math import ceil

from PIL import Image, ImageFile

from . import jpeg
from .jpeg import END, Layout

_DENOMINATORS = {1: 8, 2: 4, 3: 3, 4: 2, 8: 1}
"""The eighths to which libjpeg shrinks while it decodes, and the denominator that selects them in Pillow."""
_LARGEST_CHECKED = 12_000_000
"""Pixels that are decoded at most to find out whether all of them are there."""
_FINE = 32
"""Largest error of mean colours at a glance, in eighths of a level of 255."""
_INVENTED = {127, 128}
"""Values of missing blocks, in any channel."""
_FILLING = b"\x55" * 4096


def eighths_for(size: tuple[int, int], least: tuple[int, int]) -> int:
    """Return the eighths at which an image of `size` is just no smaller than `least`."""
    for eighths in _DENOMINATORS:
        if all(side * eighths >= 8 * small for side, small in zip(size, least, strict=True)):
            return eighths
    return 8


def has_fine_means(image: Image.Image) -> bool:
    """Return True if a first scan, of half the precision, has nearly the mean colours of the image."""
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    return all(table[0] <= _FINE for table in tables.values())


def decode(image: Image.Image, data: bytes, eighths: int) -> Image.Image:
    """Decode `data`, the file of which `image` is the head, not loaded yet. Any error may come out of Pillow."""
    assert isinstance(image, ImageFile.ImageFile)
    [tile] = image.tile
    assert isinstance(tile.args, tuple)
    width, height = (ceil(side * eighths / 8) for side in image.size)
    # The arguments that `draft` changes: the denominator, and 0 for the quality that must not be traded for speed.
    arguments = *tile.args, _DENOMINATORS[eighths], 0
    return Image.frombytes(image.mode, (width, height), data, tile.codec_name, *arguments)


def check_end(image: Image.Image, layout: Layout, data: bytes) -> None:
    """
    Raise OSError if pixels are missing. `data` has the end mark that the file of `image` has lost.

    A baseline JPEG is decoded at an eighth, where each block counts; a progressive one as a whole, unless it is large.
    """
    if layout.in_scans and not jpeg.has_all_scans(data):
        # Cut between two scans nothing tells in the pixels that the finer ones are missing.
        raise OSError("it is cut off")
    eighths = 8 if layout.in_scans else 1
    width, height = (ceil(side * eighths / 8) for side in image.size)
    if width * height > _LARGEST_CHECKED:
        raise OSError("it is cut off")
    _compare_endings(image, data, len(data) - len(END), eighths)


def check_pixels(image: Image.Image, data: bytes, decoded: Image.Image) -> None:
    """
    Raise OSError if `decoded`, made from `data`, ends with pixels that the decoder invented, in spite of an end mark.

    Missing blocks become middle grey, so an image whose last pixel has another colour costs nothing here. Scans that
    would only have refined a progressive JPEG are not missed.
    """
    last = decoded.crop((decoded.width - 1, decoded.height - 1, decoded.width, decoded.height)).tobytes()
    if _INVENTED.issuperset(last) and (end := jpeg.end_of(data)) is not None:
        _compare_endings(image, data, end, 1)


def _compare_endings(image: Image.Image, data: bytes, end: int, eighths: int) -> None:
    """Decode with more data before `end`, and without: the results differ if the decoder lacks data there."""
    one, other = (decode(image, data[:end] + more + END, eighths) for more in (b"", _FILLING))
    if one != other:
        raise OSError("it is cut off")
