"""The frames of an animation as they are shown, from the first to the last."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

from PIL import Image

from . import apng, gif_frames
from .errors import ImageError
from .formats import FORMATS
from .pillow import pillow_errors
from .source import Source

Shown = tuple[Image.Image, float]
"""An image, valid until the next one is asked for, and its milliseconds."""


def shown(source: Source) -> Iterator[Shown]:
    """
    Yield each frame of an animation; ImageError if one is broken or missing.

    Every pass begins with a fresh decoder and goes forward only: what Pillow shows after it went back to the start may
    be something else. GIF and PNG are drawn here, as browsers do, since Pillow forgets palettes and transparency.
    """
    count = source.frames - source.first_frame
    number = 0
    with pillow_errors(f"{source.name} is damaged"):
        drawn = _drawn(source)
        for frame in islice(drawn, count):
            number += 1
            yield frame
        if number < count:
            raise ImageError(f"{source.name} is damaged: it ends after {number} of {count} frames.")
        # Raises if the file is cut off behind the last frame.
        next(drawn, None)


def _drawn(source: Source) -> Iterator[Shown]:
    if source.format == "gif":
        yield from gif_frames.shown(source.data(), source.screen)
    elif source.format == "png":
        yield from apng.shown(source.data())
    else:
        with Image.open(io.BytesIO(source.data()), formats=(FORMATS[source.format].pillow,)) as image:
            for number in range(source.frames):
                image.seek(number)
                image.load()
                yield image, float(image.info.get("duration") or 0)
