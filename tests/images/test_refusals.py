"""What is not worked on is refused with a reason, and is as it was."""

import os
import struct
import subprocess
import sys
import threading
import time
import zlib

import pytest
from PIL import Image, ImageFile

from flask_asok.recipes.images import ImageError, resize_image, source

EMPTY_CHUNK = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
"""A piece of a PNG that says nothing."""

REFUSED_WITHIN = 0.1
"""Seconds that a bomb may take at most; asserted at three times that."""


def png_bomb(width, height, depth, colour):
    """A PNG of zeros, packed by hand: Pillow would need the memory that it asks for."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = b"\0" * (1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif_bomb(studio, frames, size):
    """A GIF that repeats one large frame."""
    data = studio.encoded(Image.new("P", size), "GIF")
    start = data.index(b",", 13)
    return data[:start] + data[start:-1] * frames + b";"


def refused(path, **options):
    """Resize, and return the reason of the refusal and the seconds of a processor that it took."""
    start = time.process_time()
    with pytest.raises(ImageError) as caught:
        resize_image(path, **options)
    return caught.value.reason, time.process_time() - start


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "depth", "colour"),
    [((9400, 9400), 8, 6), ((8100, 8000), 1, 0), ((13_300, 13_300), 1, 0), ((20_000, 20_000), 1, 0)],
    ids=["88 MP", "65 MP", "177 MP", "400 MP"],
)
def test_bomb(studio, size, depth, colour):
    """A small file that unfolds to a huge picture is refused at once."""
    path = studio.put(png_bomb(*size, depth, colour), "bomb.png")
    before = studio.read(path)

    reason, seconds = refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN
    assert studio.read(path) == before


def test_animated_bomb(studio):
    """An animation of 300 frames of 16 megapixels is refused before one of them is decoded."""
    path = studio.put(gif_bomb(studio, 300, (4000, 4000)), "bomb.gif")

    reason, seconds = refused(path)

    assert os.path.getsize(path) > 3_000_000
    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


def test_animation_that_grows(studio):
    """A GIF that begins small, and whose other frames are large, is counted by its frames, before one is decoded."""
    small = studio.encoded(Image.new("P", (10, 10)), "GIF")
    large = gif_bomb(studio, 300, (4000, 4000))
    path = studio.put(small[:-1] + large[large.index(b",", 13) :], "bomb.gif")

    reason, seconds = refused(path)

    assert reason == "too_many_pixels"
    assert seconds < 3 * REFUSED_WITHIN


@pytest.mark.parametrize("format", ["gif", "png"])
def test_animation_of_tiny_frames(studio, format):
    """Millions of frames of one pixel are too many as well: each takes its time."""
    gif = gif_bomb(studio, 100_000, (1, 1))
    png = studio.encoded(Image.new("L", (1, 1)), "PNG")
    head = struct.pack(">I", 8) + b"acTL" + struct.pack(">II", 100_000, 0)
    png = png[:33] + head + struct.pack(">I", zlib.crc32(head[4:])) + png[33:]
    path = studio.put({"gif": gif, "png": png}[format], f"bomb.{format}")

    reason, seconds = refused(path)

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

    reason, seconds = refused(path)

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

    reason, seconds = refused(path)

    assert reason == "several_pages"
    assert seconds < 3 * REFUSED_WITHIN


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_head_in_many_pieces(studio, format):
    """A head of a million empty pieces is refused at once: it would take seconds, and a gigabyte, at the call."""
    data = studio.encoded(studio.photo((30, 20)), format)
    start = {"JPEG": 2, "PNG": 33, "GIF": data.index(b",", 13)}[format]
    piece = {"JPEG": b"\xff\xe5\0\2", "PNG": EMPTY_CHUNK, "GIF": b"!\xfe\0"}[format]
    path = studio.put(data[:start] + piece * 1_000_000 + data[start:], "bomb")

    reason, seconds = refused(path)

    assert reason == "damaged"
    assert seconds < 3 * REFUSED_WITHIN


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
        reason, _ = refused(path)

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


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
@pytest.mark.filterwarnings("ignore")
def test_truncated(studio, format, kept, box):
    """An upload that broke off is refused and not published with a grey lower half."""
    data = studio.encoded(studio.photo((120, 80)), format)
    cut = data[: int(len(data) * kept)]
    path = studio.put(cut, "photo.jpg")

    reason, _ = refused(path, size=box)

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
    """Half a picture is refused, too, where the application lets Pillow take it for a whole one."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = studio.encoded(studio.photo((120, 80)), format, **options)
    cut = data[: int(len(data) * kept)]
    path = studio.put(cut, "photo.jpg")

    reason, _ = refused(path, size=box)

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
    path = studio.put(data[: int(len(data) * kept)], "moving")

    reason, _ = refused(path, size=50)

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

    assert refused(path, size=box)[0] == "damaged"


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
        reasons = {refused(path, size=50)[0] for _ in range(10) for path in paths}
    finally:
        done.set()
        thread.join(10)

    assert reasons <= {"damaged", "unknown_format"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"8BPS\0\x01" + b"\0" * 40,
        b"P6 10 10 255\n" + b"\0" * 300,
        b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 24,
        os.urandom(2000),
    ],
    ids=["empty", "gif head", "jpeg head", "svg", "eps", "pdf", "psd", "ppm", "webp head", "noise"],
)
@pytest.mark.filterwarnings("ignore")
def test_not_a_picture(studio, data):
    """Content that is no picture of an accepted format is refused, whatever its name."""
    path = studio.put(data, "photo.jpg")

    reason, _ = refused(path)

    assert reason in ("unknown_format", "damaged")
    assert studio.read(path) == data


@pytest.mark.filterwarnings("ignore")
def test_every_byte_broken(studio):
    """However a file is broken, the only error is an ImageError."""
    import random

    chance = random.Random(4)
    outcomes = {"written": 0, "refused": 0}
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"):
        data = studio.encoded(studio.photo((60, 40)), kind)
        for _ in range(25):
            broken = bytearray(data)
            for _ in range(chance.randint(1, 8)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            path = studio.put(bytes(broken), "photo")
            try:
                resize_image(path, 30)
            except ImageError:
                outcomes["refused"] += 1
                assert studio.read(path) == bytes(broken)
            else:
                outcomes["written"] += 1
                with Image.open(path) as image:
                    image.load()

    assert min(outcomes.values()) > 10


def test_missing(studio):
    """A file that is not there is what it is: FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        resize_image(studio.folder / "nothing.jpg")


def test_link(studio):
    """A symbolic link is not followed, to a picture no more than to anything else."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    before = studio.read(path)
    link = os.fspath(studio.folder / "link.jpg")
    os.symlink(path, link)

    assert refused(link)[0] == "not_a_file"
    assert os.path.islink(link)
    assert studio.read(path) == before


def test_folder(studio):
    """A folder is refused."""
    assert refused(studio.folder)[0] == "not_a_file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="There are no named pipes here.")
def test_pipe(studio):
    """A named pipe is refused, and does not hold the thread."""
    path = os.fspath(studio.folder / "pipe.jpg")
    os.mkfifo(path)

    assert refused(path)[0] == "not_a_file"


def test_reason_travels():
    """The error can be pickled, for a worker in another process, and keeps its reason."""
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("It is damaged.", reason="damaged")))

    assert (str(error), error.reason) == ("It is damaged.", "damaged")


def test_pillow_comes_late():
    """Importing the package does not import Pillow."""
    code = "import sys, flask_asok.recipes.images; sys.exit('PIL' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
