"""Grey of few bits or many, and the one colour of a PNG that is transparent."""

import struct
import zlib

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image

SIDE = 200
GREY, RGB, GREY_ALPHA = 0, 2, 4
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2}


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed(values, bits):
    return int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(len(values) * bits // 8, "big")


def png(kind, bits, left, right, *chunks):
    """A PNG with a colour in its left half and another in its right half."""
    row = b"\0" + packed([*left] * (SIDE // 2) + [*right] * (SIDE // 2), bits)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, kind, 0, 0, 0)),
            *chunks,
            chunk(b"IDAT", zlib.compress(row * SIDE)),
            chunk(b"IEND", b""),
        )
    )


def tiff(bits, photometric, row, sample_format=1):
    """A TIFF in grey whose rows are all the same."""
    tags = [(256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 134), (277, 1), (278, SIDE)]
    tags += [(279, len(row) * SIDE), (339, sample_format)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4) + row * SIDE


def halves(path):
    """What is seen in the left and in the right half."""
    with Image.open(path) as image:
        seen = image.convert("RGBA")
    width, height = seen.size
    return seen.getpixel((width // 4, height // 2)), seen.getpixel((width * 3 // 4, height // 2))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_is_transparent(studio, bits):
    """The grey that a PNG names is transparent, of however many bits it is."""
    most = (1 << bits) - 1
    path = studio.put(png(GREY, bits, [most], [0], chunk(b"tRNS", struct.pack(">H", most))), "a.png")

    resize_image(path, 50)

    left, right = halves(path)
    assert (left[3], right) == (0, (0, 0, 0, 255))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_colour_of_16_bits_that_is_transparent(studio, format, tmp_path):
    """So is the colour of 16 bits in each channel, and none that differs in its lower bits only."""
    clear, near = (0x1234, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9ABD)
    path = studio.put(png(RGB, 16, clear, near, chunk(b"tRNS", struct.pack(">3H", *clear))), "a.png")

    written = resize_image(path, 50, format=format, to=tmp_path / f"b.{format}").path

    left, right = halves(written)
    assert (left[3], right[3]) == (0, 255)
    assert right[:3] == pytest.approx((0x12, 0x56, 0x9A), abs=6)


def test_a_transparent_colour_of_16_bits_takes_memory(studio):
    """A large PNG of that kind is refused by its head."""
    data = png(RGB, 16, (1, 2, 3), (4, 5, 6), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 16, RGB, 0, 0, 0))
    path = studio.put(data[:8] + head + data[8 + len(head) :], "a.png")

    with pytest.raises(ImageError) as caught:
        resize_image(path)

    assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize("said", [chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"cICP", bytes((1, 8, 0, 1)))])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_grey_with_transparency(studio, bits, said):
    """Grey with an alpha channel becomes that of sRGB, of 16 bits as well."""
    pixel = [55, 255] if bits == 8 else [55 * 257, 65535]
    path = studio.put(png(GREY_ALPHA, bits, pixel, pixel, said), "a.png")

    resize_image(path, 50)

    assert halves(path)[0] == pytest.approx((128, 128, 128, 255), abs=2)


@pytest.mark.parametrize(
    ("bits", "photometric", "row", "sample_format", "expected"),
    [
        (12, 1, packed([4095] * 100 + [2048] * 100, 12), 1, (255, 128)),
        (16, 1, struct.pack("<200H", *[65535] * 100, *[30000] * 100), 1, (255, 117)),
        (16, 0, struct.pack("<200H", *[65535] * 100, *[30000] * 100), 1, (0, 138)),
        (8, 0, bytes([255] * 100 + [100] * 100), 1, (0, 155)),
        (32, 1, struct.pack("<200f", *[1.0] * 100, *[0.25] * 100), 3, (255, 63)),
        (32, 0, struct.pack("<200f", *[1.0] * 100, *[0.25] * 100), 3, (0, 191)),
    ],
)
def test_grey_of_a_tiff(studio, bits, photometric, row, sample_format, expected):
    """A TIFF in grey is as bright as before: of 12 bits, and where zero means white."""
    path = studio.put(tiff(bits, photometric, row, sample_format), "a.tif")

    resize_image(path, 50)

    assert [half[0] for half in halves(path)] == pytest.approx(expected, abs=1)


def test_grey_of_32_bits(studio):
    """A TIFF in whole numbers of 32 bits, which Pillow takes for negative ones, is refused and stays."""
    data = tiff(32, 1, struct.pack("<200I", *[0xFFFFFFFF] * 100, *[0x7FFFFFFF] * 100))
    path = studio.put(data, "a.tif")

    reason, _ = studio.refused(path, size=50)

    assert reason == "unsupported"
    assert studio.read(path) == data
