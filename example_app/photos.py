"""What a photo file says of itself, and the ones that are bundled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BUNDLED = {"mountains.jpg": "Mountains", "lake.jpg": "Lake, on its side, with GPS", "dunes.jpg": "Dunes"}
FOLDER = Path(__file__).with_name("photos")


def facts(path: str) -> dict[str, Any]:
    """Return the size of a picture as it is stored, whether it lies on its side, and the place it was taken."""
    # Here and not above: an application that makes no pictures should not pay for Pillow at its start.
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        exif = image.getexif()
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        return {
            "file": Path(path).name,
            "bytes": os.path.getsize(path),
            "width": image.width,
            "height": image.height,
            "turned": exif.get(ExifTags.Base.Orientation, 1) != 1,
            "place": _place(gps),
        }


def _place(gps: dict[int, Any]) -> str | None:
    """Return the coordinates as maps take them; None where there are none, or rubbish."""
    try:
        latitude = _degrees(gps[2], gps[1] == "S")
        longitude = _degrees(gps[4], gps[3] == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # A damaged file may claim any number, or none: 0/0 is read as nan.
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return f"{latitude:.4f}, {longitude:.4f}"


def _degrees(value: tuple[float, float, float], is_negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    total = degrees + minutes / 60 + seconds / 3600
    return -total if is_negative else total
