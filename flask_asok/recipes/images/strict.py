"""
Decode with Pillow as if `ImageFile.LOAD_TRUNCATED_IMAGES` were False, whatever the application has set.

With that switch Pillow takes half an image for a whole one, its lower half black. It belongs to the whole process and
is read in the middle of decoding, so it is neither changed nor looked at here: an application's threads keep what they
asked for. What Pillow ignores then, that the data ends or that a decoder complains, is raised from within.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image, ImageFile

_core: Any = Image.core  # type: ignore[attr-defined]

_CODEC = "asok_strict"
_FORMATS, _DECODERS = ("PNG", "TIFF", "BMP"), ("raw", "zip")
"""Formats and decoders that Pillow feeds piece by piece. Other decoders ignore the switch."""


class _StrictDecoder(ImageFile.PyDecoder):
    """Passes everything to a decoder of Pillow, and raises its errors."""

    def init(self, args: tuple[Any, ...]) -> None:
        name, *rest = args
        self._decoder = getattr(_core, f"{name}_decoder")(self.mode, *rest)

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        self._decoder.setimage(im, extents)

    def decode(self, buffer: Any) -> tuple[int, int]:
        used, error = self._decoder.decode(buffer)
        if error < 0:
            raise OSError("its data is broken")
        return used, error

    def cleanup(self) -> None:
        self._decoder.cleanup()


def load(image: Image.Image) -> None:
    """Decode the pixels of `image`; OSError if some are missing."""
    if isinstance(image, ImageFile.ImageFile) and _is_fed(image):
        _make_strict(image)
    image.load()


def _is_fed(image: ImageFile.ImageFile) -> bool:
    return image.format in _FORMATS and all(tile.codec_name in _DECODERS for tile in image.tile)


def _make_strict(image: ImageFile.ImageFile) -> None:
    Image.register_decoder(_CODEC, _StrictDecoder)
    image.tile = [tile._replace(codec_name=_CODEC, args=_arguments(tile)) for tile in image.tile]
    read = getattr(image, "load_read", image.fp.read if image.fp else None)

    def load_read(size: int) -> bytes:
        try:
            piece: bytes = read(size)  # type: ignore[misc]
        except (IndexError, struct.error):
            # Pillow, too, takes these for the end of the data.
            piece = b""
        if not piece:
            raise OSError("it is cut off")
        return piece

    # Pillow calls this instead of reading the file itself.
    image.load_read = load_read  # type: ignore[attr-defined]


def _arguments(tile: Any) -> tuple[Any, ...]:
    args = tile.args if isinstance(tile.args, tuple) else () if tile.args is None else (tile.args,)
    return tile.codec_name, *args
