"""Small files that would cost much are refused at once."""

import os
import struct
import zlib

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image, source

EMPTY_CHUNK = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
"""A piece of a PNG that says nothing."""

REFUSED_WITHIN = 0.1
"""Seconds that a bomb may take at most; asserted at three times that."""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width, height, depth, colour):
    """A PNG of zeros, packed by hand: Pillow would need the memory that it asks for."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = b"\0" * (1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif_bomb(studio, frames, size):
    """A GIF that repeats one large frame."""
    data = studio.encoded(Image.new("P", size), "GIF")
    start = data.index(b",", 13)
    return data[:start] + data[start:-1] * frames + b";"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "depth", "colour"),
    [((9400, 9400), 8, 6), ((8100, 8000), 1, 0), ((13_300, 13_300), 1, 0), ((20_000, 20_000), 1, 0)],
    ids=["88 MP", "65 MP", "177 MP", "400 MP"],
)
def test_bomb(studio, size, depth, colour):
    """A small file that unfolds to a huge image is refused at once."""
    path = studio.put(png_bomb(*size, depth, colour), "bomb.png")
    before = studio.read(path)

    reason, seconds = studio.refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN
    assert studio.read(path) == before


def test_animated_bomb(studio):
    """An animation of 300 frames of 16 megapixels is refused before one of them is decoded."""
    path = studio.put(gif_bomb(studio, 300, (4000, 4000)), "bomb.gif")

    reason, seconds = studio.refused(path)

    assert os.path.getsize(path) > 3_000_000
    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


def test_animation_that_grows(studio):
    """A GIF that begins small, and whose other frames are large, is counted by its frames, before one is decoded."""
    small = studio.encoded(Image.new("P", (10, 10)), "GIF")
    large = gif_bomb(studio, 300, (4000, 4000))
    path = studio.put(small[:-1] + large[large.index(b",", 13) :], "bomb.gif")

    reason, seconds = studio.refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


def test_animation_with_a_large_frame_outside(studio):
    """A frame that is much larger than the screen of a GIF is not decoded, though it is within the limit."""
    small = studio.encoded(Image.new("P", (10, 10)), "GIF")
    large = gif_bomb(studio, 1, (9900, 9900))
    path = studio.put(small[:-1] + large[large.index(b",", 13) :], "bomb.gif")

    reason, _ = studio.refused(path)

    assert reason == "damaged"


@pytest.mark.parametrize("format", ["gif", "png"])
def test_animation_of_tiny_frames(studio, format):
    """Millions of frames of one pixel are too many as well: each takes its time."""
    gif = gif_bomb(studio, 100_000, (1, 1))
    png = studio.encoded(Image.new("L", (1, 1)), "PNG")
    head = struct.pack(">I", 8) + b"acTL" + struct.pack(">II", 100_000, 0)
    png = png[:33] + head + struct.pack(">I", zlib.crc32(head[4:])) + png[33:]
    path = studio.put({"gif": gif, "png": png}[format], f"bomb.{format}")

    reason, seconds = studio.refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


def test_jpeg_of_many_scans(studio):
    """A progressive JPEG that goes through its pixels again and again, for hours, is refused before it does."""
    data = studio.encoded(studio.photo((300, 200)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    path = studio.put(data[:-2] + data[last:-2] * 100 + b"\xff\xd9", "bomb.jpg")

    with pytest.raises(ImageError, match="more than 100 times"):
        resize_image(path, 100)


def test_tiff_of_one_huge_tile(studio):
    """A TIFF that has one small corner of a huge tile is refused: the tile would be decoded as a whole."""
    tags = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path = studio.put(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(104), "bomb.tif")

    reason, seconds = studio.refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


def test_tiff_of_many_pages(studio):
    """The pages of a TIFF are not counted, of which a small file may have hundreds of thousands."""
    page = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 279: 1}
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    for _ in range(100_000):
        data += struct.pack("<H", len(page))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in page.items())
        data += struct.pack("<I", len(data) + 4)
    path = studio.put(bytes(data), "bomb.tif")

    reason, seconds = studio.refused(path)

    assert reason == "several_pages"
    assert seconds < 3 * REFUSED_WITHIN


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_head_in_many_pieces(studio, format):
    """A head of a million empty pieces is refused at once: it would take seconds, and a gigabyte, at the call."""
    data = studio.encoded(studio.photo((30, 20)), format)
    start = {"JPEG": 2, "PNG": 33, "GIF": data.index(b",", 13)}[format]
    piece = {"JPEG": b"\xff\xe5\0\2", "PNG": EMPTY_CHUNK, "GIF": b"!\xfe\0"}[format]
    path = studio.put(data[:start] + piece * 1_000_000 + data[start:], "bomb")
    # The first image of a format loads what reads it.
    resize_image(studio.put(data, "whole"))

    reason, seconds = studio.refused(path)

    assert reason == "damaged"
    assert seconds < 3 * REFUSED_WITHIN


@pytest.mark.parametrize("before", [True, False])
def test_png_of_many_profiles(studio, monkeypatch, before):
    """Of the profiles of a PNG the first alone is unfolded, wherever the others stand: each takes its time."""
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000)))
    data = studio.encoded(Image.new("L", (100, 100)), "PNG")
    start, many = (33, b"") if before else (-12, chunk(b"IDAT", b"") * 11_000)
    path = studio.put(data[:start] + many + profile * 500 + data[start:], "a.png")
    unfolded = []
    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda *args: (unfolded.append(1), real(*args))[1])

    resize_image(path, 50)

    assert len(unfolded) < 20


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_tail_in_many_pieces(studio, monkeypatch, format):
    """So is a tail of that kind, when it is read."""
    monkeypatch.setattr(source, "_PIECES", 1000)
    data = studio.encoded(studio.photo((30, 20)), format)
    end = {"PNG": -12, "GIF": -1}[format]
    piece = {"PNG": EMPTY_CHUNK, "GIF": b"!\xfe\0"}[format]
    path = studio.put(data[:end] + piece * 10_000 + data[end:], "bomb")

    with pytest.raises(ImageError, match="too many pieces"):
        resize_image(path)


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
def test_animation_of_too_many_frames(studio, make_app, format):
    """Other animations are counted by what their head says."""
    frames = [Image.new("RGB", (100, 100), (number * 50, 0, 0)) for number in range(5)]
    path = studio.save(frames[0], "moving", format, save_all=True, append_images=frames[1:])
    app = make_app(ASOK_IMAGE_MAX_ANIMATION_PIXELS=49_999)

    with app.app_context():
        reason, _ = studio.refused(path)

    assert reason == "too_many_pixels"


def test_own_limit(studio, make_app):
    """The limit is the one of the app, and says what to set."""
    path = studio.save(studio.photo((100, 100)), "photo.png")
    app = make_app(ASOK_IMAGE_MAX_PIXELS=9_999)

    with app.app_context(), pytest.raises(ImageError, match="ASOK_IMAGE_MAX_PIXELS"):
        resize_image(path)


def test_large_photo(studio):
    """A photo of 50 megapixels, as phones make them, is within the limit."""
    path = studio.save(Image.new("L", (8160, 6144), 99), "photo.jpg")

    picture = resize_image(path)

    assert (picture.width, picture.height) == (800, 602)
