"""Sizes and boxes, calculated before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Literal

Fit = Literal["contain", "cover", "pad"]
Size = tuple[int, int]
Box = tuple[int | None, int | None]
"""Width and height to fit into; None is no bound on that side."""
Part = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of a frame."""

NEIGHBOURS = 4
"""Pixels around a part that are looked at to make it, at the size of the result."""
_SPREAD = 4
"""How many times the largest result may be held of an image that several results are cropped from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one image becomes another: at the size `frame`, of which `crop` is kept, or which is laid on a canvas."""

    frame: Size
    crop: Part | None = None
    canvas: Size | None = None

    @property
    def size(self) -> Size:
        """Width and height of the result."""
        return self.canvas or extent(self.part)

    @property
    def part(self) -> Part:
        """What is kept of the frame."""
        return self.crop or (0, 0, *self.frame)


def make_plan(size: Size, box: Box, fit: Fit, focus: tuple[float, float]) -> Plan:
    """Plan for an upright image of `size`. It is never enlarged; a small one stays, or is cropped to shape."""
    width, height = size
    most_wide, most_high = box[0] or width, box[1] or height
    if fit == "cover":
        # An image smaller than the box gets the shape of the box, but is not enlarged.
        shrink = max(1.0, most_wide / width, most_high / height)
        wide, high = max(1, round(most_wide / shrink)), max(1, round(most_high / shrink))
        scale = max(wide / width, high / height)
        frame = max(wide, round(width * scale)), max(high, round(height * scale))
        left = _start(frame[0], wide, focus[0])
        top = _start(frame[1], high, focus[1])
        if frame == (wide, high):
            return Plan(frame)
        return Plan(frame, crop=(left, top, left + wide, top + high))
    frame = _contain(size, (most_wide, most_high))
    if fit == "pad" and frame != (most_wide, most_high):
        return Plan(frame, canvas=(most_wide, most_high))
    return Plan(frame)


def extent(part: Part) -> Size:
    """Return width and height of a part."""
    left, top, right, bottom = part
    return right - left, bottom - top


def needed(plan: Plan, smaller: Iterable[Plan] = ()) -> Part:
    """Return what of the frame of `plan` it is made from, and the `smaller` ones after it."""
    left, top, right, bottom = plan.part
    for other in smaller:
        across, down = (whole / small for whole, small in zip(plan.frame, other.frame, strict=True))
        left = min(left, floor((other.part[0] - NEIGHBOURS) * across))
        top = min(top, floor((other.part[1] - NEIGHBOURS) * down))
        right = max(right, ceil((other.part[2] + NEIGHBOURS) * across))
        bottom = max(bottom, ceil((other.part[3] + NEIGHBOURS) * down))
    return max(0, left), max(0, top), min(plan.frame[0], right), min(plan.frame[1], bottom)


def are_near(plans: Sequence[Plan]) -> bool:
    """Return True if one image, hardly larger than the largest result, shows what all `plans` keep."""
    return prod(extent(needed(plans[0], plans[1:]))) <= _SPREAD * max(prod(extent(plan.part)) for plan in plans)


def _contain(size: Size, box: Size) -> Size:
    """Return the size that `Image.thumbnail` would choose: the whole number that distorts least."""
    width, height = size
    wide, high = box
    if wide >= width and high >= height:
        return size
    aspect = width / height
    if wide / high >= aspect:
        return _nearest(high * aspect, lambda n: abs(aspect - n / high)), high
    return wide, _nearest(wide / aspect, lambda n: 0 if n == 0 else abs(aspect - wide / n))


def _nearest(number: float, error: Callable[[int], float]) -> int:
    return max(min(floor(number), ceil(number), key=error), 1)


def _start(whole: int, part: int, focus: float) -> int:
    """Return where to cut so that the focus is as near to the middle as the edges allow."""
    return min(max(round(whole * focus - part / 2), 0), whole - part)
