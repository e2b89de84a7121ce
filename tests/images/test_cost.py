"""What an image costs is told by its head: it is refused before it is decoded, or stays within the bounds."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, avif, cost, jpeg, resize_image, save_upload

REFUSED_WITHIN = 0.1
"""Seconds of a processor that a refusal may take; asserted at three times that."""
MEBIBYTES = 256

MEASURE = """
import sys
from flask_asok.recipes.images import resize_image
image = resize_image(sys.argv[1], format=sys.argv[2], to=sys.argv[3])
with open("/proc/self/status") as status:
    [most] = [line.split()[1] for line in status if line.startswith("VmHWM")]
print(image.width, int(most) >> 10)
"""
"""Not by getrusage, which counts what the process was before it became this one."""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_head(width, height, depth, colour, interlaced=0):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def gif_of(width, height, frames):
    """A GIF whose frames draw one pixel each."""
    frame = b"!\xf9\4\1\x0a\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(3) + b"\xff" * 3 + frames * frame + b";"


def png_of_frames(width, height, frames):
    """An APNG whose frames, but for the first, draw one pixel each; only its head is good."""
    data = png_head(width, height, 8, 2)
    return data[:33] + chunk(b"acTL", struct.pack(">II", frames, 0)) + data[33:]


def avif_of(size, **options):
    """An AVIF that says to be of this size; its pixels are fewer."""
    buffer = io.BytesIO()
    mode = options.pop("mode", "RGB")
    frames = [Image.new(mode, (64, 64), number) for number in range(options.pop("frames", 1))]
    save_all = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(buffer, "AVIF", speed=10, **save_all, **options)
    small, large = struct.pack(">II", 64, 64), struct.pack(">II", *size)
    data = buffer.getvalue().replace(b"ispe\0\0\0\0" + small, b"ispe\0\0\0\0" + large)
    return data.replace(struct.pack(">II", 64 << 16, 64 << 16), struct.pack(">II", size[0] << 16, size[1] << 16))


def webp_of(width, height, alpha):
    """The head of a lossless WebP; nothing follows."""
    bits = (width - 1) | (height - 1) << 14 | alpha << 28
    body = b"\x2f" + struct.pack("<I", bits) + bytes(11)
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def jpeg_of(width, height, factors, marker=0xC2, in_scan=None):
    """The head of a JPEG; nothing follows."""
    parts = b"".join(bytes((number + 1, factor, 0)) for number, factor in enumerate(factors))
    frame = struct.pack(">BHHB", 8, height, width, len(factors)) + parts
    count = in_scan or len(factors)
    scan = bytes((count,)) + b"".join(bytes((number + 1, 0)) for number in range(count)) + bytes((0, 63, 0))
    app = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
    return (
        b"\xff\xd8" + app + bytes((0xFF, marker)) + struct.pack(">H", len(frame) + 2) + frame
        + b"\xff\xda" + struct.pack(">H", len(scan) + 2) + scan + b"\xff\xd9"
    )  # fmt: skip


def tiff_of(width, height, bits=(8, 8, 8), compression=8, **tags):
    """The head of a TIFF; nothing follows."""
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, bits), 259: (3, [compression]), 262: (3, [2])}
    entries |= {277: (3, [len(bits)]), 278: (4, [height]), 273: (4, [8]), 279: (4, [1])}
    if len(bits) == 4:
        entries[338] = (3, [2])
    entries |= {int(tag.strip("t")): (4, values) for tag, values in tags.items()}
    table, more, start = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        kind, values = entries[tag]
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(more))
        more += packed if len(packed) > 4 else b""
        table += struct.pack("<HHI", tag, kind, len(values)) + place
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + more


def bmp_in_runs(size):
    body = b"\1\0" * (size // 2)
    head = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, len(body), 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + head + bytes(1024) + body


def reason_of(path):
    """Resize, and return the reason of a refusal, or None."""
    try:
        resize_image(path)
    except ImageError as error:
        return error.reason
    return None


COSTLY = {
    "gif of 10 frames": lambda: gif_of(6300, 6300, 10),
    "gif of 39,000 frames": lambda: gif_of(100, 100, 39_000),
    "gif of 2 frames": lambda: gif_of(6300, 6300, 2),
    "apng of 3 frames": lambda: png_of_frames(5000, 5000, 3),
    "apng of 9,000 frames": lambda: png_of_frames(100, 100, 9_000),
    "png": lambda: png_head(8000, 8000, 8, 2),
    "png 16 bit": lambda: png_head(8000, 8000, 16, 6),
    "png interlaced": lambda: png_head(8000, 8000, 16, 6, 1),
    "png grey and alpha": lambda: png_head(8000, 8000, 16, 4),
    "avif 4:4:4": lambda: avif_of((8000, 8000), subsampling="4:4:4"),
    "avif 4:2:0": lambda: avif_of((6000, 6000)),
    "avif with alpha": lambda: avif_of((5000, 5000), mode="RGBA"),
    "avif of 4 frames": lambda: avif_of((4000, 4000), frames=4),
    "webp": lambda: webp_of(4000, 4000, 0),
    "webp with alpha": lambda: webp_of(8000, 8000, 1),
    "jpeg 4:4:4 progressive": lambda: jpeg_of(8000, 8000, (0x11, 0x11, 0x11)),
    "jpeg cmyk progressive": lambda: jpeg_of(8000, 8000, (0x11, 0x11, 0x11, 0x11)),
    "jpeg in three scans": lambda: jpeg_of(8000, 8000, (0x11, 0x11, 0x11), 0xC0, 1),
    "tiff": lambda: tiff_of(8000, 8000),
    "tiff of one strip": lambda: tiff_of(6000, 6000),
    "tiff of 16 bits": lambda: tiff_of(4500, 4500, (16, 16, 16, 16)),
    "tiff to be turned": lambda: tiff_of(5500, 5500, t278=[16], t274=[6]),
    "tiff of many strips": lambda: tiff_of(100, 60_000, t278=[1], t273=[8] * 200_000, t279=[1] * 200_000),
    "tiff of a large tile": lambda: tiff_of(100, 100, (16, 16, 16), t322=[7000], t323=[7000], t324=[8], t325=[1]),
    "bmp in runs": lambda: bmp_in_runs(8_000_000),
}


@pytest.mark.parametrize("name", COSTLY)
def test_refused_by_its_head(studio, name):
    """A file that would take more than 256 MiB or two seconds is refused at once, and says what to set or to do."""
    path = studio.put(COSTLY[name](), "costly")
    before = studio.read(path)

    error, seconds = studio.refusal(path, size=50)

    assert re.search(r"ASOK_IMAGE_MAX|PNG", str(error))
    assert seconds < 3 * REFUSED_WITHIN
    assert error.reason == ("unsupported" if name == "bmp in runs" else "too_many_pixels")
    assert studio.read(path) == before


def test_refused_as_an_upload(studio, tmp_path):
    """Such a file is not even saved."""
    from werkzeug.datastructures import FileStorage

    path = studio.put(webp_of(8000, 8000, 1), "costly.webp")

    with open(path, "rb") as file, pytest.raises(ImageError, match="976 MiB"):
        save_upload(FileStorage(file, "photo.webp"), tmp_path / "private")


def test_own_limit(studio, make_app):
    """The limit is the one of the app, lower or higher."""
    path = studio.save(Image.new("RGB", (1000, 1000)), "photo.webp", lossless=True)
    lower = make_app(ASOK_IMAGE_MAX_MEMORY=15_999_999)
    with lower.app_context(), pytest.raises(ImageError, match="15 MiB of memory to be decoded"):
        resize_image(path)
    with make_app(ASOK_IMAGE_MAX_MEMORY=16_001_000).app_context():
        assert resize_image(path).width == 800


def _heavy(studio, format, size):
    """A small image in a file of `size` bytes more."""
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "lime")]
    save_all = {"save_all": True, "append_images": frames[1:]} if format in ("WEBP", "PNG") else {}
    data = studio.encoded(frames[0], format, **save_all)
    if format == "PNG":
        return data[:33] + chunk(b"juNk", bytes(size)) + data[33:]
    return data + bytes(size)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_bytes_of_a_file(studio, make_app, format):
    """A file whose bytes alone fill the memory is refused, unchanged, with what to do."""
    path = studio.put(_heavy(studio, format, 9_000_000), "heavy")
    before = studio.read(path)

    asks = r"9,\d{3},\d{3} bytes.*fewer bytes, or set ASOK_IMAGE_MAX_MEMORY"
    with make_app(ASOK_IMAGE_MAX_MEMORY=17_000_000).app_context(), pytest.raises(ImageError, match=asks) as caught:
        resize_image(path, 30)

    assert caught.value.reason == "too_many_bytes"
    assert studio.read(path) == before


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_bytes_that_are_not_pixels(studio, make_app, format):
    """A file that is read in pieces may have any number of bytes, unless all are needed to remove the metadata."""
    image = Image.new("RGB", (60, 40), "red")
    path = studio.put(studio.encoded(image, format) + bytes(9_000_000), "heavy")

    with make_app(ASOK_IMAGE_MAX_MEMORY=17_000_000).app_context():
        with pytest.raises(ImageError, match="of which copies are held") as caught:
            resize_image(path)
        picture = resize_image(path, 30)

    assert (caught.value.reason, picture.width) == ("too_many_bytes", 30)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_frames_of_a_png(studio, make_app, mode):
    """Pillow holds all frames of a PNG that it writes: what needs too much for that is refused, and unchanged."""
    frames = [Image.new(mode, (200, 100), (number * 20, 0, 0, 128)[: len(mode)]) for number in range(10)]
    path = studio.save(frames[0], "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    before = studio.read(path)
    needed = int(200 * 100 * 19.5 + 4.2 * 100 * 50 * 10)

    with make_app(ASOK_IMAGE_MAX_MEMORY=needed - 1).app_context():
        with pytest.raises(ImageError, match="of memory to be written: an encoder holds all frames") as caught:
            resize_image(path, 100, format="png", to=studio.folder / "moving.png")
        assert resize_image(path, 100, format="webp", to=studio.folder / "small.webp").frames == 10
    with make_app(ASOK_IMAGE_MAX_MEMORY=needed + 4 * len(before)).app_context():
        picture = resize_image(path, 100, format="png", to=studio.folder / "moving.png")

    assert (picture.frames, caught.value.reason) == (10, "too_many_pixels")
    assert studio.read(path) == before


@pytest.mark.parametrize(
    "head",
    [
        jpeg_of(8160, 6144, (0x22, 0x11, 0x11)),
        jpeg_of(8000, 8000, (0x22, 0x11, 0x11)),
        jpeg_of(5900, 5900, (0x11, 0x11, 0x11)),
        jpeg_of(8000, 8000, (0x11, 0x11, 0x11), 0xC0),
        jpeg_of(8000, 8000, (0x11, 0x11, 0x11, 0x11), 0xC0),
        png_head(8160, 6144, 8, 6),
        png_head(8160, 6144, 16, 2),
        png_head(8000, 8000, 8, 0),
        webp_of(4032, 3024, 1),
        avif_of((4032, 3024), subsampling="4:4:4", mode="RGBA"),
        avif_of((5600, 4000)),
        tiff_of(8160, 6144, t278=[16]),
        tiff_of(6000, 4000),
    ],
    ids=[
        "jpeg 50 MP", "jpeg 64 MP", "jpeg 4:4:4 35 MP", "jpeg baseline", "jpeg cmyk", "png 50 MP", "png 16 bit",
        "png grey", "webp 12 MP", "avif 4:4:4 12 MP", "avif 22 MP", "tiff 50 MP", "tiff of one strip",
    ],
)  # fmt: skip
def test_photos_of_today(studio, head):
    """What cameras make is not refused by its head; most are found damaged only since here they end behind that."""
    path = studio.put(head, "photo")

    assert reason_of(path) in (None, "damaged")


@pytest.mark.skipif(sys.platform != "linux", reason="It needs /proc.")
@pytest.mark.parametrize(
    ("format", "size", "options"),
    [
        ("JPEG", (8000, 8000), {"progressive": True, "quality": 50}),
        ("JPEG", (5900, 5900), {"progressive": True, "subsampling": 0}),
        ("PNG", (8160, 6144), {"compress_level": 1}),
        ("WEBP", (3650, 3650), {"lossless": True, "method": 0}),
        ("AVIF", (4800, 4800), {"speed": 10}),
        ("TIFF", (7200, 7200), {"compression": "tiff_adobe_deflate"}),
    ],
    ids=str,
)
def test_within_bounds(studio, format, size, options, tmp_path):
    """The largest image that is accepted takes no more than 256 MiB, in a process of its own."""
    path = studio.save(Image.new("RGB", size, (200, 90, 60)), "large", format, **options)

    command = [sys.executable, "-c", MEASURE, path, "png", str(tmp_path)]
    # Without what measures the coverage, which takes memory too.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True, env=environ)

    width, mebibytes = done.stdout.split()
    assert int(width) == 800
    assert int(mebibytes) < MEBIBYTES


def test_scans_by_size(studio):
    """The larger a JPEG, the fewer times it may go through its pixels."""
    data = studio.encoded(Image.new("RGB", (300, 200)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    many = data[:-2] + data[last:-2] * 40 + b"\xff\xd9"
    size = many.index(b"\xff\xc2") + 5
    path = studio.put(many, "small.jpg")
    huge = studio.put(many[:size] + struct.pack(">HH", 8000, 8000) + many[size + 4 :], "huge.jpg")

    assert resize_image(path, 100).width == 100
    with pytest.raises(ImageError, match="more than 41 times"):
        resize_image(huge, 100)


def test_layout(studio):
    """The samples of a JPEG are counted in whole blocks, and a head that cannot be followed is left to the decoder."""
    whole = io.BytesIO(jpeg_of(17, 9, (0x22, 0x11, 0x11)))
    baseline = io.BytesIO(studio.encoded(Image.new("RGB", (16, 16)), "JPEG"))
    padded = io.BytesIO(b"\xff\xd8" + b"\xff\xff\xd0" + jpeg_of(8, 8, (0x11,))[2:])

    assert jpeg.layout(whole) == jpeg.Layout(64 * (6 + 2 + 2), True)
    assert jpeg.layout(baseline) == jpeg.Layout(64 * (4 + 1 + 1), False)
    assert jpeg.layout(padded) == jpeg.Layout(64, True)
    for broken in (b"", b"\xff\xd8", b"\xff\xd8\0\0\0\0", b"\xff\xd8\xff\xda\0\4\1\1"):
        assert jpeg.layout(io.BytesIO(broken)) == jpeg.Layout()


def test_boxes():
    """Boxes that make no sense say nothing."""
    for data in (b"", bytes(100), b"\0\0\0\1meta" + bytes(30), (b"\0\0\0\x08moov" * 5000), b"\0\0\0\0moov" * 5000):
        assert avif.read(data) == avif.Head()
    assert cost.PARTS == 100_000
