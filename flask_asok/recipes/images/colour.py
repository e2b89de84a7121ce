"""Colours: modes that can be resized, profiles turned into sRGB, transparency laid on a background."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

from PIL import Image, ImageCms

from .errors import ImageError
from .tiff import is_negative, is_unsigned, most_grey

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_SHARED = {"RGB", "RGBA", "L", "LA", "CMYK", "LAB", "YCbCr"}
"""Modes that can be resized as they are. Palettes and 1-bit cannot: Pillow would take the nearest pixel, silently."""

_PROBES = [(r, g, b) for r in (0, 64, 128, 255) for g in (0, 64, 128, 255) for b in (0, 64, 128, 255)]


def resizable(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """
    Return what turns this image, or a part of it, into 8 bits per channel that may be averaged.

    16 bits are scaled to 8: converting them, in Pillow, cuts off all above 255.
    """
    mode = image.mode
    if mode in _SIXTEEN_BITS:
        # By way of 32 bits: of the kinds of 16 bits Pillow calculates with one only.
        most = most_grey(image)
        scale, start = (-256 / (most + 1), 256 * most / (most + 1)) if is_negative(image) else (256 / (most + 1), 0.0)
        return lambda part: part.convert("I").point(lambda value: value * scale + start).convert("L")
    if mode in ("I", "F"):
        return _ranged(image)
    if mode in ("1", "P", "PA", "HSV", "RGBX", "RGBa", "La") or (mode in ("L", "RGB") and image.has_transparency_data):
        target = _resizable_mode(image)
        return lambda part: part.convert(target)
    if mode in _SHARED:
        return unchanged
    return lambda part: part.convert("RGB")


def unchanged(part: Image.Image) -> Image.Image:
    """Return the image itself: it can be resized as it is."""
    return part


def _resizable_mode(image: Image.Image) -> str:
    if image.mode == "La":
        return "LA"
    if image.has_transparency_data or image.mode == "RGBa":
        return "LA" if image.mode == "L" else "RGBA"
    return "L" if image.mode == "1" else "RGB"


def _ranged(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Scale integers or floats, whose white point is unknown, from the range that they seem to use."""
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    if low < 0 and is_unsigned(image):
        raise ImageError("It has grey of 32 bits, which is not supported. Export it with 16.", reason="unsupported")
    white = next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    if image.mode == "I" and white == 1.0:
        white = 255.0
    black = min(low, 0.0)
    if is_negative(image):
        black, white = white, black
    scale = 255.0 / (white - black)
    return lambda part: part.convert("F").point(lambda value: value * scale + -black * scale).convert("L")


class Colours:
    """
    How the colours of one image become sRGB. Made before it is decoded, from its mode and the profiles that are said
    to be its own, of which the first that can be used counts.
    """

    def __init__(self, mode: str, profiles: Iterable[bytes]) -> None:
        self._mode = _profiled_mode(mode)
        self._transform = next((one for icc in profiles if (one := _to_srgb(icc, self._mode))), None)
        if self._transform is not None and _is_identity(self._transform, self._mode):
            self._transform = None
        if self._transform is None and self._mode == "LAB":
            self._transform = ImageCms.buildTransform(
                ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
            )

    def is_srgb(self) -> bool:
        """Return True if the colours need no conversion."""
        return self._transform is None and self._mode in ("RGB", "L")

    def convert(self, image: Image.Image) -> Image.Image:
        """Return `image`, resizable and of this image, in sRGB: L, LA, RGB or RGBA."""
        is_grey = self._mode == "L" and image.mode in ("RGB", "RGBA")
        if self._transform is None or not (is_grey or _profiled_mode(image.mode) == self._mode):
            return image if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        bare = image.convert(self._mode) if image.mode != self._mode else image
        # A transform makes a new image; the one of a profile for grey too speaks RGB.
        converted = ImageCms.applyTransform(bare, self._transform)
        if converted is None:
            converted = bare
        if self._mode == "L":
            converted = converted.convert("L")
        if alpha is not None:
            converted.putalpha(alpha)
        return converted


def _profiled_mode(mode: str) -> str:
    """Return the mode that a profile of an image in `mode` speaks of."""
    if mode in ("CMYK", "LAB"):
        return mode
    if mode in ("1", "L", "LA", "La", "I", "F", *_SIXTEEN_BITS):
        return "L"
    return "YCbCr" if mode == "YCbCr" else "RGB"


def _to_srgb(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of a profile, or None if the profile is broken or for another mode."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) != mode:
            return None
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:
        # Half of the broken profiles are wrong in an unused field. The image is fine without.
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try it: names of profiles lie, and there are dozens of sRGB profiles."""
    if mode not in ("RGB", "L"):
        return False
    probes = _PROBES if mode == "RGB" else list(range(256))
    probe = Image.new(mode, (len(probes), 1))
    probe.putdata(probes)
    result = ImageCms.applyTransform(probe, transform)
    assert result is not None
    before, after = probe.convert("RGB").tobytes(), result.tobytes()
    return all(abs(one - other) <= 2 for one, other in zip(before, after, strict=True))


def drop_idle_alpha(image: Image.Image) -> Image.Image:
    """Return `image` without its alpha channel if that is opaque everywhere."""
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        return image.convert(image.mode[:-1])
    return image


def flatten(image: Image.Image, background: str | tuple[int, ...]) -> Image.Image:
    """Return `image` without transparency, laid on a colour."""
    if image.mode not in ("LA", "RGBA"):
        return image
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return canvas
