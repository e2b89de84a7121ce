"""Metadata: what a file holds, the part that may be kept, and copies without the rest."""

from __future__ import annotations

from PIL import Image

from . import cost, gif, jpeg, png, tag_counts, webp
from .source import GPS, ORIENTATION, Source

ARTIST, COPYRIGHT = 0x013B, 0x8298

_AVIF_WORDS = (b"Exif", b"http://ns.adobe.com/", b"<rdf:RDF")
_GAIN_MAP_WORDS, _GAIN_MAP_HEAD = (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"urn:iso:std:iso:ts:21496:-1"), 1 << 17
_TIFF_PLAIN = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 292, 293, 296, 297}
    | {317, 318, 319, 320, 322, 323, 324, 325, 338, 339, 340, 341, 347, 529, 530, 531, 532, 34675}
)
"""Tags that say how to read the pixels, the colour profile among them."""


def found(source: Source) -> tuple[str, ...]:
    """Return what is found of "gps", "exif", "xmp", "iptc", "comment", "gain_map", "images" and "video"."""
    image = source.image
    info = image.info
    names: list[str] = []
    try:
        exif = image.getexif()
        tags = set(exif)
        if source.format == "tiff":
            tags -= _TIFF_PLAIN
        elif "exif" not in info and "Raw profile type exif" not in info:
            # Pillow found this in XMP only.
            tags -= {ORIENTATION}
        if GPS in tags:
            names.append("gps")
        if tags:
            names.append("exif")
    except Exception:
        # Broken and unusable; it is removed like the rest.
        if "exif" in info:
            names.append("exif")
    if any(key in info for key in ("xmp", "XML:com.adobe.xmp")):
        names.append("xmp")
    hidden = source.png.hidden_texts if source.png is not None else []
    if "xmp" not in names and b"XML:com.adobe.xmp" in hidden:
        names.append("xmp")
    if "photoshop" in info:
        names.append("iptc")
    texts = {*getattr(image, "text", ()), *(keyword.decode("latin-1") for keyword in hidden)}
    if "comment" in info or texts - {"XML:com.adobe.xmp", "Raw profile type exif"}:
        names.append("comment")
    if _has_gain_map(source):
        names.append("gain_map")
    if image.format == "MPO":
        # Behind the first one: its preview, or the view of the other eye.
        names.append("images")
    if source.format == "jpeg" and jpeg.has_video(source.data()):
        names.append("video")
    return tuple(names)


def _has_gain_map(source: Source) -> bool:
    """Return True if it has a gain map for brighter screens: Ultra HDR, ISO 21496-1."""
    if source.avif is not None:
        return source.avif.has_gain_map
    if source.format != "jpeg":
        return False
    position = source.file.tell()
    source.file.seek(0)
    head = source.file.read(_GAIN_MAP_HEAD)
    source.file.seek(position)
    return any(word in head for word in _GAIN_MAP_WORDS)


def rights(source: Source) -> bytes:
    """Return EXIF data with nothing but the artist and the copyright notice; empty if there is neither."""
    kept = Image.Exif()
    if tag_counts.has_long_tag(source.image.info.get("exif") or b""):
        return b""
    try:
        exif = source.image.getexif()
        for tag in (ARTIST, COPYRIGHT):
            value = exif.get(tag)
            if isinstance(value, str) and value.strip("\0 "):
                # Pillow reads Latin-1 and would write ASCII, with a question mark for the sign of copyright.
                kept[tag] = value.encode("latin-1")
        return kept.tobytes() if kept else b""
    except Exception:
        return b""


def strip(source: Source, exif: bytes = b"") -> bytes | None:
    """
    Return the file without metadata and with its pixels unchanged, or None if it has to be encoded again for that.

    `exif` takes the place of the EXIF data that was there. A clean file comes back unchanged, without what
    follows the image, such as an appended archive. ImageError if that takes too much memory.
    """
    size = source.stat.st_size
    needed = cost.memory_to_strip(source.image, size)
    is_animated = source.format != "tiff" and source.frames > 1
    cost.check_bytes(source.name, source.limits.memory, size, source.format, is_animated=is_animated, other=needed)
    match source.format:
        case "jpeg":
            return jpeg.strip(source.data(), exif)
        case "png":
            return png.strip(source.data(), source.png, exif)
        case "webp":
            return webp.strip(source.data(), exif)
        case "gif":
            return gif.strip(source.data())
        case "bmp":
            return source.data()
        case "tiff" if source.has_pages:
            # The other pages, and all that they say, would stay.
            return None
        case "avif" if source.is_cropped:
            return None
        case "avif" if any(word in source.data() for word in _AVIF_WORDS) and not exif:
            # Other programs may see an item that Pillow does not.
            return None
        case "avif" | "tiff" if not set(found(source)) - {"gain_map"} or (exif and _says_rights_only(source)):
            return source.data()
    return None


def _says_rights_only(source: Source) -> bool:
    if found(source) != ("exif",):
        return False
    tags = set(source.image.getexif())
    return tags - (_TIFF_PLAIN if source.format == "tiff" else set()) <= {ARTIST, COPYRIGHT}
