"""Tags of a TIFF, or of EXIF data, in which there are millions of numbers."""

import struct

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image, tag_counts

MANY = 250_000
ORIENTATION, OFFSETS, COPYRIGHT, PRIVATE = 274, 273, 33_432, 50_000
SHORT, UNDEFINED = 3, 7


def directory(order, start, *tags, following=0, big=False):
    """A directory of tags that stands at `start`; each has its number, its kind and its length, and points nowhere."""
    entry, counter, number = ("HHQQ", "Q", "Q") if big else ("HHII", "H", "I")
    body = b"".join(struct.pack(order + entry, tag, kind, length, 0) for tag, kind, length in tags)
    return struct.pack(order + counter, len(tags)) + body + struct.pack(order + number, following)


def head(order, start, *, big=False):
    name = b"II" if order == "<" else b"MM"
    if big:
        return name + struct.pack(order + "HHHQ", 43, 8, 0, start)
    return name + struct.pack(order + "HI", 42, start)


def exif_with(tag):
    """EXIF data in which a tag has many numbers."""
    return head("<", 8) + struct.pack("<HHHIII", 1, tag, SHORT, MANY, 26, 0) + struct.pack("<H", 6) * MANY


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_long_list(studio, order, big, second):
    """A TIFF with a long list is refused by its head, in its second directory as in its first, and stays."""
    start = 16 if big else 8
    data = head(order, start, big=big)
    if second:
        first = directory(order, start, (256, SHORT, 1), big=big)
        data += directory(order, start, (256, SHORT, 1), following=start + len(first), big=big)
    data += directory(order, len(data), (257, SHORT, 1), (OFFSETS, SHORT, MANY), big=big)
    path = studio.put(data, "bomb.tif")

    with pytest.raises(ImageError, match="250,000 numbers") as caught:
        resize_image(path)

    assert caught.value.reason == "too_many_pixels"
    with open(path, "rb") as file:
        assert file.read() == data


@pytest.mark.parametrize(
    ("data", "longest"),
    [
        (head("<", 8) + directory("<", 8, (ORIENTATION, SHORT, 3), (OFFSETS, SHORT, 2)), 3),
        (head("<", 8) + directory("<", 8, (PRIVATE, SHORT, MANY), (OFFSETS, UNDEFINED, MANY)), 0),
        (head("<", 8) + directory("<", 8, (COPYRIGHT, SHORT, MANY)), MANY),
        (head("<", 8) + directory("<", 8, (ORIENTATION, SHORT, 3))[:-4], 3),
        (head("<", 8) + directory("<", 8, (ORIENTATION, SHORT, 3), following=8), 3),
        (head("<", 8) + directory("<", 8, (ORIENTATION, SHORT, 3))[:10], 0),
        (head("<", 8)[:5], 0),
        (head(">", (1 << 64) - 1, big=True), 0),
        (head(">", (1 << 63) - 9, big=True), 0),
        (b"\x89PNG", 0),
    ],
    ids=["short", "bytes", "copyright", "last", "circle", "cut off", "no head", "far away", "nearer", "other"],
)
def test_longest(tmp_path, data, longest):
    """What Pillow makes numbers of is counted; what it leaves as bytes, or does not read, is not."""
    path = tmp_path / "a.tif"
    path.write_bytes(data)

    # A file, and not bytes in memory, which are sought beyond any end.
    with open(path, "rb") as file:
        assert (tag_counts.longest(file), file.tell()) == (longest, 0)


@pytest.mark.parametrize("tag", [ORIENTATION, COPYRIGHT])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_long_list_in_exif(studio, monkeypatch, format, tag):
    """EXIF data with a long list are unreadable: no number of them is read, and the image is resized without."""
    path = studio.save(Image.new("RGB", (200, 100), "red"), "a", format, exif=exif_with(tag))
    read = []
    monkeypatch.setattr(Image.Exif, "get", lambda exif, *_: read.append(len(list(exif))) or 1)

    picture = resize_image(path, 50, keep_copyright=True)

    assert (picture.width, picture.height, picture.removed) == (50, 25, ("exif",))
    assert set(read) == {0}
