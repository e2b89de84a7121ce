"""Real images to test with, made here: photos, drawings, animations, colour profiles."""

import functools
import gc
import io
import os
import struct
import time

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image

CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright image is stored under each orientation."""

PROFILES = {
    "P3": (2.2, (0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": (2.19921875, (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "ProPhoto": (1.8, (0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)),
}


def photo_of(size=(1600, 1200), mode="RGB"):
    """An image with something of a photo: smooth areas, edges and noise."""
    return _photo(size).convert(mode) if mode != "RGB" else _photo(size).copy()


@functools.cache
def _photo(size):
    width, height = size
    across = Image.linear_gradient("L").rotate(90).resize(size)
    down = Image.linear_gradient("L").resize(size)
    noise = Image.effect_noise(size, 30)
    image = Image.merge("RGB", (across, down, noise))
    image.paste((250, 240, 20), (width // 4, height // 4, width // 2, height // 3))
    return image


def corners_of(size=(64, 48)):
    """An upright image with a colour in each quarter: red and green above, blue and white below."""
    width, height = size
    image = Image.new("RGB", size, CORNERS["white"])
    image.paste(CORNERS["red"], (0, 0, width // 2, height // 2))
    image.paste(CORNERS["green"], (width // 2, 0, width, height // 2))
    image.paste(CORNERS["blue"], (0, height // 2, width // 2, height))
    return image


def read_corners(path):
    """The names of the colours in the four quarters, as the pixels are stored."""
    with Image.open(path) as image:
        seen = image.convert("RGB")
    width, height = seen.size
    names = []
    for across, down in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        pixel = seen.getpixel((int(width * across), int(height * down)))
        near = min(CORNERS, key=lambda name: sum(abs(a - b) for a, b in zip(CORNERS[name], pixel, strict=True)))
        names.append(near)
    return names


def exif_of(orientation=None, *, gps=True, artist=None, copyright=None):
    """EXIF data as a phone writes it."""
    exif = Image.Exif()
    exif[0x010F] = "Phone Maker"
    if orientation:
        exif[0x0112] = orientation
    if artist:
        exif[0x013B] = artist
    if copyright:
        exif[0x8298] = copyright
    if gps:
        exif.get_ifd(0x8825)[1] = "N"
        exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    return exif


def metadata_of(path):
    """What a file says besides its pixels, as Pillow finds it and as its bytes do."""
    with Image.open(path) as image:
        image.load()
        info = set(image.info) & {"exif", "xmp", "XML:com.adobe.xmp", "comment", "photoshop", "icc_profile"}
        exif = dict(image.getexif()) if image.format != "TIFF" else {}
        gps = dict(image.getexif().get_ifd(0x8825))
    with open(path, "rb") as file:
        raw = file.read()
    words = {word for word in (b"Phone Maker", b"http://ns.adobe.com", b"secret remark") if word in raw}
    return info | set(exif) | set(gps) | words


def _tag(body):
    return body + b"\0" * (-len(body) % 4)


def _fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _profile(space, connection, tags):
    table, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += _tag(body)
    head = struct.pack(
        ">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"mntr" if space == b"RGB " else b"prtr", space, connection
    )
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + _fixed(0.9642, 1.0, 0.8249)
    body = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies
    return struct.pack(">I", len(body)) + body[4:]


def _description(text):
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + b"\0" * 78


def rgb_profile(name):
    """An ICC profile of three primaries and a gamma."""
    gamma, *primaries = PROFILES[name]
    tags = {
        b"desc": _description(name),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(0.9642, 1, 0.8249),
    }
    for letter, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*primary)
        tags[bytes([letter]) + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return _profile(b"RGB ", b"XYZ ", tags)


def cmyk_profile():
    """An ICC profile of a press whose cyan is a dark blue, so that it is seen when it is not used."""
    inks = {0: (20, 20, -60), 1: (48, 74, -3), 2: (89, -5, 93), 3: (10, 0, 0)}
    table = b""
    for point in range(16):
        lab = [100.0, 0.0, 0.0]
        for ink, (light, a, b) in inks.items():
            if point >> (3 - ink) & 1:
                lab = [lab[0] * light / 100, lab[1] + a * lab[0] / 100, lab[2] + b * lab[0] / 100]
        table += bytes(
            (round(lab[0] * 2.55), max(0, min(255, round(lab[1] + 128))), max(0, min(255, round(lab[2] + 128))))
        )
    line = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + line * 4 + table + line * 3
    tags = {
        b"desc": _description("press"),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(0.9642, 1, 0.8249),
    }
    return _profile(b"CMYK", b"Lab ", {**tags, b"A2B0": lut})


class Studio:
    """Makes files in one folder."""

    photo = staticmethod(photo_of)
    corners = staticmethod(corners_of)
    read_corners = staticmethod(read_corners)
    exif = staticmethod(exif_of)
    metadata = staticmethod(metadata_of)
    rgb_profile = staticmethod(rgb_profile)
    cmyk_profile = staticmethod(cmyk_profile)
    turns = TURNS

    def __init__(self, folder):
        self.folder = folder

    def refused(self, path, **options):
        """Resize, and return the reason of the refusal and the seconds of a processor that it took."""
        error, seconds = self.refusal(path, **options)
        return error.reason, seconds

    def refusal(self, path, **options):
        """Resize, and return the error and the seconds of a processor that it took."""
        # Of this thread, and without the collector, which looks at all that the tests before have made.
        gc.disable()
        try:
            start = time.thread_time()
            with pytest.raises(ImageError) as caught:
                resize_image(path, **options)
            return caught.value, time.thread_time() - start
        finally:
            gc.enable()

    def save(self, image, name, format=None, **options):
        """Write an image, and return its path as text."""
        path = os.fspath(self.folder / name)
        image.save(path, format, **options)
        return path

    def put(self, data, name):
        """Write bytes, and return their path as text."""
        path = os.fspath(self.folder / name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def read(self, path):
        """The bytes of a file."""
        with open(path, "rb") as file:
            return file.read()

    def encoded(self, image, format, **options):
        """The bytes of an image in a format."""
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    def others(self, path):
        """The names in the folder of a file besides its own."""
        return sorted(set(os.listdir(os.path.dirname(path))) - {os.path.basename(path)})


@pytest.fixture
def studio(tmp_path):
    """Makes images of all kinds in a folder of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    return Studio(folder)
