"""An image that lacks pixels is refused, whatever the application has told Pillow."""

import re
import struct
import threading
import zlib

import pytest
from PIL import ImageFile

from flask_asok.recipes.images import resize_image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
@pytest.mark.filterwarnings("ignore")
def test_truncated(studio, format, kept, box):
    """An upload that broke off is refused and not published with a grey lower half."""
    data = studio.encoded(studio.photo((120, 80)), format)
    cut = data[: int(len(data) * kept)]
    path = studio.put(cut, "photo.jpg")

    reason, _ = studio.refused(path, size=box)

    # Of some formats the end is needed to see what they are.
    assert reason == "damaged" or (format in ("AVIF", "WEBP", "TIFF") and reason == "unknown_format")
    assert studio.read(path) == cut
    assert studio.others(path) == []


TRUNCATED = [
    *[(format, {}) for format in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")],
    ("JPEG", {"progressive": True}),
    ("WEBP", {"lossless": True}),
    *[("TIFF", {"compression": f"tiff_{name}"}) for name in ("lzw", "adobe_deflate")],
    *[("TIFF", {"compression": name}) for name in ("packbits", "jpeg")],
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("format", "options"), TRUNCATED)
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
def test_truncated_where_that_is_allowed(studio, monkeypatch, format, options, kept, box):
    """Half an image is refused, too, where the application lets Pillow take it for a whole one."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = studio.encoded(studio.photo((120, 80)), format, **options)
    cut = data[: int(len(data) * kept)]
    path = studio.put(cut, "photo.jpg")

    reason, _ = studio.refused(path, size=box)

    assert reason == "damaged" or (format in ("AVIF", "WEBP", "TIFF") and reason == "unknown_format")
    assert studio.read(path) == cut
    assert studio.others(path) == []
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("format", "options"), TRUNCATED)
def test_whole_where_half_is_allowed(studio, monkeypatch, format, options):
    """A whole one is worked on there as everywhere."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = studio.put(studio.encoded(studio.photo((120, 80)), format, **options), "photo.jpg")

    assert resize_image(path, 50).width == 50


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.filterwarnings("ignore")
def test_truncated_animation_where_that_is_allowed(studio, monkeypatch, format, kept):
    """Nor is an animation that breaks off."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    frames = [studio.photo((120, 80)).rotate(number) for number in range(4)]
    data = studio.encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    end = int(len(data) * kept)
    # A GIF that ends just behind a frame does not say that more was to come.
    while b"\0!" in data[end - 4 : end + 4]:
        end -= 8
    path = studio.put(data[:end], "moving")

    reason, _ = studio.refused(path, size=50)

    assert reason == "damaged" or (format in ("AVIF", "WEBP") and reason == "unknown_format")


def png_without_rows(data):
    """The PNG with a half of its pixel data, well-formed otherwise."""
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    body = b"IDAT" + data[start + 8 : start + 8 + length // 2]
    return data[:start] + struct.pack(">I", length // 2) + body + struct.pack(">I", zlib.crc32(body)) + data[-12:]


def png_of_broken_rows(data):
    """The PNG whose pixel data is nonsense from the middle on."""
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    body = b"IDAT" + data[start + 8 : start + 8 + length // 2] + b"\xff" * (length - length // 2)
    return data[:start] + struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)) + data[-12:]


@pytest.mark.parametrize("spoil", [png_without_rows, png_of_broken_rows])
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
def test_png_without_all_rows(studio, monkeypatch, spoil, allowed, box):
    """A PNG whose pieces are whole while pixels are missing is damaged, whatever the application allows."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
    path = studio.put(spoil(studio.encoded(studio.photo((120, 80)), "PNG")), "photo.png")

    assert studio.refused(path, size=box)[0] == "damaged"


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("cut", [4, 12, 16])
def test_png_without_its_end(studio, monkeypatch, allowed, cut):
    """A PNG that lacks its end, and none of its pixels, is worked on."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
    path = studio.put(studio.encoded(studio.photo((120, 80)), "PNG")[:-cut], "photo.png")

    picture = resize_image(path, 50)

    assert (picture.width, picture.height) == (50, 33)


@pytest.mark.filterwarnings("ignore")
def test_switch_of_other_threads(studio, monkeypatch):
    """What other threads allow and forbid meanwhile makes no difference, and is left to them."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    paths = [
        studio.put(studio.encoded(studio.photo((120, 80)), format)[:-2000], f"photo.{format}")
        for format in ("PNG", "BMP", "TIFF", "GIF", "JPEG")
    ]
    done = threading.Event()

    def switch():
        while not done.is_set():
            ImageFile.LOAD_TRUNCATED_IMAGES = not ImageFile.LOAD_TRUNCATED_IMAGES

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        reasons = {studio.refused(path, size=50)[0] for _ in range(10) for path in paths}
    finally:
        done.set()
        thread.join(10)

    assert reasons <= {"damaged", "unknown_format"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("behind", [0, 1, 3, 9])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_cut_between_two_scans(studio, mode, behind):
    """A progressive JPEG that ends between two scans shows the whole image, but coarsely: it is refused."""
    data = studio.encoded(studio.photo((120, 80)).convert(mode), "JPEG", progressive=True)
    places = [place.start() for place in re.finditer(b"\xff\xda", data)][1:]

    for place in places:
        path = studio.put(data[: place + behind], "photo.jpg")
        assert studio.refused(path)[0] == "damaged"

    assert len(places) >= 4
