"""What an AVIF says in its boxes: what is cropped away, and what old encoders left out."""

import struct

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, avif, make_renditions, resize_image

CLAP = b"clap" + struct.pack(">IIIIiIiI", 32, 1, 24, 1, 16, 1, -12, 1)
"""The upper right quarter of 64 x 48 pixels."""


def grown(data, kinds, more):
    """Put `more` at the end of the innermost of these boxes, which lie in each other, and move what follows."""
    position = 0
    for kind in kinds:
        position = data.index(kind, position)
        start = position - 4
        length = int.from_bytes(data[start:position], "big") + len(more)
        data = data[:start] + struct.pack(">I", length) + data[position:]
    end = start + length - len(more)
    return data[:end] + more + data[end:]


def cropped(studio, image, orientation=None, **options):
    """Save an AVIF of 64 x 48 pixels, of which only the upper right quarter is to be seen."""
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    data = studio.encoded(image, "AVIF", quality=100, subsampling="4:4:4", **options)
    box = struct.pack(">I", len(CLAP) + 4) + CLAP
    properties = data[data.index(b"ipco") - 4 :]
    count = len(list(avif._children(properties[8 : int.from_bytes(properties[:4], "big")])))
    data = grown(data, (b"meta", b"iprp", b"ipco"), box)
    data = grown(data, (b"meta", b"iprp", b"ipma"), bytes((0x80 | (count + 1),)))
    at = data.index(b"ipma") + 14
    data = data[:at] + bytes((data[at] + 1,)) + data[at + 1 :]
    # Where the pixels are is told by their place in the file.
    old = data.index(b"iloc")
    place = data.index(b"mdat") + 4
    here = struct.pack(">I", place - len(box) - 1)
    assert data.count(here, old) == 1
    return studio.put(data.replace(here, struct.pack(">I", place)), "photo.avif")


@pytest.mark.parametrize("box", [800, 16], ids=["fits", "shrunk"])
def test_cropped(studio, box):
    """What was cropped away is neither seen nor left in the file."""
    path = cropped(studio, studio.corners((64, 48)))

    picture = resize_image(path, box)

    assert (picture.width, picture.height) == ((32, 24) if box == 800 else (16, 12))
    assert (picture.original_width, picture.original_height) == (32, 24)
    assert studio.read_corners(path) == ["green"] * 4
    assert b"clap" not in studio.read(path)


def test_cropped_and_turned(studio):
    """It is cropped before it is turned, and so in all renditions."""
    path = cropped(studio, studio.corners((64, 48)), 6)

    for picture in make_renditions(path, {"t": 10, "u": 100}, ("keep", "png")):
        assert studio.read_corners(picture.path) == ["green"] * 4
        assert picture.width < picture.height


def test_crop_that_makes_no_sense(studio, monkeypatch):
    """A crop beyond the image, or by parts of pixels, is none."""
    for numbers in ((320, 1, 24, 1, 0, 1, 0, 1), (31, 2, 24, 1, 0, 1, 0, 1), (32, 0, 24, 1, 0, 1, 0, 1)):
        monkeypatch.setattr(f"{__name__}.CLAP", b"clap" + struct.pack(">IIIIiIiI", *numbers))
        path = cropped(studio, studio.corners((64, 48)))

        picture = resize_image(path)

        assert (picture.width, picture.height) == (64, 48)


def test_transparency_of_an_old_encoder(studio):
    """An AVIF whose transparency has no size is refused for that, and not for being no image."""
    data = studio.encoded(Image.new("RGBA", (64, 48), (200, 50, 50, 128)), "AVIF")
    # The second item has the same size as the first; now it has its depth twice.
    old = b"\0\2\4\1\5\x86\7"
    assert data.count(old) == 1
    path = studio.put(data.replace(old, b"\0\2\4\5\5\x86\7"), "photo.avif")

    with pytest.raises(ImageError, match="transparency") as caught:
        resize_image(path, 10)

    assert caught.value.reason == "unsupported"


def test_cut_off(studio):
    """An AVIF that is cut off is damaged, and no unknown format."""
    data = studio.encoded(studio.photo((64, 48)), "AVIF")
    path = studio.put(data[: len(data) // 2], "photo.avif")

    with pytest.raises(ImageError) as caught:
        resize_image(path, 10)

    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("kind", ["XMP", "ISO"])
def test_gain_map(studio, kind):
    """The gain map of an Ultra HDR photo goes, and is named."""
    photo = studio.photo((900, 600))
    second = studio.encoded(photo.resize((90, 60)), "JPEG")
    xmp = b'<x:xmpmeta xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    data = studio.encoded(photo, "JPEG", xmp=xmp if kind == "XMP" else b"")
    if kind == "ISO":
        body = b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
        data = data[:20] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + data[20:]
    for box in (1000, 100):
        path = studio.put(data + second, "photo.jpg")

        picture = resize_image(path, box)

        assert "gain_map" in picture.removed
        assert studio.read(path).count(b"\xff\xd8\xff") == 1
