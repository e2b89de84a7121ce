"""An AVIF is judged by the frames that are decoded, and not by the size that its boxes say."""

import struct

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, avif, resize_image

SIZE = (320, 200)
PIXELS = 320 * 200


def box(kind, *bodies):
    body = b"".join(bodies)
    return struct.pack(">I", len(body) + 8) + kind + body


def sequence_header(*fields):
    """The unit that begins a stream of AV1, for frames of 320 x 200; a field is a number and its bits."""
    text = "".join(f"{value:0{bits}b}" for value, bits in [(0, 3), (0, 1), *fields, (8, 4), (7, 4), (319, 9), (199, 8)])
    body = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    return bytes((0x0A, len(body))) + body


REDUCED = [(1, 1), (5, 5)]
PLAIN = [(0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (4, 5)]
TIMES = [(1, 32), (30, 32)]
HEADERS = {
    "reduced": REDUCED,
    "plain": PLAIN,
    "high tier": [*PLAIN[:-1], (9, 5), (1, 1)],
    "times": [(0, 1), (1, 1), *TIMES, (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (4, 5)],
    "all": [
        *[(0, 1), (1, 1), *TIMES, (1, 1), (0, 2), (1, 1), (2, 2), (1, 1), (3, 5), (1, 32), (0, 5), (0, 5), (1, 1)],
        *[(1, 5), (0, 12), (4, 5), (1, 1), (5, 4), (5, 4), (0, 1), (1, 1), (7, 4), (0, 12), (9, 5), (0, 1)],
        *[(0, 1), (0, 1)],
    ],
}
"""What may come before the size."""


def track(data, offsets, *, common=0):
    """An animation of samples, two in the first chunk and one in each of the others."""
    head = box(b"ftyp", b"avis\0\0\0\0avisavif")
    starts = len(head) + 8
    places = box(b"co64", struct.pack(">II", 0, len(offsets)), *(struct.pack(">Q", starts + at) for at in offsets))
    sizes = struct.pack(">III", 0, common, 3) + (b"" if common else struct.pack(">3I", 4, 4, len(data) - 8))
    runs = struct.pack(">II6I", 0, 2, 1, 2, 1, 2, 1, 1)
    table = box(b"stbl", box(b"stsz", sizes), box(b"stsc", runs), places)
    return head + box(b"mdat", data) + box(b"moov", box(b"trak", box(b"mdia", box(b"minf", table))))


def lying(studio, size=(5000, 5000), said=(100, 100)):
    """An AVIF of one size whose head says another."""
    data = studio.encoded(Image.new("RGB", size), "AVIF", speed=10)
    before = b"ispe\0\0\0\0"
    assert data.count(before) == 1
    return data.replace(before + struct.pack(">II", *size), before + struct.pack(">II", *said))


def test_a_frame_larger_than_it_says(studio):
    """An AVIF whose head says 100 x 100 pixels is refused if a frame has 25 million."""
    data = lying(studio)
    path = studio.put(data, "bomb.avif")

    reason, _ = studio.refused(path, size=50)

    assert reason == "too_many_pixels"
    assert studio.read(path) == data


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("frames", [1, 3])
def test_frames_of_pillow(studio, mode, frames):
    """The frames of a usual file are of the size that it says."""
    images = [Image.new(mode, SIZE, number * 40) for number in range(frames)]
    options = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    data = studio.encoded(images[0], "AVIF", exif=studio.exif(), **options)

    assert avif.read(data).coded_pixels == PIXELS


@pytest.mark.parametrize("header", HEADERS)
def test_sequence_headers(header):
    """The size is found behind whatever else a sequence header says."""
    data = b"\x12\0" * 4 + sequence_header(*HEADERS[header])

    assert avif.read(track(data, [0, 8])).coded_pixels == PIXELS


@pytest.mark.parametrize(
    ("unit", "pixels"),
    [
        (b"\x0a" + b"\xff" * 8, 1 << 32),
        (b"\x12\0" * 50_000 + sequence_header(*REDUCED), PIXELS),
        (b"\x08" + sequence_header(*REDUCED)[2:], PIXELS),
        (b"\x0e\0" + sequence_header(*REDUCED)[1:], PIXELS),
        (b"\x0a", 0),
    ],
    ids=["endless length", "many units", "no length", "extended", "cut off"],
)
def test_other_units(unit, pixels):
    """Units of any kind are passed over, or read as far as they go."""
    assert avif.read(track(unit, [0], common=len(unit))).coded_pixels == pixels


def still(data, parts, *, version=0, inside=False, times=1):
    """A still image whose data is in these parts, each a start and a length, of the file or of a box of its head."""
    head = box(b"ftyp", b"avif\0\0\0\0avif") + box(b"mdat", data)
    start = 0 if inside else len(head) - len(data)
    items = box(b"iinf", struct.pack(">IH", 0, 1), box(b"infe", struct.pack(">IHH4sB", 2 << 24, 1, 0, b"av01", 0)))
    numbers = ">IHHIH" if version else ">HHIH"
    item = struct.pack(numbers, *((1, int(inside)) if version else (1,)), 0, start, len(parts))
    item += b"".join(struct.pack(">II", *part) for part in parts)
    places = struct.pack(">IBBI" if version else ">IBBH", version << 24, 0x44, 0x40, times) + item * times
    return head + box(b"meta", bytes(4), items, box(b"iloc", places), box(b"idat", data if inside else b""))


@pytest.mark.parametrize("version", [0, 2])
def test_data_in_parts(version):
    """The units of a still image are read wherever its parts are."""
    data = b"\x12\0" + sequence_header(*REDUCED) + bytes(4)
    parts = [(0, 5), (5, len(data) - 5)]

    assert avif.read(still(data, parts, version=version)).coded_pixels == PIXELS
    assert avif.read(still(data, [(0, 0)], version=2, inside=True)).coded_pixels == PIXELS


@pytest.mark.parametrize(("parts", "times"), [([(0, 0)] * 3, 1), ([(0, 1)] * 60_000, 2)], ids=["overlapping", "many"])
def test_data_without_bounds(parts, times):
    """Parts that overlap, so that the decoder would copy the file again and again, are refused; so are thousands."""
    data = still(sequence_header(*REDUCED) + bytes(60_000), parts, times=times)

    with pytest.raises(ImageError):
        avif.read(data)


def test_too_many_units():
    """A stream of more units than any image has is refused."""
    unit = b"\x12\0" * 100_001

    with pytest.raises(ImageError, match="pieces"):
        avif.read(track(unit, [0], common=len(unit)))


def test_many_boxes(studio):
    """An AVIF in thousands of boxes, in which its head would not be found, is refused."""
    data = lying(studio, SIZE, SIZE)
    path = studio.put(data + box(b"free") * 10_001, "boxes.avif")

    with pytest.raises(ImageError, match="boxes"):
        resize_image(path, 50)
