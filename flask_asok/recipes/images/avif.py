"""The boxes of an AVIF: how large its frames and samples are, its colours, and its crop."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from . import av1, avif_data
from .errors import ImageError

_CONTAINERS = {
    b"moov": 0,
    b"trak": 0,
    b"mdia": 0,
    b"minf": 0,
    b"stbl": 0,
    b"edts": 0,
    b"iprp": 0,
    b"ipco": 0,
    b"iinf": 6,
    b"meta": 4,
    b"stsd": 8,
    b"av01": 78,
}
"""Boxes of boxes, and how many bytes come before these."""
_MOST, _DEEPEST = 10_000, 10
_LINKS = 100_000
"""Properties of all items that are images, each of which names its own."""
_TRANSPARENCY = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")

Crop = tuple[int, int, int, int]
Property = tuple[bytes, bytes]
"""The kind of a box and what is in it."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the boxes of one AVIF say."""

    sample_bytes: int = 1
    planes: float = 3.0
    """Samples of a pixel, of transparency not counted."""
    has_alpha: bool = False
    is_alpha_sized: bool = True
    """False if an old encoder did not state the size of the alpha image."""
    has_gain_map: bool = False
    crop: Crop | None = None
    """Left, top, right and bottom of the visible part, before it is turned."""
    code_points: tuple[int, int] | None = None
    """Primaries and transfer: nclx."""
    coded_pixels: int = 0
    """Of the largest frame that is decoded, whatever size the boxes say."""


def is_avif(data: bytes) -> bool:
    """Return True if the file that begins with `data` claims to be an AVIF."""
    return data[4:8] == b"ftyp" and any(brand in data[8 : 8 + 64] for brand in (b"avif", b"avis"))


def why_not(data: bytes) -> tuple[str, str] | None:
    """Return the reason, and a text, why Pillow refuses an AVIF; None if the file is not an AVIF."""
    if not is_avif(data):
        return None
    if not read(data).is_alpha_sized:
        return (
            "unsupported",
            "does not say how large its transparency is, as old encoders left it. Export it anew.",
        )
    return "damaged", "is an AVIF, and cannot be opened: it is cut off or broken."


def read(data: bytes) -> Head:
    """Return what the boxes say, as far as they can be followed; ImageError if there are too many to look at."""
    boxes: dict[bytes, list[bytes]] = {}
    for number, (kind, body) in enumerate(_boxes(data)):
        if number == _MOST:
            raise ImageError(f"The AVIF is in more than {_MOST:,} boxes.")
        if kind == b"co64":
            # The upper halves of these numbers are zero in a file that fits into memory.
            kind, body = b"stco", body[:8] + b"".join(body[at + 4 : at + 8] for at in range(8, len(body), 8))
        boxes.setdefault(kind, []).append(body)
    try:
        return _head(boxes, data)
    except (struct.error, IndexError, ZeroDivisionError):
        return Head()


def _head(boxes: dict[bytes, list[bytes]], data: bytes) -> Head:
    properties = [one for body in boxes.get(b"ipco", ()) for one in _children(body)]
    items = _items(boxes, properties)
    primary = items.get(_number(boxes.get(b"pitm", [b"\0\0\0\0\0\0"])[0]), [])
    # Of a sequence the images are in a track, which says the same for itself.
    of_track = [one for body in boxes.get(b"av01", ()) for one in _children(body[78:])]
    alphas = [item for item in items.values() if any(kind == b"auxC" and _is_alpha(body) for kind, body in item)]
    coded = [body[2] for kind, body in [*properties, *of_track] if kind == b"av1C"]
    code_points = None
    for kind, body in [*of_track, *primary]:
        if kind == b"colr" and body[:4] == b"nclx" and code_points is None:
            primaries, transfer = struct.unpack(">HH", body[4:8])
            code_points = primaries, transfer
    return Head(
        sample_bytes=2 if any(flags & 0x40 for flags in coded) else 1,
        planes=max((_planes(flags) for flags in coded), default=3.0),
        has_alpha=bool(alphas) or len(boxes.get(b"av01", ())) > 1,
        is_alpha_sized=all(any(kind == b"ispe" for kind, _ in item) for item in alphas),
        has_gain_map=any(body[8:12] == b"tmap" for one in boxes.get(b"iinf", ()) for body in _entries(one)),
        crop=_crop([*of_track, *primary], dict(primary).get(b"ispe")),
        code_points=code_points,
        coded_pixels=av1.most_pixels(avif_data.coded(boxes, _coded_items(boxes), data)),
    )


def _boxes(data: bytes, depth: int = 0) -> Iterator[Property]:
    """Yield each box, and after a box of boxes those in it."""
    for kind, body in _children(data):
        yield kind, body
        if kind in _CONTAINERS and depth < _DEEPEST:
            yield from _boxes(body[_before(kind, body) :], depth + 1)


def _before(kind: bytes, body: bytes) -> int:
    """Return how many bytes come before the boxes in a box."""
    # It has a count of them, of 32 bits in later versions.
    return 8 if kind == b"iinf" and body[:1] != b"\0" else _CONTAINERS[kind]


def _children(data: bytes) -> Iterator[Property]:
    position = 0
    while position + 8 <= len(data):
        length, start = int.from_bytes(data[position : position + 4], "big"), position + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        end = position + length if length else len(data)
        if end < start:
            return
        kind = data[position + 4 : position + 8]
        if kind != b"mdat":
            yield kind, data[start:end]
        position = end


def _entries(body: bytes) -> Iterator[bytes]:
    return (entry for kind, entry in _children(body[_before(b"iinf", body) :]) if kind == b"infe")


def _coded_items(boxes: dict[bytes, list[bytes]]) -> set[int]:
    """Return the numbers of the items that are images, and not EXIF data or the like."""
    items = set()
    for entry in (entry for body in boxes.get(b"iinf", ()) for entry in _entries(body)):
        end = 6 if entry[0] < 3 else 8
        if entry[end + 2 : end + 6] == b"av01":
            items.add(int.from_bytes(entry[4:end], "big"))
    return items


def _items(boxes: dict[bytes, list[bytes]], properties: list[Property]) -> dict[int, list[Property]]:
    """Return the properties of each item by its number."""
    items: dict[int, list[Property]] = {}
    left = _LINKS
    for body in boxes.get(b"ipma", ()):
        wide, long = body[0] >= 1, body[3] & 1
        position = 8
        for _ in range(min(_MOST, int.from_bytes(body[4:8], "big"))):
            item = int.from_bytes(body[position : position + (4 if wide else 2)], "big")
            position += 4 if wide else 2
            count, position = body[position], position + 1
            left -= 1 + count
            if left < 0:
                raise ImageError(f"The AVIF has more than {_LINKS:,} properties of items.")
            for _ in range(count):
                index = int.from_bytes(body[position : position + 1 + long], "big") & (0x7FFF if long else 0x7F)
                position += 1 + long
                if 1 <= index <= len(properties):
                    items.setdefault(item, []).append(properties[index - 1])
    return items


def _number(primary: bytes) -> int:
    return int.from_bytes(primary[4:], "big")


def _is_alpha(body: bytes) -> bool:
    return body[4:].split(b"\0", 1)[0] in _TRANSPARENCY


def _planes(flags: int) -> float:
    if flags & 0x10:
        return 1.0
    across, down = flags & 0x08, flags & 0x04
    return 1.5 if across and down else 2.0 if across else 3.0


def _crop(properties: list[Property], size: bytes | None) -> Crop | None:
    """Return the clean aperture; None if there is none, or it does not consist of whole pixels."""
    apertures = [body for kind, body in properties if kind == b"clap"]
    if not apertures or size is None:
        return None
    numbers = struct.unpack(">IIIIiIiI", apertures[0][:32])
    width, height = struct.unpack(">II", size[4:12])
    wide, high, right, down = (Fraction(numbers[at], numbers[at + 1]) for at in (0, 2, 4, 6))
    left, top = right + (width - wide) / 2, down + (height - high) / 2
    edges = left, top, left + wide, top + high
    is_inside = 0 <= left < edges[2] <= width and 0 <= top < edges[3] <= height
    if not is_inside or any(edge.denominator != 1 for edge in edges):
        return None
    return int(left), int(top), int(edges[2]), int(edges[3])
