"""The formats of images: what is read, what is written, and the names they go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["keep", "jpeg", "png", "webp", "avif"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFacts:
    """What is to be known of one format."""

    pillow: str
    extensions: tuple[str, ...]
    """The one that is given first."""
    animates: bool = False
    quality: int | None = None
    """Default quality, of equal look among the formats; None where there is no such choice."""


FORMATS = {
    "jpeg": FormatFacts(pillow="JPEG", extensions=(".jpg", ".jpeg", ".jpe", ".jfif"), quality=80),
    "png": FormatFacts(pillow="PNG", extensions=(".png", ".apng"), animates=True),
    "webp": FormatFacts(pillow="WEBP", extensions=(".webp",), animates=True, quality=80),
    "avif": FormatFacts(pillow="AVIF", extensions=(".avif", ".avifs"), animates=True, quality=60),
    "gif": FormatFacts(pillow="GIF", extensions=(".gif",), animates=True),
    "tiff": FormatFacts(pillow="TIFF", extensions=(".tif", ".tiff")),
    "bmp": FormatFacts(pillow="BMP", extensions=(".bmp", ".dib")),
}

READABLE = tuple(FORMATS)
UPLOADABLE = ("jpeg", "png", "webp", "avif", "gif")
"""What browsers show. Parsers for anything else need not see what a stranger sent."""

WRITABLE = ("jpeg", "png", "webp", "avif")
"""What may be asked for; any readable one is kept by "keep"."""
