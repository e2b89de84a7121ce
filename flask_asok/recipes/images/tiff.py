"""Grey of a TIFF that Pillow passes on as it is stored: of 12 bits, of 32 without a sign, or with zero for white."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO = 0


def most_grey(image: Image.Image) -> int:
    """Return the largest value that a pixel of an image of 16 bits can have."""
    bits = image.tag_v2.get(_BITS) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return 0xFFF if bits in (12, (12,)) else 0xFFFF


def is_unsigned(image: Image.Image) -> bool:
    """Return True if no pixel is below zero, whatever Pillow reads."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_SAMPLE_FORMAT, 1) in (1, (1,))


def is_negative(image: Image.Image) -> bool:
    """Return True if zero means white in an image of more than 8 bits; of fewer bits, Pillow knows."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
