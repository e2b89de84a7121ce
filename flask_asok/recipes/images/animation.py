"""Animations: every frame, for as long as it was shown, at another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from . import colour
from .encode import save, to_gif_palette
from .formats import FORMATS
from .shrink import turn
from .source import Source, pillow_errors

_SAMPLES, _SAMPLE = 16, (96, 96)
"""Frames, and the size of each, that the common palette of a GIF is chosen from."""


class Animation(Image.Image):
    """
    A shrunk animation. It makes a frame when an encoder asks for it and holds that one only, however long it is.

    `prepare` turns a decoded frame into the one to be shown. Making it goes through all frames once: so a broken one is
    found, and it is known how long each lasts and whether any is transparent, before anything is written.
    """

    def __init__(self, source: Source, prepare: Callable[[Image.Image], Image.Image]) -> None:
        super().__init__()
        self._source = source
        self._prepare = prepare
        self._quantize: Callable[[Image.Image], Image.Image] | None = None
        self._frame = -1
        self.n_frames: int = source.frames - source.first_frame
        self.is_animated = True
        self.durations: list[float] = []
        """Milliseconds of each frame."""
        self.is_opaque: bool = True
        self._target = "RGBA"
        self._samples: list[Image.Image] = []
        self._look()

    @property
    def loop(self) -> int | None:
        """How often it is played, 0 being for ever; None where nothing says so."""
        loop = self._source.image.info.get("loop")
        return loop if isinstance(loop, int) else None

    def seek(self, frame: int) -> None:
        """Make `frame` the current one; EOFError behind the last."""
        if frame == self._frame:
            return
        if not 0 <= frame < self.n_frames:
            raise EOFError("no more frames")
        self._source.seek(frame + self._source.first_frame)
        with pillow_errors(f"{self._source.name} cannot be worked on"):
            decoded = self._source.image
            if decoded.size != self._source.screen:
                # What a frame draws beyond the screen is not seen.
                decoded = decoded.crop((0, 0, *self._source.screen))
            image = self._prepare(decoded).convert(self._target)
            if self._quantize is not None:
                image = self._quantize(image)
        # What a plugin of Pillow does when it has decoded a frame.
        self.im = image.im
        self._mode = image.mode
        self._size = image.size
        self.palette: Any = image.palette
        # Encoders write what they find here, the comments and profiles of the original among it.
        self.info: Any = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
        self._frame = frame

    def tell(self) -> int:
        """Return the number of the current frame, from 0."""
        return self._frame

    def use_common_palette(self) -> None:
        """Give all frames the same 255 colours, so that what stands still stays equal and costs nothing."""
        mosaic = Image.new("RGB", (_SAMPLE[0], _SAMPLE[1] * len(self._samples)))
        for number, sample in enumerate(self._samples):
            mosaic.paste(sample.resize(_SAMPLE), (0, _SAMPLE[1] * number))
        with pillow_errors("The animation cannot get a palette", "cannot_write"):
            palette = mosaic.quantize(255, dither=Image.Dither.NONE)
        self._quantize = lambda image: to_gif_palette(image, palette)[0]
        self._frame = -1
        self.seek(0)

    def _look(self) -> None:
        every = max(1, self.n_frames // _SAMPLES)
        for frame in range(self.n_frames):
            self.seek(frame)
            self.durations.append(float(self._source.image.info.get("duration") or 0))
            if self.is_opaque and self.getchannel("A").getextrema() != (255, 255):
                self.is_opaque = False
            if frame % every == 0:
                self._samples.append(self.convert("RGB").resize(_SAMPLE))
        if self.is_opaque:
            self._target = "RGB"
        self._frame = -1
        self.seek(0)


def encode_animation(
    source: Source,
    prepare: Callable[[Image.Image], Image.Image],
    format: str,
    *,
    quality: int | None = None,
    exif: bytes = b"",
) -> bytes:
    """Return the animation as a file. Equal frames that follow each other may become one that lasts as long."""
    animation = Animation(source, prepare)
    loop = _loop(animation.loop, source.format, format)
    options: dict[str, Any] = {"save_all": True, "duration": animation.durations}
    match format:
        case "gif":
            animation.use_common_palette()
            # Frames are whole pictures: where one leaves a place clear, the one before must go first.
            options |= {"disposal": 1, "optimize": True} if animation.is_opaque else {"disposal": 2}
            options["duration"] = [round(duration) for duration in animation.durations]
        case "webp":
            options |= {"quality": quality or FORMATS[format].quality, "method": 2}
        case "avif":
            options |= {"quality": quality or FORMATS[format].quality, "speed": 9, "max_threads": 1}
            options["duration"] = [round(duration) for duration in animation.durations]
        case _:
            # Pillow would take the first frame for a stand-in where the original had one.
            options["default_image"] = False
    if loop is not None:
        options["loop"] = loop
    if exif and format != "gif":
        options["exif"] = exif
    data = save(animation, format, options)
    if format == "webp" and not animation.is_opaque:
        data = _declare_alpha(data)
    return data


def _declare_alpha(data: bytes) -> bytes:
    """
    Set the flag for transparency in the head of a WebP.

    libwebp sets it where a stored frame has any. It stores the part of a frame that changed only; where that is opaque
    all that is transparent around it would be black.
    """
    if data[12:16] != b"VP8X":
        return data
    return data[:20] + bytes((data[20] | 0x10,)) + data[21:]


def frame_maker(
    orientation: int,
    colours: colour.Colours,
    shrink: Callable[[Image.Image], Image.Image],
    finish: Callable[[Image.Image], Image.Image],
) -> Callable[[Image.Image], Image.Image]:
    """Return what makes a shown frame of a decoded one."""
    return lambda frame: finish(turn(colours.convert(shrink(frame)), orientation))


def _loop(loop: int | None, source: str, format: str) -> int | None:
    """Translate: a GIF that says nothing plays once; the others say so with a 1."""
    if source == "gif" and loop is None:
        return None if format == "gif" else 1
    if format == "gif" and loop == 1 and source != "gif":
        return None
    return 0 if loop is None else loop
