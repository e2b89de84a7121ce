"""A file of hundreds of thousands of pieces, which take time and say nothing, is refused."""

import struct

import pytest
from PIL import Image
from werkzeug.datastructures import FileStorage

from flask_asok.recipes.images import ImageError, avif, resize_image, save_upload

MANY = 200_000


def in_jpeg(studio, place):
    """Markers without a length: in place of an image, in its coded data, or before the end of a progressive one."""
    data = studio.encoded(Image.new("RGB", (64, 64), "gray"), "JPEG", progressive=place == "scans")
    return {
        "head": b"\xff\xd8" + b"\xff\x01" * MANY,
        "data": data[:-2] + b"\xff\x01" * MANY + b"\0\0",
        "scans": data[:-2] + b"\xff\x01" * MANY + b"\xff\xd9",
    }[place]


def in_gif(studio, piece):
    return studio.encoded(Image.new("P", (64, 64)), "GIF")[:-1] + piece + b";"


def in_webp(studio):
    data = studio.encoded(Image.new("RGB", (64, 64)), "WEBP")
    return data[:4] + struct.pack("<I", len(data) - 8 + 8 * MANY) + data[8:] + b"JUNK\0\0\0\0" * MANY


def box(kind, body):
    return struct.pack(">I", len(body) + 8) + kind + body


def in_avif(place):
    """Boxes that are not counted among those of the head."""
    empty = box(b"free", b"") * MANY
    links = bytes(4) + struct.pack(">I", 1000) + (b"\0\1\xff" + b"\1" * 255) * 1000
    entries = box(b"infe", bytes(8)) * MANY
    sample = box(
        b"stbl", box(b"stco", bytes(4) + struct.pack(">I", 2 * MANY) + bytes(8 * MANY)) + box(b"stsz", bytes(12))
    )
    return (
        box(b"ftyp", b"avif\0\0\0\0")
        + {
            "properties": lambda: box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", empty))),
            "links": lambda: box(
                b"meta", bytes(4) + box(b"iprp", box(b"ipco", box(b"free", b"")) + box(b"ipma", links))
            ),
            "items": lambda: box(b"meta", bytes(4) + box(b"iinf", bytes(6) + entries)),
            "items of a later version": lambda: box(b"meta", bytes(4) + box(b"iinf", b"\1" + bytes(7) + entries)),
            "edits": lambda: box(b"moov", box(b"trak", box(b"edts", empty))),
            "samples": lambda: box(b"moov", box(b"trak", box(b"mdia", box(b"minf", sample + box(b"stsc", bytes(8)))))),
        }[place]()
    )


@pytest.mark.parametrize("place", ["head", "data"])
def test_upload(studio, tmp_path, place):
    """A JPEG of that kind, which would occupy the request for seconds, is not saved."""
    path = studio.put(in_jpeg(studio, place), "a.jpg")

    with open(path, "rb") as file, pytest.raises(ImageError, match="in more than 100,000 pieces") as caught:
        save_upload(FileStorage(file, "a.jpg"), tmp_path)

    assert caught.value.reason == "damaged"


def test_jpeg_with_an_end(studio):
    """One with an end mark is refused when it is processed."""
    path = studio.put(in_jpeg(studio, "scans"), "a.jpg")

    with pytest.raises(ImageError, match="in more than 100,000 pieces"):
        resize_image(path, 32)


@pytest.mark.parametrize(
    "piece", [b"!\xfe" + b"\1a" * MANY + b"\0", b"!\xfe\0" * MANY, b"\0" * MANY], ids=["parts", "blocks", "bytes"]
)
def test_gif(studio, piece):
    """So is a GIF, whether the pieces are blocks, parts of one, or bytes between two."""
    path = studio.put(in_gif(studio, piece), "a.gif")

    with pytest.raises(ImageError, match="in too many pieces") as caught:
        resize_image(path, 32)

    assert caught.value.reason == "damaged"


def test_webp(studio):
    """So is a WebP where its chunks are walked, to remove the metadata."""
    path = studio.put(in_webp(studio), "a.webp")

    assert resize_image(path, 32, to=studio.folder / "small.webp").width == 32
    with pytest.raises(ImageError, match="in more than 100,000 pieces"):
        resize_image(path)


@pytest.mark.parametrize("place", ["properties", "links", "items", "items of a later version", "edits", "samples"])
def test_avif(place):
    """So is an AVIF, wherever in its head they are."""
    with pytest.raises(ImageError, match=r"boxes|properties of items|too many pieces"):
        avif.read(in_avif(place))
