"""The options of a call, checked before Pillow is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...validate import flag, one_of
from .formats import FORMATS, WRITABLE
from .geometry import Box, Fit

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z|#[0-9a-fA-F]{3}\Z|[a-zA-Z]+\Z")
_fit = one_of("contain", "cover", "pad")
LONGEST_SIDE = 16_383
"""The longest side, in pixels, that WebP can have; no image on a page is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One size of an image, in one format or several."""

    size: Box
    fit: Fit
    focus: tuple[float, float]
    formats: tuple[str, ...]
    quality: int | None
    background: str | tuple[int, ...] | None
    animated: bool
    keep_copyright: bool
    name: str = ""


def make_target(
    size: Any,
    *,
    fit: Any,
    focus: Any,
    formats: Iterable[Any],
    quality: Any,
    background: Any,
    animated: Any,
    keep_copyright: Any,
    name: str = "",
) -> Target:
    """Check the options; TypeError or ValueError names the invalid one, and says what is valid."""
    _fit("fit", fit)
    box = _box(size)
    if fit != "contain" and None in box:
        raise ValueError(f"fit={fit!r} needs a width and a height, not {size!r}.")
    return Target(
        size=box,
        fit=fit,
        focus=_focus(focus),
        formats=_formats(formats),
        quality=_quality(quality),
        background=_background(background),
        animated=flag("animated", animated),
        keep_copyright=flag("keep_copyright", keep_copyright),
        name=name,
    )


def checked_sizes(value: Any) -> dict[str, Any]:
    """Return the sizes of renditions by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f'sizes must map names to sizes, {{"thumb": 200}}, not {value!r}.')
    if not value:
        raise ValueError("sizes must hold at least one size.")
    for name in value:
        if not isinstance(name, str) or not _NAME.match(name):
            raise ValueError(f"The name of a size becomes part of a file name: letters, digits, - and _, not {name!r}.")
    if len({name.lower() for name in value}) < len(value):
        raise ValueError(
            f"The names of sizes must differ in more than case, which some disks ignore: {', '.join(value)}."
        )
    return dict(value)


def checked_path(name: str, value: Any) -> str:
    """Return the path as absolute text: a worker may run in another folder."""
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be text or a pathlib.Path, not bytes.")
    if not path or "\0" in path:
        raise ValueError(f"{name} must be a path, not {path!r}.")
    # A trailing slash says that it is a folder; abspath would remove it.
    slash = os.sep if path.endswith(("/", os.sep)) else ""
    return os.path.abspath(path).rstrip(os.sep) + slash if slash else os.path.abspath(path)


def extension_fits(path: str, format: str) -> bool:
    """Return True if a file in this format may have this name."""
    return os.path.splitext(path)[1].lower() in FORMATS[format].extensions


def _box(size: Any) -> Box:
    if isinstance(size, int) and not isinstance(size, bool):
        size = (size, size)
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"size must be a number or a (width, height), not {size!r}.")
    for side in size:
        if side is not None and (isinstance(side, bool) or not isinstance(side, int)):
            raise TypeError(f"size must be in whole pixels, or None for no bound, not {size!r}.")
        if side is not None and not 1 <= side <= LONGEST_SIDE:
            raise ValueError(f"size must be from 1 to {LONGEST_SIDE:,} pixels, not {size!r}.")
    return size[0], size[1]


def _focus(focus: Any) -> tuple[float, float]:
    if not isinstance(focus, (tuple, list)) or len(focus) != 2:
        raise TypeError(f"focus must be (x, y), each from 0 to 1, not {focus!r}.")
    for part in focus:
        if isinstance(part, bool) or not isinstance(part, (int, float)):
            raise TypeError(f"focus must be (x, y), each from 0 to 1, not {focus!r}.")
        if not 0 <= part <= 1:
            raise ValueError(f"focus must be (x, y), each from 0 to 1, not {focus!r}.")
    return float(focus[0]), float(focus[1])


def _formats(formats: Iterable[Any]) -> tuple[str, ...]:
    chosen = (formats,) if isinstance(formats, str) else tuple(formats)
    if not chosen:
        raise ValueError("formats must hold at least one format.")
    for name in chosen:
        if name != "keep" and name not in WRITABLE:
            raise ValueError(f'format must be "keep" or one of {", ".join(WRITABLE)}, not {name!r}.')
    return tuple(dict.fromkeys(chosen))


def _quality(quality: Any) -> int | None:
    if quality is None:
        return None
    if isinstance(quality, bool) or not isinstance(quality, int):
        raise TypeError(f"quality must be a whole number from 1 to 100, not {quality!r}.")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, not {quality}.")
    return quality


def _background(background: Any) -> str | tuple[int, ...] | None:
    if background is None:
        return None
    if isinstance(background, str):
        if not _COLOUR.match(background):
            raise ValueError(f'background must be a colour such as "white" or "#f5f5f5", not {background!r}.')
        from PIL import ImageColor

        return ImageColor.getrgb(background)[:3]
    is_triple = isinstance(background, (tuple, list)) and len(background) == 3
    if is_triple and all(type(part) is int and 0 <= part <= 255 for part in background):
        return tuple(background)
    raise ValueError(f'background must be a colour such as "white" or (255, 255, 255), not {background!r}.')
