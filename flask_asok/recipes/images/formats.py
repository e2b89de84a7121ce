"""The formats of images: what is read, what is written, and the names they go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["keep", "jpeg", "png", "webp", "avif"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFacts:
    """Facts about one format."""

    pillow: str
    extensions: tuple[str, ...]
    """The one that is given first."""
    animates: bool = False
    quality: int | None = None
    """Default quality, of equal look among the formats; None if the format has no quality."""


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
"""Formats that browsers show. No other parser sees an uploaded file."""

WRITABLE = ("jpeg", "png", "webp", "avif")
"""Formats that may be requested; "keep" keeps any readable one."""
