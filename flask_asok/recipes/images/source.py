"""An image on disk, opened with care: its format, size and orientation, and its pixels on demand."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

from PIL import (
    AvifImagePlugin,  # noqa: F401  (imported so that it is registered: Pillow imports these three on demand only)
    Image,
    ImageFile,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from . import apng, avif, cost, gif, gif_frames, jpeg, jpeg_decoder, opening, png, profile, strict, tag_counts
from .errors import ImageError
from .formats import FORMATS, READABLE
from .geometry import Size
from .limits import Limits
from .opening import File, open_regular
from .pillow import pillow_errors

ORIENTATION = 0x0112
GPS = 0x8825

_LEAST_FRAME = 40_000
"""Pixels that a frame counts as at least: 40,000 frames of one pixel take half a minute."""
_HEAD_PIECES, _PIECES, _PIECE_BYTES = 10_000, 1_000_000, 64
"""Pieces that a head may have, and a whole file, besides one for so many bytes: two million take ten seconds."""


class Source:
    """One image, open from `Source.open(path)` to the end of its `with` block. Not for several threads at once."""

    def __init__(self, file: File, path: str, formats: tuple[str, ...], limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.file = file
        self.stat: os.stat_result = os.fstat(file.fileno())
        self._claim: str = opening.claim(file)
        cost.check_file(self.name, file, limits.memory, self.stat.st_size, self._claim)
        if self._claim == "jpeg" in formats and (kind := jpeg.unread_kind(file)):
            why = f"{self.name} is a {kind} JPEG, which is not supported. Export it as an ordinary one."
            raise ImageError(why, reason="unsupported")
        self._end: bytes = jpeg.missing_end(file)
        """What `data()` adds to a JPEG that ends without it."""
        self._pieces: int = _PIECES + self.stat.st_size // _PIECE_BYTES
        with pillow_errors(f"{self.name} cannot be opened"):
            self.png: png.Head | None = png.read(file, _HEAD_PIECES, self._pieces)
        self._is_misread: bool = self.png is not None and self.png.is_misread
        self._shown: File = self._for_pillow()
        self.image: Image.Image = self._identify(formats)
        self.format: str = {"MPO": "jpeg"}.get(str(self.image.format), str(self.image.format).lower())
        """"jpeg", "png" ...; a multi-image JPEG is a JPEG."""
        self._check_pixels(1)
        with pillow_errors(f"{self.name} cannot be opened"):
            cost.check_parts(self.name, self.image, self.stat.st_size, self.limits.pixels)
        self._layout: jpeg.Layout | None = jpeg.layout(file) if self.format == "jpeg" else None
        self.avif: avif.Head | None = avif.read(self.data()) if self.format == "avif" else None
        self.check_memory(self._is_misread)
        self.profiles: list[bytes] = self._profiles()
        """Profiles of its colours; the first that can be used counts."""
        self.screen: Size = self.image.size
        """Width and height as the header says, not turned yet. A frame of a GIF may say more."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str, limits: Limits, formats: tuple[str, ...] = READABLE) -> Iterator[Source]:
        """
        Open the file at `path`, whose content must be one of `formats`. Nothing is decoded yet.

        Raises FileNotFoundError or another OSError if it cannot be read, ImageError if it is not a regular file, not
        an image, or has more pixels than `limits` allows.
        """
        with open_regular(path) as file:
            source = cls(file, path, formats, limits)
            try:
                yield source
            finally:
                source.image.close()

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def data(self) -> bytes:
        """Return the whole file; a JPEG that has lost its end mark gets one."""
        self.file.seek(0)
        data = self.file.read()
        # Half of the end mark may be there.
        return data.rstrip(b"\xff") + self._end if self._end else data

    def check_whole(self) -> None:
        """Raise ImageError if a JPEG without its end mark lacks pixels. Other damage is found while decoding."""
        if self._end and self._layout is not None:
            with pillow_errors(f"{self.name} is damaged"):
                jpeg_decoder.check_end(self.image, self._layout, self.data())

    def is_animated(self) -> bool:
        """Return True if it has several frames; ImageError if they are too many. Pages are not frames."""
        if self.format not in ("gif", "png", "webp", "avif"):
            return False
        if self.format == "gif":
            # Counted here: Pillow's count has no bound, and is made only when it is asked for.
            position = self.file.tell()
            data = self.data()
            self.file.seek(position)
            most = self.limits.animation_pixels
            if gif.drawn_pixels(data, most, _LEAST_FRAME) > most:
                raise cost.too_many_pixels(
                    self.name, f"more than {most:,} in all of its frames, counted as {_LEAST_FRAME:,} or more"
                )
        with pillow_errors(f"The frames of {self.name} cannot be counted"), self._patience():
            frames: int = getattr(self.image, "n_frames", 1)
        if frames > 1 and self.is_cropped:
            raise ImageError(
                f"{self.name} is an animation of which a part is cropped away, which is not supported. Export it "
                "without the hidden part.",
                reason="unsupported",
            )
        if frames > 1:
            self._check_pixels(frames)
            self.check_memory(True)
        return frames > 1

    @property
    def frames(self) -> int:
        """The number of its frames or pages, the stand-in of `first_frame` included."""
        return getattr(self.image, "n_frames", 1)

    @property
    def first_frame(self) -> int:
        """0; 1 for an animated PNG that begins with a stand-in for programs without animations."""
        return 1 if getattr(self.image, "default_image", False) else 0

    @functools.cached_property
    def has_pages(self) -> bool:
        """Return True if it is a document of several pages. Ask before it is decoded."""
        if self.format != "tiff":
            return False
        with pillow_errors(f"The pages of {self.name} cannot be counted"):
            # Not by counting them, which takes minutes for some files.
            try:
                self.image.seek(1)
            except EOFError:
                return False
            self.image.seek(0)
            return True

    def orientation(self) -> int:
        """
        Return 1 to 8, how the pixels are still to be turned: what browsers respect, EXIF or, in an AVIF, irot and imir.

        XMP is ignored: programs that have turned the pixels leave the old orientation there.
        """
        if self.format in ("tiff", "png") or self.is_cropped:
            # Pillow turns a TIFF itself while it loads; the EXIF data of a PNG may come after its pixels.
            self.load()
        if self.format == "tiff":
            return 1
        # Not `getexif`, which looks into XMP as well. For an AVIF, Pillow puts what the container says in here.
        exif, data = Image.Exif(), self.image.info.get("exif") or b""
        try:
            exif.load(b"" if tag_counts.has_long_tag(data) else data)
            found = exif.get(ORIENTATION, 1)
        except Exception:
            # Unreadable: the pixels may still be fine.
            return 1
        return found if isinstance(found, int) and 1 <= found <= 8 else 1

    def load(self) -> None:
        """Decode the pixels; ImageError if they are cut off or broken."""
        # In a TIFF, Pillow would follow an orientation that only XMP states.
        xmp = self.image.info.pop("xmp", None) if self.format == "tiff" else None
        with pillow_errors(f"{self.name} is damaged"), self._patience():
            strict.load(self.image)
        if xmp is not None:
            self.image.info["xmp"] = xmp
        if self.avif is not None and self.avif.crop is not None and self.image.size == self.screen:
            # Pillow leaves the hidden part in.
            self.image = self.image.crop(self.avif.crop)

    @property
    def colour_mode(self) -> str:
        """The mode that its profiles are for; Pillow reads some grey as RGB."""
        return "L" if self.png is not None and self.png.is_grey else self.image.mode

    @property
    def is_cropped(self) -> bool:
        """Return True if the file holds more than it shows."""
        return self.avif is not None and self.avif.crop is not None

    def shrink_on_load(self, size: Size, *, is_glance: bool = False) -> tuple[Image.Image, tuple[float, float]]:
        """
        Return the pixels, and the width and height in them that the original covers.

        A JPEG is decoded at 1/8, 1/4, 3/8 or 1/2 of its size where that is no smaller than `size`; its last column and
        row may be covered in part only. Other formats are loaded whole. Of an animation it is the first frame, or the
        stand-in that a PNG has for programs without animations.

        With `is_glance`, only the mean colours count, and that the file has its end: of a progressive JPEG, the first
        scan is decoded.
        """
        image = self.image
        if self.format == "jpeg" and isinstance(image, ImageFile.ImageFile) and image.tile:
            data = self.data()
            eighths = jpeg_decoder.eighths_for(image.size, size)
            if self._layout is not None and self._layout.in_scans:
                # If a block of 8 x 8 becomes one pixel, the first scan is enough.
                is_coarse = is_glance and eighths == 1 and jpeg_decoder.has_fine_means(image)
                first_scan = jpeg.first_scan(data, len(image.getbands())) if is_coarse else None
                if first_scan is None:
                    cost.check_scans(self.name, self._layout, data)
                data = first_scan or data
            with pillow_errors(f"{self.name} is damaged"):
                decoded = jpeg_decoder.decode(image, data, eighths)
                if not is_glance:
                    jpeg_decoder.check_pixels(image, data, decoded)
            return decoded, (image.width * eighths / 8, image.height * eighths / 8)
        if self.format == "gif" or self._is_misread or (self.format == "png" and self.frames > 1):
            # Not by Pillow, which has seen other frames meanwhile, and leaves no area clear that no frame draws.
            with pillow_errors(f"{self.name} is damaged"):
                first = gif_frames.still(self.data(), self.screen) if self.format == "gif" else apng.still(self.data())
            return first, first.size
        self.load()
        # Only now: a TIFF is turned while it is loaded.
        return image, image.size

    def _for_pillow(self) -> File:
        """Return the file without the parts that Pillow would refuse."""
        if self._end:
            return File(opening.in_memory(self.data()))
        if self.png is not None and self.png.hidden:
            return File(png.without(self.file, self.png.hidden))
        return self.file

    def _profiles(self) -> list[bytes]:
        icc: bytes | None = self.image.info.get("icc_profile") or None
        points = None
        if self.png is not None and self.png.code_points is not None:
            points = self.png.code_points[:2]
        elif self.avif is not None and not icc:
            points = self.avif.code_points
        if points is not None and (name := profile.HDR_TRANSFERS.get(points[1])):
            raise ImageError(
                f"{self.name} is brighter than sRGB can be ({name}). Export it with standard dynamic range.",
                reason="unsupported",
            )
        if self.png is not None:
            return self.png.profiles(icc)
        if points is not None:
            icc = profile.of_code_points(*points, is_grey=self.image.mode in ("L", "LA"))
        return [icc] if icc else []

    def _identify(self, formats: tuple[str, ...]) -> Image.Image:
        try:
            with pillow_errors(f"{self.name} cannot be opened"), self._shown.patience(_HEAD_PIECES):
                # A file and not a name, and only these parsers: the extension does not decide, nor does the client, and
                # the parsers for PostScript, PDF and the like are never run.
                return Image.open(self._shown, formats=[FORMATS[name].pillow for name in formats])
        except ImageError as error:
            if isinstance(error.__cause__, (UnidentifiedImageError, UserWarning)):
                if self._claim == "avif" in formats and (why := avif.why_not(self.data())):
                    raise ImageError(f"{self.name} {why[1]}", reason=why[0]) from error.__cause__
                raise ImageError(
                    f"{self.name} is not an image in an accepted format ({', '.join(formats)}).",
                    reason="unknown_format",
                ) from error.__cause__
            raise

    def _patience(self) -> contextlib.AbstractContextManager[None]:
        """Limit the pieces in which the rest is read; only these two formats are read in pieces."""
        if self.format not in ("png", "gif"):
            return contextlib.nullcontext()
        return self._shown.patience(self._pieces)

    def _check_pixels(self, frames: int) -> None:
        width, height = self.image.size
        most = self.limits.pixels if frames == 1 else self.limits.animation_pixels
        counted = width * height if frames == 1 else max(width * height, _LEAST_FRAME) * frames
        if counted > most or width * height > self.limits.pixels:
            times = f" x {frames} frames" if frames > 1 else ""
            raise cost.too_many_pixels(self.name, f"{width} x {height}{times}; {most:,} are accepted")

    def check_crop(self, size: Size, dropped: float) -> None:
        """Raise ImageError if `shrink_on_load(size)` takes too much memory, of which this fraction is not needed."""
        if self._layout is not None:
            decoded = cost.scaled(self.image, jpeg_decoder.eighths_for(self.image.size, size))
            self.check_memory(False, cropped=int(decoded * dropped))

    def check_memory(self, is_animated: bool, held: int = 0, cropped: int = 0) -> None:
        """Raise ImageError if decoding takes too much memory, with bytes `held` for the result or `cropped` away."""
        with pillow_errors(f"{self.name} cannot be opened"):
            needed = cost.memory(self.image, self.format, is_animated, layout=self._layout, boxes=self.avif) + cropped
        cost.check(self.name, self.limits.memory, needed, held)
        size, most = self.stat.st_size, self.limits.memory
        cost.check_bytes(self.name, most, size, self.format, is_animated=is_animated, other=needed + held)
