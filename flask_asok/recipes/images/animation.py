"""Encode animations: every frame, with its duration, at another size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import ceil
from typing import Any

from PIL import Image, ImageChops

from . import avif_loops, colour
from .encode import MOST_APART, save, to_gif_palette
from .formats import FORMATS
from .frames import Shown, shown
from .gif_writer import CLEAR, GifWriter, used_colours
from .loops import most_plays, plays
from .pillow import pillow_errors
from .proof import Sights
from .shrink import turn
from .source import Source

Prepare = Callable[[Image.Image], Image.Image]

_SAMPLED, _SAMPLE = 1 << 18, 96
"""Pixels that the common palette of a GIF is chosen from, of all frames together, and the longest side of each."""
_ANOTHER_COLOUR = 56
"""How far off, of 255, a pixel of a GIF is another colour."""
_SPECK = 4
"""Pixels of another colour that go unnoticed, in a small image."""
_HELD = 4.2
"""Bytes for each pixel of all frames, which Pillow holds to write a PNG, and what goes with them."""
_LONGEST = {"png": 65_535_000.0, "webp": float((1 << 24) - 1)}
"""Milliseconds that a frame can last; one of a GIF comes from a GIF."""


class Animation(Image.Image):
    """
    What an encoder of Pillow takes for an animated image. It makes a frame when one is asked for and holds that only.

    `numbers` says which frame of the original each of its own is: one that lasts too long for a format is repeated.
    """

    def __init__(self, source: Source, prepare: Prepare, mode: str, numbers: list[int]) -> None:
        super().__init__()
        self._source = source
        self._prepare = prepare
        self._target = mode
        self._numbers = numbers
        self.n_frames: int = len(numbers)
        self.is_animated = True
        self._begin()
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Make `frame` the current one; EOFError behind the last. To go back is to begin anew."""
        if not 0 <= frame < self.n_frames:
            raise EOFError("no more frames")
        if self._number > self._numbers[frame]:
            self._begin()
        self._frame = frame
        if self._number == self._numbers[frame]:
            return
        while self._number < self._numbers[frame]:
            decoded, _ = next(self._frames)
            self._number += 1
        image = _prepared(self._source, self._prepare, decoded).convert(self._target)
        # As a plugin of Pillow does after decoding a frame.
        self.im = image.im
        self._mode = image.mode
        self._size = image.size
        # Encoders write what they find here, such as comments and profiles of the original.
        self.info: Any = {}

    def tell(self) -> int:
        """Return the number of the current frame, from 0."""
        return self._frame

    def _begin(self) -> None:
        self._frames: Iterator[Shown] = shown(self._source)
        self._number = -1


@dataclass(slots=True)
class _Look:
    """What a first pass over all frames tells, before anything is written."""

    sights: Sights
    """Compared, in the end, with those of the written file."""
    durations: list[float] = field(default_factory=list)
    is_opaque: bool = True
    pixels: int = 0
    """Of one frame of the result."""
    samples: list[Image.Image] = field(default_factory=list)


def encode_animation(
    source: Source, prepare: Prepare, format: str, *, quality: int | None = None, exif: bytes = b""
) -> tuple[bytes, Sights]:
    """
    Return the animation as a file, and what must be seen in it.

    Equal frames that follow each other may become one that lasts as long.
    """
    look = _look(source, prepare, format)
    times = most_plays(plays(source), format)
    if format == "gif":
        return _encode_gif(source, prepare, look, times), look.sights
    numbers, durations = _split(look.durations, _LONGEST.get(format))
    if format == "png":
        source.check_memory(True, ceil(look.pixels * len(numbers) * _HELD))
    options: dict[str, Any] = {"save_all": True, "duration": durations}
    if format == "png":
        # If the original had a stand-in, Pillow would write the first frame as one.
        options |= {"loop": times, "default_image": False}
    else:
        options |= {"quality": quality or FORMATS[format].quality, "duration": _whole(durations)}
        options |= {"loop": times, "method": 2} if format == "webp" else {"speed": 9, "max_threads": 1}
    if exif:
        options["exif"] = exif
    animation = Animation(source, prepare, "RGB" if look.is_opaque else "RGBA", numbers)
    data = save(animation, format, options)
    if format == "webp" and not look.is_opaque:
        data = _declare_alpha(data)
    return avif_loops.with_plays(data, times) if format == "avif" else data, look.sights


def frame_maker(orientation: int, colours: colour.Colours, shrink: Prepare, finish: Prepare) -> Prepare:
    """Return the function that turns a decoded frame into one of the result."""
    return lambda frame: finish(turn(colours.convert(shrink(frame)), orientation))


def _look(source: Source, prepare: Prepare, format: str) -> _Look:
    look = _Look(Sights(has_hard_edges=format == "gif"))
    side = max(1, min(_SAMPLE, int((_SAMPLED / source.frames) ** 0.5)))
    for decoded, duration in shown(source):
        image = _prepared(source, prepare, decoded)
        look.sights.add(image, duration)
        look.durations.append(duration)
        look.pixels = image.width * image.height
        look.is_opaque = look.is_opaque and colour.drop_idle_alpha(image).mode in ("L", "RGB")
        if format == "gif":
            look.samples.append(image.convert("RGB").resize((side, side), Image.Resampling.NEAREST))
    return look


def _prepared(source: Source, prepare: Prepare, decoded: Image.Image) -> Image.Image:
    with pillow_errors(f"{source.name} cannot be worked on"):
        return prepare(decoded)


def _split(durations: list[float], longest: float | None) -> tuple[list[int], list[float]]:
    """Return the frames to write and their durations; one too long for the format is written several times."""
    numbers, parts = [], []
    for number, duration in enumerate(durations):
        count = max(1, ceil(duration / longest)) if longest else 1
        numbers += [number] * count
        parts += [duration / count] * count
    return numbers, parts


def _whole(durations: list[float]) -> list[int]:
    """Return whole milliseconds with the right total, which rounding one by one would change."""
    ends = [round(end) for end in accumulate(durations, initial=0.0)]
    return [end - start for start, end in pairwise(ends)]


def _encode_gif(source: Source, prepare: Prepare, look: _Look, times: int) -> bytes:
    """
    Give all frames the same 255 colours, so that what stands still stays equal and costs nothing.

    A frame with colours that are not among them gets a palette of its own.
    """
    common = _common_palette(look.samples)
    writer: GifWriter | None = None
    for (decoded, _), duration in zip(shown(source), look.durations, strict=True):
        image = _prepared(source, prepare, decoded).convert("RGB" if look.is_opaque else "RGBA")
        if writer is None:
            loops = None if times == 1 else max(0, times - 1)
            writer = GifWriter(common, image.size, loops=loops, is_opaque=look.is_opaque)
        with pillow_errors("The animation cannot be written as gif", "cannot_write"):
            writer.add(_in_palette(image, common), round(duration / 10))
    assert writer is not None
    return writer.finish()


def _common_palette(samples: list[Image.Image]) -> Image.Image:
    width, height = samples[0].size
    mosaic = Image.new("RGB", (width, height * len(samples)))
    for number, sample in enumerate(samples):
        mosaic.paste(sample, (0, height * number))
    with pillow_errors("The animation cannot get a palette", "cannot_write"):
        common = mosaic.quantize(CLEAR, dither=Image.Dither.NONE)
    # Unused entries would be black, and quantize would map dark pixels to them.
    palette, colours = common.getpalette("RGB") or [], used_colours(common)
    common.putpalette(palette[: 3 * colours] + palette[:3] * (256 - colours))
    return common


def _in_palette(image: Image.Image, common: Image.Image) -> Image.Image:
    few = to_gif_palette(image, common)
    missed = _missed(image, few)
    if missed:
        own = to_gif_palette(image)
        if 2 * _missed(image, own) < missed:
            return own
    return few


def _missed(image: Image.Image, few: Image.Image) -> int:
    """
    Return how many pixels got another colour.

    One that is a little off counts where many are: in a photo a few always are, and its palette would be no better.
    """
    apart = ImageChops.difference(image.convert("RGB"), few.convert("RGB"))
    if image.mode == "RGBA":
        apart.paste(0, mask=few.convert("RGBA").getchannel("A").point(lambda value: 255 - value))
    red, green, blue = apart.split()
    counts = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    off = sum(counts[MOST_APART + 1 :])
    others, pixels = sum(counts[_ANOTHER_COLOUR:]), image.width * image.height
    if off * 100 > pixels:
        return off
    return others if others > max(_SPECK, pixels // 10_000) else 0


def _declare_alpha(data: bytes) -> bytes:
    """
    Set the flag for transparency in the head of a WebP.

    libwebp sets it where a stored frame has any. It stores the part of a frame that changed only; where that is opaque
    all that is transparent around it would be black.
    """
    if data[12:16] != b"VP8X":
        return data
    return data[:20] + bytes((data[20] | 0x10,)) + data[21:]
