"""The pixels of one image at the sizes that are wanted: decoded once, turned, in sRGB, cropped or padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

from PIL import Image

from .colour import Colours, resizable
from .geometry import Plan, Size
from .pillow import pillow_errors
from .source import Source

SINGLE_GAP = 1.5
"""How much larger than wanted an image is before its last, careful step. More is slower and looks the same."""
CHAINED_GAP = 1.1
"""The same if several sizes follow each other: only the largest is made directly from the source."""

_BAND = 1 << 20
"""Pixels that are averaged at a time, which bounds the memory for their conversion."""

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
    order = sorted(range(len(plans)), key=lambda index: _area(plans[index].frame), reverse=True)
    gap = SINGLE_GAP if len(plans) == 1 else CHAINED_GAP
    frame = plans[order[0]].frame
    image = shrink(source, frame[::-1] if is_sideways(orientation) else frame, gap)
    with pillow_errors(f"{source.name} cannot be worked on"):
        image = turn(colours.convert(image), orientation)
        if image is source.image:
            # Encoders clear `info`, which the original still needs.
            image = image.copy()
        for index in order:
            image = resize(image, image.size, plans[index].frame, gap)
            yield index, place(image, plans[index], background)


def shrink(source: Source, size: Size, gap: float) -> Image.Image:
    """Decode `source` and shrink it to `size`, which like the source is not turned yet."""
    # Two numbers that are never smaller than the size itself, however the gap is rounded.
    width, height = (max(side, ceil(side * gap)) for side in size)
    if size == source.image.size:
        width, height = size
    image, covered = source.shrink_on_load((width, height))
    with pillow_errors(f"{source.name} cannot be worked on"):
        return reduce(image, covered, size, gap)


def reduce(image: Image.Image, covered: tuple[float, float], size: Size, gap: float) -> Image.Image:
    """
    Return `image`, in whatever mode, at `size` and in a mode that can be resized.

    First whole blocks of pixels are averaged, band by band, so that only a band is ever held in another mode than the
    decoder's; then Lanczos does the rest.
    """
    convert = resizable(image)
    factor = int(min(covered[0] / size[0], covered[1] / size[1]) / gap)
    if factor > 1:
        image = _averaged(image, factor, convert)
        covered = covered[0] / factor, covered[1] / factor
    else:
        image = convert(image)
    return resize(image, covered, size, gap)


def resize(image: Image.Image, covered: tuple[float, float], size: Size, gap: float) -> Image.Image:
    """Return `image`, of which the original covers `covered`, at `size`."""
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, box=(0, 0, *covered), reducing_gap=max(gap, 1.0))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Return `image` upright."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def place(image: Image.Image, plan: Plan, background: str | tuple[int, ...] | None) -> Image.Image:
    """Return the upright frame of `plan` cropped or on its canvas."""
    if plan.crop is not None:
        return image.crop(plan.crop)
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


def _averaged(image: Image.Image, factor: int, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    width, height = image.size
    band = max(1, _BAND // width // factor) * factor
    if height <= band:
        # A crop would copy it.
        return convert(image).reduce(factor)
    reduced: Image.Image | None = None
    for top in range(0, height, band):
        part = convert(image.crop((0, top, width, min(top + band, height)))).reduce(factor)
        if reduced is None:
            reduced = Image.new(part.mode, (ceil(width / factor), ceil(height / factor)))
        reduced.paste(part, (0, top // factor))
    assert reduced is not None
    return reduced


def _area(size: Size) -> int:
    return size[0] * size[1]
