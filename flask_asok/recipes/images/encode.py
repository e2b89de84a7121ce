"""Encode images as bytes, in every format that is written."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageChops, ImageFile, ImageStat, JpegImagePlugin

from . import colour, webp
from .errors import ImageError
from .formats import FORMATS
from .gif_writer import CLEAR, still_gif
from .pillow import pillow_errors
from .source import Source

Colour = str | tuple[int, ...]

_USUALLY_APART, MOST_APART = 2, 32
"""Largest colour error (0-255) accepted when reducing the palette: RMS, maximum."""


def encode(
    image: Image.Image,
    format: str,
    *,
    quality: int | None = None,
    background: Colour = "white",
    exif: bytes = b"",
    source: Source | None = None,
    is_fine: bool = False,
) -> bytes:
    """
    Return an image in sRGB (L, LA, RGB or RGBA) as a file. ImageError if the format cannot hold it.

    JPEG is progressive: smaller, and visible sooner. AVIF and WebP use the speed beyond which slower gains next to
    nothing. `source` is the original in the same format and size, whose encoding settings are kept. With `is_fine` each
    pixel keeps a colour of its own, which these three formats share among four: in a WebP that takes a lossless one.
    """
    image = colour.drop_idle_alpha(image)
    options: dict[str, Any] = {"quality": quality or FORMATS[format].quality}
    match format:
        case "jpeg":
            image = colour.flatten(image, background)
            options |= {"progressive": True, "optimize": True, **({"subsampling": 0} if is_fine else {})}
            tables = _tables(source.image, image) if source is not None and quality is None else {}
            if tables:
                # A quality beside the tables would scale them.
                del options["quality"]
                options |= tables
        case "webp":
            keeps_lossless = source is not None and source.format == "webp" and webp.is_lossless(source.file)
            options |= {"method": 4, "lossless": keeps_lossless or is_fine}
        case "avif":
            # One thread: the queue of images says how much of the machine they get.
            options |= {"speed": 8, "max_threads": 1, **({"subsampling": "4:4:4"} if is_fine else {})}
        case "tiff":
            options = {"compression": "tiff_adobe_deflate"}
            if source is not None and source.image.info.get("compression") == "jpeg" and image.mode in ("L", "RGB"):
                options = {"compression": "jpeg", "quality": 90}
        case "gif":
            return still_gif(to_gif_palette(image))
        case "bmp":
            image = image.convert("RGBA") if image.mode == "LA" else image
            options = {}
        case _:
            options = {}
    if exif and format == "tiff":
        options["tiffinfo"] = _tags(exif)
    elif exif and format != "bmp":
        options["exif"] = exif
    try:
        data = save(image, format, options)
        return _declare_bmp_alpha(data) if format == "bmp" and image.mode == "RGBA" else data
    except ImageError:
        if format != "jpeg":
            raise
        # Pillow's buffer for a progressive JPEG is too small for noise in high quality; a baseline one needs none.
        return save(image, format, {**options, "progressive": False, "optimize": False})


def encode_small(
    image: Image.Image, format: str, most: int, *, background: Colour = "white", exif: bytes = b""
) -> bytes | None:
    """
    Return an image in fewer colours or lower quality, if possible in no more than `most` bytes; None if that fails.

    For sources saved at a lower quality than our default, and for drawings, which smoothing makes larger: these get a
    palette again, and may still grow. An image that would look different in fewer colours keeps all of them.
    """
    image = colour.drop_idle_alpha(image)
    best = FORMATS[format].quality
    if best is not None:
        for quality in (best - 10, best - 20):
            data = encode(image, format, quality=quality, background=background, exif=exif)
            if len(data) <= most:
                return data
        return None
    smallest = None
    for colours in (255, 64, 16) if format in ("png", "gif") else ():
        few = to_gif_palette(image, colours) if format == "gif" else _to_palette(image, colours)
        if not _looks_alike(image, few, format):
            break
        options = {"optimize": True, **({"exif": exif} if exif else {})}
        smallest = still_gif(few) if format == "gif" else save(few, format, options)
        if len(smallest) <= most:
            break
    return smallest


def save(image: Image.Image, format: str, options: Mapping[str, Any]) -> bytes:
    """Run Pillow's encoder, into memory."""
    # Pillow would write comments, profiles and the like from here unasked.
    image.info = {key: image.info[key] for key in ("transparency",) if key in image.info}
    buffer = io.BytesIO()
    try:
        with pillow_errors(f"The image cannot be written as {format}", "cannot_write"):
            image.save(buffer, FORMATS[format].pillow, **options)
    except ImageError as error:
        if isinstance(error.__cause__, KeyError):
            raise ImageError(
                f"This build of Pillow does not write {format}.", reason="cannot_write"
            ) from error.__cause__
        raise
    return buffer.getvalue()


def to_gif_palette(image: Image.Image, colours: int | Image.Image = 255) -> Image.Image:
    """
    Return `image` in some colours: a number up to 255, or the palette of another one.

    GIF has no partial transparency: pixels that are less than half opaque become clear.
    """
    with pillow_errors("The image cannot get a palette", "cannot_write"):
        opaque = image.convert("RGB")
        if isinstance(colours, int):
            few = opaque.quantize(colours, dither=Image.Dither.NONE)
        else:
            few = opaque.quantize(palette=colours, dither=Image.Dither.NONE)
        if image.mode not in ("LA", "RGBA"):
            return few
        clear = image.getchannel("A").point(lambda value: 255 if value < 128 else 0)
        few.paste(CLEAR, mask=clear)
        few.info["transparency"] = CLEAR
        return few


def _to_palette(image: Image.Image, colours: int) -> Image.Image:
    if image.mode == "LA":
        image = image.convert("RGBA")
    # Only the octree supports transparency.
    method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
    with pillow_errors("The image cannot get a palette", "cannot_write"):
        return image.quantize(colours, method=method, dither=Image.Dither.NONE)


def _looks_alike(image: Image.Image, few: Image.Image, format: str) -> bool:
    """Return True if the visible colours of `few` are those of `image`, or very near to them."""
    before, after = image.convert("RGBA"), few.convert("RGBA")
    apart = ImageChops.difference(before.convert("RGB"), after.convert("RGB"))
    apart.paste(0, mask=ImageChops.invert(after.getchannel("A")))
    bands = [*apart.split()]
    if format != "gif":
        # A GIF knows no half transparency, in however many colours.
        bands.append(ImageChops.difference(before.getchannel("A"), after.getchannel("A")))
    statistics = [ImageStat.Stat(band) for band in bands]
    return all(one.rms[0] <= _USUALLY_APART and one.extrema[0][1] <= MOST_APART for one in statistics)


def _declare_bmp_alpha(data: bytes) -> bytes:
    """Give a BMP of 32 bits a head that declares its transparency, which Pillow's does not."""
    width, height = struct.unpack_from("<ii", data, 18)
    pixels = data[54:]
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 3780, 3780, 0, 0)
    head += struct.pack("<4I4s48x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


def _tags(exif: bytes) -> dict[int, bytes]:
    """Return the texts of EXIF data as they are: Pillow would write them in ASCII."""
    read = Image.Exif()
    read.load(exif)
    return {tag: value.encode("latin-1") for tag, value in read.items() if isinstance(value, str)}


def _tables(original: Image.Image, image: Image.Image) -> dict[str, Any]:
    """Return the quantisation of a JPEG, with which it is written again in nearly the same bytes and look."""
    if not isinstance(original, ImageFile.ImageFile) or image.mode not in ("L", "RGB"):
        return {}
    tables = getattr(original, "quantization", None)
    sampling = JpegImagePlugin.get_sampling(original)
    if not tables or original.mode != image.mode or sampling < 0 or max(tables) > 3:
        return {}
    options: dict[str, Any] = {"qtables": tables, "subsampling": sampling}
    return options
