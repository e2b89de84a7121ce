"""How often an animation is played: the formats count differently."""

from __future__ import annotations

from . import avif_loops, gif
from .pillow import pillow_errors
from .source import Source

_MOST = {"gif": 0xFFFF + 1, "webp": 0xFFFF, "png": 0x7FFFFFFF, "avif": 0x7FFFFFFF}
"""The largest count that each format can state."""


def plays(source: Source) -> int:
    """Return how often an animation plays in all; 0 is forever."""
    match source.format:
        case "gif":
            # A GIF says how often it is repeated; one that says nothing plays once.
            loops = gif.loops(source.data())
            return 1 if loops is None else loops + 1 if loops else 0
        case "avif":
            with pillow_errors(f"{source.name} is damaged"):
                return avif_loops.plays(source.data())
        case _:
            loop = source.image.info.get("loop")
            return loop if isinstance(loop, int) else 0


def most_plays(plays: int, format: str) -> int:
    """Return how often it plays in `format`: as often as before, or as the format can state."""
    return min(plays, _MOST[format])
