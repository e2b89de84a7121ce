"""From one source to files in memory: unchanged, stripped of metadata, or encoded anew."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from . import metadata
from .animation import encode_animation, frame_maker
from .colour import Colours, flatten
from .encode import encode, encode_small
from .errors import ImageError
from .formats import FORMATS
from .frames import shown
from .geometry import Part, Plan, Size, make_plan
from .loops import most_plays, plays
from .proof import LEAST_SIGHT, Meant, Sights
from .shrink import SINGLE_GAP, is_sideways, place, reduce, stills, stored
from .source import Source
from .target import Target


@dataclass(frozen=True, slots=True)
class Made:
    """One file, not written yet."""

    target: int
    """Index of the target that it is for."""
    format: str
    data: bytes
    size: tuple[int, int]
    frames: int
    meant: Meant
    """What the written file must show."""
    finer: Callable[[], bytes] | None = None
    """Encodes it with a colour for each pixel, for a pattern of pixels whose mean colour is another one without."""


class Work:
    """One source and its targets."""

    def __init__(self, source: Source, targets: Sequence[Target]) -> None:
        self.source = source
        self.targets = targets
        source.check_whole()
        # The order matters: frames and pages come before the orientation, which decodes some formats.
        self.is_animated: bool = source.is_animated()
        self.has_pages: bool = source.has_pages
        self.colours: Colours = Colours(source.colour_mode, source.profiles)
        self.orientation: int = source.orientation()
        self.found: tuple[str, ...] = metadata.found(source)
        width, height = source.image.size
        self.size: tuple[int, int] = (height, width) if is_sideways(self.orientation) else (width, height)
        self.plans: list[Plan] = [make_plan(self.size, target.size, target.fit, target.focus) for target in targets]
        self.frames: int = source.frames - source.first_frame if self.is_animated else 1

    def format(self, asked: str) -> str:
        """Return the format to write for a requested one."""
        return self.source.format if asked == "keep" else asked

    def run(self, *, loses_pages: bool) -> Iterator[Made]:
        """Yield the file of each target in each of its formats, as soon as it is ready."""
        if not loses_pages and self.has_pages:
            raise ImageError(
                f"{self.source.name} has several pages, of which only one would remain. Write it elsewhere with `to`.",
                reason="several_pages",
            )
        open_targets = set()
        for number, target in enumerate(self.targets):
            for asked in target.formats:
                made = self._untouched(number, asked)
                if made is None:
                    open_targets.add((number, asked))
                else:
                    yield made
        yield from self._animated(open_targets)
        yield from self._still(open_targets)

    def _untouched(self, number: int, asked: str) -> Made | None:
        """Return the source without its metadata, if its pixels are those of the target; otherwise None."""
        target = self.targets[number]
        if (
            self.format(asked) != self.source.format
            or self.plans[number] != Plan(self.size)
            or self.orientation != 1
            or not self.colours.is_srgb()
            or target.quality is not None
            or (self.is_animated and not target.animated)
        ):
            return None
        # Decoding it also tells that it is whole.
        sights = Sights()
        if self.is_animated:
            for image, milliseconds in shown(self.source):
                sights.add(image, milliseconds)
        else:
            image, covered = self.source.shrink_on_load(LEAST_SIGHT)
            sights.add(image, covered=covered)
        data = metadata.strip(self.source, self._exif(target))
        if data is None:
            return None
        meant = self._meant(self.source.format, self.size, sights, self.is_animated, is_lossless=True)
        return Made(number, self.source.format, data, self.size, self.frames, meant)

    def _animated(self, open_targets: set[tuple[int, str]]) -> Iterator[Made]:
        for number, asked in sorted(open_targets):
            target, plan = self.targets[number], self.plans[number]
            written = self.format(asked)
            if not (self.is_animated and target.animated and FORMATS[written].animates):
                continue
            open_targets.discard((number, asked))
            frame, part = stored(plan.frame, plan.part, self.orientation)

            def shrink(image: Image.Image, frame: Size = frame, part: Part = part) -> Image.Image:
                return reduce(image, image.size, frame, SINGLE_GAP, part)

            def finish(image: Image.Image, plan: Plan = plan, target: Target = target) -> Image.Image:
                return place(image, plan, target.background)

            make = frame_maker(self.orientation, self.colours, shrink, finish)
            data, sights = encode_animation(self.source, make, written, quality=target.quality, exif=self._exif(target))
            meant = self._meant(written, plan.size, sights, True, quality=target.quality)
            yield Made(number, written, data, plan.size, self.frames, meant)

    def _still(self, open_targets: set[tuple[int, str]]) -> Iterator[Made]:
        numbers = sorted({number for number, _ in open_targets})
        if not numbers:
            return
        background = self.targets[0].background
        plans = [self.plans[number] for number in numbers]
        for index, image in stills(self.source, plans, self.orientation, self.colours, background):
            number = numbers[index]
            target = self.targets[number]
            for asked in target.formats:
                if (number, asked) in open_targets:
                    written = self.format(asked)
                    data = self._encoded(image, target, written, self.plans[number])
                    sights = Sights(has_hard_edges=written == "gif")
                    sights.add(flatten(image, target.background or "white") if written == "jpeg" else image)
                    meant = self._meant(written, image.size, sights, False, quality=target.quality)
                    yield Made(number, written, data, image.size, 1, meant, self._finer(image, target, written))

    def _encoded(self, image: Image.Image, target: Target, format: str, plan: Plan) -> bytes:
        same = format == self.source.format
        exif = self._exif(target)
        as_it_was = same and (plan == Plan(self.size) or format == "webp")
        data = encode(
            image,
            format,
            quality=target.quality,
            background=target.background or "white",
            exif=exif,
            source=self.source if as_it_was else None,
        )
        before = self.source.stat.st_size
        if same and target.quality is None and len(data) > before:
            small = encode_small(image, format, before, background=target.background or "white", exif=exif)
            data = min(small or data, data, key=len)
        return data

    def _finer(self, image: Image.Image, target: Target, format: str) -> Callable[[], bytes] | None:
        if format not in ("jpeg", "webp", "avif"):
            return None
        return functools.partial(
            encode, image, format, quality=target.quality, background=target.background or "white",
            exif=self._exif(target), is_fine=True,
        )  # fmt: skip

    def _meant(
        self,
        format: str,
        size: tuple[int, int],
        sights: Sights,
        is_animated: bool,
        *,
        quality: int | None = None,
        is_lossless: bool = False,
    ) -> Meant:
        return Meant(
            name=self.source.name,
            format=format,
            size=size,
            sights=sights,
            plays=most_plays(plays(self.source), format) if is_animated else None,
            quality=quality,
            is_lossless=is_lossless or format in ("png", "bmp"),
        )

    def _exif(self, target: Target) -> bytes:
        return metadata.rights(self.source) if target.keep_copyright else b""
