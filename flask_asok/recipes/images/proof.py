"""What a written file must show. It is read back from the disk before it replaces another file."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from PIL import Image, ImageChops

from .errors import ImageError
from .frames import shown
from .limits import Limits
from .loops import plays
from .shrink import reduce
from .source import Source

LEAST_SIGHT = (64, 64)
"""The size at which images are compared, unless they are smaller."""
_CELL = 8
"""Width and height, in pixels, of the cells whose mean colours are compared."""
_STANDS_OUT, _IS_SEEN = 48, 12
"""Change, of 255, of a frame that must be seen to change, and of one that counts as changed."""
_LOSSLESS, _LOSSY, _POOR = 3, 12, 32
"""Largest difference, of 255, of mean colours: in a lossless format, in others, and in low quality."""
_POOR_QUALITY = 40
_NO_LIMITS = Limits(pixels=sys.maxsize, animation_pixels=sys.maxsize, memory=sys.maxsize, upload_bytes=sys.maxsize)


class Sights:
    """What is seen of an image, frame by frame, in 300 bytes for each."""

    def __init__(self, *, has_hard_edges: bool = False) -> None:
        self._has_hard_edges = has_hard_edges
        self._before: Image.Image | None = None
        self.means: list[bytes] = []
        """Mean colours and opacity of the cells of each frame."""
        self.least_changes: int = 0
        """How often a frame stands out from the one before."""
        self.seen_changes: int = 0
        """How often one is seen to differ."""
        self.changes: int = 0
        """How often one differs at all."""
        self.opacity: int = 255
        """The lowest of all."""
        self.milliseconds: float = 0.0

    def add(self, image: Image.Image, milliseconds: float = 0.0, covered: tuple[float, float] | None = None) -> None:
        """Look at the next frame; `covered` is how much of it the image fills."""
        if self._has_hard_edges and image.mode in ("LA", "RGBA"):
            # A pixel of a GIF is opaque or clear.
            image = image.copy()
            image.putalpha(image.getchannel("A").point(lambda value: 255 if value >= 128 else 0))
        wide, high = (min(most, side) for most, side in zip(LEAST_SIGHT, image.size, strict=True))
        small = reduce(image, covered or image.size, (wide, high), 1.0).convert("RGBA")
        self.opacity = min(self.opacity, small.getchannel("A").getextrema()[0])  # type: ignore[assignment]
        # Premultiplied: transparent colours do not count.
        seen = small.convert("RGBa")
        if self._before is not None:
            apart = max(band.getextrema()[1] for band in ImageChops.difference(seen, self._before).split())
            self.least_changes += apart > _STANDS_OUT  # type: ignore[operator]
            self.seen_changes += apart > _IS_SEEN  # type: ignore[operator]
            self.changes += apart > 0  # type: ignore[operator]
        self._before = seen
        cells = max(1, wide // _CELL), max(1, high // _CELL)
        self.means.append(seen.resize(cells, Image.Resampling.BOX).tobytes())
        self.milliseconds += milliseconds


@dataclass(frozen=True, slots=True)
class Meant:
    """What a file must be. Noted while the image is made: later, the memory may be as wrong as the file."""

    name: str
    format: str
    size: tuple[int, int]
    sights: Sights
    plays: int | None = None
    """How often an animation plays in all; 0 is forever."""
    quality: int | None = None
    is_lossless: bool = False

    def check(self, path: str) -> None:
        """Raise ImageError if the file at `path`, read from its first byte to its last, is something else."""
        try:
            with Source.open(path, _NO_LIMITS) as source:
                wrong = self._wrong(source)
        except ImageError as error:
            wrong = f"it cannot be read ({error})"
        if wrong:
            raise ImageError(
                f"{self.name} would have become another picture, and is unchanged. Of the {self.format} that was "
                f"written: {wrong}.",
                reason="wrong_result",
            )

    def _wrong(self, source: Source) -> str:
        if source.format != self.format:
            return f"it is {source.format}"
        source.check_whole()
        is_animated = source.is_animated()
        if is_animated and len(self.sights.means) == 1:
            return "it is an animation"
        found, size = Sights(), source.screen
        if is_animated:
            for image, milliseconds in shown(source):
                found.add(image, milliseconds)
        else:
            image, covered = source.shrink_on_load(LEAST_SIGHT, is_glance=True)
            # A TIFF is turned while it is loaded.
            size = image.size if self.format == "tiff" else size
            found.add(image, covered=covered)
        if size != self.size:
            return f"it has {size[0]} x {size[1]} pixels, not {self.size[0]} x {self.size[1]}"
        return self._looks_wrong(found) or (self._moves_wrong(found, plays(source)) if is_animated else "")

    def _looks_wrong(self, found: Sights) -> str:
        meant = self.sights
        # The steps of a fade are small, and a format with few colours takes several at once.
        if found.seen_changes < meant.least_changes or meant.changes < found.least_changes:
            return f"{found.seen_changes + 1} of its frames differ, of {meant.least_changes + 1} that should"
        if (meant.opacity == 255 and found.opacity < 250) or (meant.opacity < 64 and found.opacity >= 128):
            return "the transparent areas changed"
        bound = _LOSSLESS if self.is_lossless else _LOSSY
        if self.quality is not None and self.quality < _POOR_QUALITY:
            bound = _POOR
        if not (_follows(meant.means, found.means, bound) and _follows(found.means, meant.means, bound)):
            return "its colours changed"
        return ""

    def _moves_wrong(self, found: Sights, plays: int) -> str:
        meant = self.sights.milliseconds
        if abs(found.milliseconds - meant) > max(10.0, meant / 1000):
            return f"it lasts {found.milliseconds:.0f} ms, not {meant:.0f}"
        return f"it is played {plays} times, not {self.plays}" if plays != self.plays else ""


def _follows(frames: list[bytes], others: list[bytes], bound: float) -> bool:
    """Return True if each of `frames` is found among `others`, in their order; equal neighbours may have become one."""
    position = 0
    for frame in frames:
        while not _are_near(frame, others[position], bound):
            position += 1
            if position == len(others):
                return False
    return True


def _are_near(frame: bytes, other: bytes, bound: float) -> bool:
    if frame == other:
        return True
    return len(frame) == len(other) and sum(
        abs(one - another) for one, another in zip(frame, other, strict=True)
    ) <= bound * len(frame)
