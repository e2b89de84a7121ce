"""Long, thin images, and crops of wide ones: only what is kept is made, and what would cost more is refused."""

import os
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image, ImageChops
from werkzeug.datastructures import FileStorage

from flask_asok.recipes.images import ImageError, make_renditions, resize_image, save_upload

MEBIBYTES = 256

MEASURE = """
import sys
from flask_asok.recipes.images import make_renditions
sizes = {str(number): eval(size) for number, size in enumerate(sys.argv[4:])}
made = make_renditions(sys.argv[1], sizes, "png", fit=sys.argv[3], folder=sys.argv[2])
with open("/proc/self/status") as status:
    [most] = [line.split()[1] for line in status if line.startswith("VmHWM")]
print(int(most) >> 10, *[(image.width, image.height) for image in made])
"""
"""Not by getrusage, which counts what the process was before it became this one."""


def png_of(width, height):
    """The head of a PNG; nothing follows."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": b"", b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts.items()
    )


def bmp_of(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def tiff_of(width, height):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("size", [(1, 65_536), (54_000_000, 1)])
@pytest.mark.parametrize("image_of", [png_of, bmp_of, tiff_of])
def test_side(studio, image_of, size):
    """A side of more than 65,535 pixels is refused by the head: each row takes memory, and long ones take time."""
    path = studio.put(image_of(*size), "thin")

    error, _ = studio.refusal(path)

    assert error.reason == "too_many_pixels"
    assert "no side may have more than 65,535" in str(error)


def test_side_of_an_upload(studio, tmp_path):
    """Such an image is not even saved, and the longest that is accepted is."""
    with open(studio.put(png_of(1, 54_000_000), "thin"), "rb") as file, pytest.raises(ImageError, match="65,535"):
        save_upload(FileStorage(file, "thin.png"), tmp_path / "private")

    picture = resize_image(studio.save(Image.new("L", (65_535, 2)), "thin.png"))

    assert (picture.width, picture.height) == (800, 1)


def crop_by_hand(image, width, height, focus):
    """The whole image at the size at which it covers the box, then what is kept of it."""
    scale = max(width / image.width, height / image.height)
    wide, high = (max(1, round(side * scale)) for side in image.size)
    left, top = round(wide * focus[0] - width / 2), round(high * focus[1] - height / 2)
    left, top = min(max(0, left), wide - width), min(max(0, top), high - height)
    return image.resize((wide, high), Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("focus", [(0.5, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("size", [(50, 150), (170, 40), (900, 900)])
def test_same_pixels(studio, orientation, focus, size):
    """A crop has the pixels that the whole image has there, however it is stored."""
    upright = studio.photo((1200, 800)).resize((601, 399))
    turned = upright.transpose(studio.turns[orientation]) if studio.turns[orientation] is not None else upright
    path = studio.save(turned, "photo.png", exif=studio.exif(orientation))

    picture = resize_image(path, size, fit="cover", focus=focus)

    shown = size if size < (900, 900) else (399, 399)
    assert (picture.width, picture.height) == shown
    with Image.open(path) as image:
        apart = ImageChops.difference(image.convert("RGB"), crop_by_hand(upright, *shown, focus))
    # The careful step begins where blocks of pixels were averaged.
    assert max(most for _, most in apart.getextrema()) <= 40
    assert sum(count * (number % 256) for number, count in enumerate(apart.histogram())) <= 3 * 3 * shown[0] * shown[1]


@pytest.mark.skipif(sys.platform != "linux", reason="It needs /proc.")
@pytest.mark.parametrize(
    ("format", "mode", "size", "fit", "sizes"),
    [
        ("JPEG", "RGB", (24_000, 2000), "cover", ["(800, 800)"]),
        ("GIF", "P", (65_535, 900), "cover", ["(400, 400)"]),
        ("PNG", "RGB", (65_000, 800), "cover", ["(800, 800)", "(800, 4)"]),
        ("BMP", "RGB", (900, 57_000), "cover", ["(400, 400)", "(4, 400)"]),
        ("PNG", "RGBA", (65_000, 800), "contain", ["(50, 50)"]),
        ("PNG", "RGBA", (7200, 7200), "contain", ["(1, 1)"]),
    ],
)
def test_within_bounds(studio, tmp_path, format, mode, size, fit, sizes):
    """A wide image takes no more than 256 MiB, in a process of its own, cropped in two shapes or shrunk to a line."""
    path = studio.save(Image.new(mode, size), "wide", format)

    command = [sys.executable, "-c", MEASURE, path, str(tmp_path), fit, *sizes]
    # Without what measures the coverage, which takes memory too.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True, env=environ)

    mebibytes, made = done.stdout.split(" ", 1)
    assert fit == "contain" or made.strip() == " ".join(sizes)
    assert int(mebibytes) < MEBIBYTES


def test_crop_of_a_panorama(studio, make_app):
    """A JPEG is decoded as a whole, so a crop may need more than is accepted; shrunk, all of it needs little."""
    path = studio.save(Image.new("RGB", (6000, 90)), "wide.jpg")
    before = studio.read(path)

    with make_app(ASOK_IMAGE_MAX_MEMORY=2_000_000).app_context():
        with pytest.raises(ImageError, match="ASOK_IMAGE_MAX_MEMORY") as caught:
            resize_image(path, (80, 80), fit="cover")
        assert studio.read(path) == before
        # Decoded at half of its size, a little less sharp.
        assert resize_image(path, (45, 45), fit="cover", to=tmp_folder(studio)).width == 45
        assert resize_image(path, 800).width == 800

    assert caught.value.reason == "too_many_pixels"


def tmp_folder(studio):
    folder = studio.folder / "made"
    folder.mkdir()
    return folder


def test_far_from_each_other(studio):
    """Crops that share little are each made from the original, and show their own part of it."""
    image = Image.new("RGB", (4000, 40), "blue")
    image.paste("red", (1980, 0, 2020, 40))
    path = studio.save(image, "wide.png")

    made = make_renditions(path, {"square": (40, 40), "line": (400, 2)}, fit="cover", folder=tmp_folder(studio))

    with Image.open(made["square"].path) as square, Image.open(made["line"].path) as line:
        assert square.convert("RGB").getextrema() == ((255, 255), (0, 0), (0, 0))
        assert line.size == (400, 2)
        assert line.convert("RGB").getpixel((10, 0)) == (0, 0, 255)
