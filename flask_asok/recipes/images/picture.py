"""What the recipes return: Picture, and Renditions with a ready `srcset`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A file that was published, as it is now. Plain data: it can be kept and serialised."""

    path: str
    format: str
    """What the file is, whatever its name says: "jpeg", "png", "webp", "avif", "gif", "tiff" or "bmp"."""
    width: int
    height: int
    bytes: int
    changed: bool
    """Whether the bytes differ from those of the original."""
    frames: int = 1
    """1, or the number of frames of the original animation; an encoder may merge equal ones."""
    removed: tuple[str, ...] = ()
    """What the original held and the file does not: "gps", "exif", "xmp", "iptc", "comment", "gain_map"."""
    original_width: int
    """Of the upright original, like `original_height`."""
    original_height: int
    original_bytes: int
    name: str = ""
    """Name of the rendition, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renditions:
    """The images made from one, in the order in which their sizes and formats were given."""

    pictures: tuple[Picture, ...]

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, name: str) -> Picture:
        """Return the rendition of this name, in the first of its formats; KeyError where there is none."""
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
            url: what to put before each file name, or a callable that makes a URL of one:
                `lambda name: url_for("media", filename=name)`.

        Images of equal width are named once: an original narrower than two of the sizes fills both.
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
