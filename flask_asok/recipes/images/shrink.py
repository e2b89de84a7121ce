"""The pixels of one image at the sizes that are wanted: decoded once, turned, in sRGB, cropped or padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, floor, prod

from PIL import Image

from .colour import Colours, resizable, unchanged
from .errors import ImageError
from .geometry import NEIGHBOURS, Part, Plan, Size, are_near, extent, needed
from .pillow import pillow_errors
from .source import Source

SINGLE_GAP = 1.5
"""How much larger than wanted an image is before its last, careful step. More is slower and looks the same."""
CHAINED_GAP = 1.1
"""The same if several sizes follow each other: only the largest is made directly from the source."""

_TILE = 1 << 20
"""Pixels that are averaged at a time, which bounds the memory for their conversion."""
_LARGEST_BLOCK = 1 << 10
"""Sides of the pixels that become one at first: so that a tile holds a whole number of them."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_sideways(orientation: int) -> bool:
    """Return True if width and height are swapped."""
    return orientation >= 5


def stills(
    source: Source,
    plans: Sequence[Plan],
    orientation: int,
    colours: Colours,
    background: str | tuple[int, ...] | None,
) -> Iterator[tuple[int, Image.Image]]:
    """
    Yield the index of each plan and its image, the largest first, each made from the one before.

    A `background` of None leaves the bars of a padded image transparent.
    """
    order = sorted(range(len(plans)), key=lambda index: prod(plans[index].frame), reverse=True)
    # Crops that are far apart would need most of a long, thin image at the size of the largest: the original is
    # decoded for each of them.
    chains = [order] if are_near([plans[index] for index in order]) else [[index] for index in order]
    for chain in chains:
        made = _chain(source, [plans[index] for index in chain], orientation, colours)
        for index, image in zip(chain, made, strict=True):
            yield index, place(image, plans[index], background)


def _chain(source: Source, plans: Sequence[Plan], orientation: int, colours: Colours) -> Iterator[Image.Image]:
    gap = SINGLE_GAP if len(plans) == 1 else CHAINED_GAP
    frame, part = plans[0].frame, needed(plans[0], plans[1:])
    image = shrink(source, *stored(frame, part, orientation), gap)
    with pillow_errors(f"{source.name} cannot be worked on"):
        image = turn(colours.convert(image), orientation)
        if image is source.image:
            # Encoders clear `info`, which the original still needs.
            image = image.copy()
        for number, plan in enumerate(plans):
            wanted = needed(plan, plans[number + 1 :])
            image = _part_of(image, frame, part, plan.frame, wanted, gap)
            frame, part = plan.frame, wanted
            yield _part_of(image, frame, part, frame, plan.part, gap)


def stored(frame: Size, part: Part, orientation: int) -> tuple[Size, Part]:
    """Return an upright frame and a part of it as they are in an image that is not turned yet."""
    (width, height), (left, top, right, bottom) = frame, part
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    if is_sideways(orientation):
        return (height, width), (top, left, bottom, right)
    return frame, (left, top, right, bottom)


def shrink(source: Source, size: Size, part: Part, gap: float) -> Image.Image:
    """Decode `source` and return this part of it at `size`, which like the source is not turned yet."""
    image, covered = source.shrink_on_load(_least(source, size, part, gap))
    with pillow_errors(f"{source.name} cannot be worked on"):
        return reduce(image, covered, size, gap, part)


def _least(source: Source, size: Size, part: Part, gap: float) -> Size:
    """Return the size that `source` should be decoded at, at least; ImageError if that takes too much memory."""
    # Two numbers that are never smaller than the size itself, however the gap is rounded.
    width, height = (max(side, ceil(side * gap)) for side in size)
    dropped = 1 - prod(extent(part)) / prod(size)
    if size != source.image.size:
        try:
            source.check_crop((width, height), dropped)
            return width, height
        except ImageError:
            # A little less sharp, it may be within the bounds.
            pass
    source.check_crop(size, dropped)
    return size


def reduce(
    image: Image.Image, covered: tuple[float, float], size: Size, gap: float, part: Part | None = None
) -> Image.Image:
    """
    Return `image`, in whatever mode, at `size` and in a mode that can be resized; or only `part` of that.

    First whole blocks of pixels are averaged, tile by tile, so that only a tile is ever held in another mode than the
    decoder's; then Lanczos does the rest. Nothing is done with pixels that the part is not made from.
    """
    convert = resizable(image)
    factor = max(1, min(_LARGEST_BLOCK, int(min(covered[0] / size[0], covered[1] / size[1]) / gap)))
    left, top, right, bottom = part or (0, 0, *size)
    across, down = covered[0] / factor, covered[1] / factor
    # In averaged pixels.
    box = left * across / size[0], top * down / size[1], right * across / size[0], bottom * down / size[1]
    start, end = _around(box[0], box[2], across / size[0], ceil(image.width / factor))
    above, below = _around(box[1], box[3], down / size[1], ceil(image.height / factor))
    area = start * factor, above * factor, min(end * factor, image.width), min(below * factor, image.height)
    if convert is not unchanged or image.mode in ("LA", "RGBA"):
        image = _averaged(image, area, factor, convert)
    elif factor > 1:
        image = image.reduce(factor, area)
    else:
        # Not cropped, which would copy it.
        start = above = 0
    within = box[0] - start, box[1] - above, box[2] - start, box[3] - above
    return resize(image, within, (right - left, bottom - top), gap)


def _around(start: float, end: float, scale: float, length: int) -> tuple[int, int]:
    """Return where the pixels start and end that Lanczos looks at, of `length`; `scale` of them become one."""
    margin = NEIGHBOURS * max(1.0, scale)
    return max(0, floor(start - margin)), min(length, ceil(end + margin))


def _part_of(image: Image.Image, frame: Size, part: Part, size: Size, wanted: Part, gap: float) -> Image.Image:
    """Return the `wanted` part of a frame of this size, made from an image that is `part` of a larger `frame`."""
    box = tuple(wanted[side] * frame[side & 1] / size[side & 1] - part[side & 1] for side in range(4))
    return resize(image, box, extent(wanted), gap)


def resize(image: Image.Image, box: tuple[float, ...], size: Size, gap: float) -> Image.Image:
    """Return what is in this box of `image`, at `size`."""
    if image.size == size:
        return image
    # A hair's breadth beyond the edge, by rounding, is an error for Pillow.
    left, top, right, bottom = max(0.0, box[0]), max(0.0, box[1]), min(box[2], image.width), min(box[3], image.height)
    if (right - left, bottom - top) == size:
        return image.crop((round(left), round(top), round(right), round(bottom)))
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom), reducing_gap=max(gap, 1.0))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Return `image` upright."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def place(image: Image.Image, plan: Plan, background: str | tuple[int, ...] | None) -> Image.Image:
    """Return `image`, what `plan` keeps of its frame, on the canvas if there is one."""
    if plan.canvas is None:
        return image
    mode = "RGB" if background is not None and image.mode in ("L", "RGB") else "RGBA"
    canvas = Image.new(mode, plan.canvas, background or (0, 0, 0, 0))
    corner = (plan.canvas[0] - image.width) // 2, (plan.canvas[1] - image.height) // 2
    if background is None or mode == "RGB":
        canvas.paste(image.convert(mode), corner)
    else:
        canvas.alpha_composite(image.convert("RGBA"), corner)
    return canvas


def _averaged(
    image: Image.Image, area: Part, factor: int, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return this area with a pixel for each block of `factor` x `factor`."""
    left, top, right, bottom = area
    if factor == 1:
        # A crop would copy it.
        return convert(image if area == (0, 0, *image.size) else image.crop(area))
    wide = right - left if (right - left) * factor <= _TILE else _TILE // factor // factor * factor
    high = max(1, _TILE // wide // factor) * factor
    reduced: Image.Image | None = None
    for x, y in product(range(left, right, wide), range(top, bottom, high)):
        tile = convert(image.crop((x, y, min(x + wide, right), min(y + high, bottom)))).reduce(factor)
        if reduced is None:
            reduced = Image.new(tile.mode, (ceil((right - left) / factor), ceil((bottom - top) / factor)))
        reduced.paste(tile, ((x - left) // factor, (y - top) // factor))
    assert reduced is not None
    return reduced
