"""What the recipes return: Picture, and Renditions with a ready `srcset`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A published file. Plain data: it can be stored and serialised."""

    path: str
    format: str
    """The format of the content, whatever the name: "jpeg", "png", "webp", "avif", "gif", "tiff" or "bmp"."""
    width: int
    height: int
    bytes: int
    changed: bool
    """True if the bytes differ from those of the original."""
    frames: int = 1
    """1, or the number of frames of the original animation; an encoder may merge equal ones."""
    removed: tuple[str, ...] = ()
    """Metadata of the original that is no longer in the file: "gps", "exif", "xmp", "iptc", "comment", "gain_map", and
    "images" or a "video" behind the first image of a JPEG."""
    original_width: int
    """Width of the upright original; `original_height` is its height."""
    original_height: int
    original_bytes: int
    name: str = ""
    """Name of the rendition; empty for `resize_image`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renditions:
    """The images made from one, in the order in which their sizes and formats were given."""

    pictures: tuple[Picture, ...]

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, name: str) -> Picture:
        """Return the rendition of this name, in the first of its formats; KeyError if there is none."""
        for picture in self.pictures:
            if picture.name == name:
                return picture
        raise KeyError(name)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats there are, in the order in which they were asked for."""
        return tuple(dict.fromkeys(picture.format for picture in self.pictures))

    def srcset(self, format: str | None = None, *, url: str | Callable[[str], str] = "") -> str:
        """
        Return the `srcset` attribute of an `<img>` or `<source>`, the narrowest image first.

        Args:
            format: one of `formats`; by default the first.
            url: a prefix for each file name, or a callable that makes a URL of it:
                `lambda name: url_for("media", filename=name)`.

        Each width appears once: an original narrower than two of the sizes gives both the same width.
        """
        chosen = format or self.formats[0]
        widths: dict[int, str] = {}
        for picture in self.pictures:
            if picture.format == chosen:
                widths.setdefault(picture.width, os.path.basename(picture.path))
        if not widths:
            raise KeyError(chosen)
        make = url if callable(url) else lambda name: f"{url}{quote(name)}"
        return ", ".join(f"{make(name)} {width}w" for width, name in sorted(widths.items()))

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, for JSON or a database column."""
        from dataclasses import asdict

        return asdict(self)
