"""What is not processed is refused with a reason, and is unchanged."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image


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
    """Content that is no image of an accepted format is refused, whatever its name."""
    path = studio.put(data, "photo.jpg")

    reason, _ = studio.refused(path)

    assert reason in ("unknown_format", "damaged")
    assert studio.read(path) == data


def jpeg_of(process, *, bits=8, begin=b""):
    """Return a grey JPEG whose head names this process: the byte of its frame segment."""
    frame = bytes((0xFF, process, 0, 11, bits, 0, 16, 0, 16, 1, 1, 0x11, 0))
    tables = b"\xff\xdb\0\x43\0" + b"\x10" * 64
    for kind in (b"\0", b"\x10"):
        tables += b"\xff\xc4\0\x14" + kind + b"\1" + b"\0" * 16
    first, last = {0xC2: (0, 0), 0xC3: (1, 0)}.get(process, (0, 63))
    return (
        b"\xff\xd8"
        + begin
        + tables
        + frame
        + bytes((0xFF, 0xDA, 0, 8, 1, 1, 0, first, last, 0))
        + bytes(40)
        + b"\xff\xd9"
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (jpeg_of(0xC3), "lossless"),
        (jpeg_of(0xC3, bits=12), "lossless"),
        (jpeg_of(0xCB), "lossless"),
        (jpeg_of(0xC5), "hierarchical"),
        (jpeg_of(0xCE), "hierarchical"),
        (jpeg_of(0xC0, begin=b"\xff\xde\0\x0b\x08\0\x10\0\x10\1\1\x11\0"), "hierarchical"),
        (jpeg_of(0xC1, bits=12), "12-bit"),
    ],
    ids=["lossless", "lossless of 12 bits", "lossless arithmetic", "SOF5", "SOF14", "DHP", "12 bits"],
)
def test_rare_jpeg(studio, data, kind):
    """A JPEG of a kind that nothing here decodes is no damaged one: it is refused as unsupported, with its kind."""
    path = studio.put(data, "scan.jpg")

    with pytest.raises(ImageError, match=f"is a {kind} JPEG, which is not supported") as caught:
        resize_image(path, 8)

    assert caught.value.reason == "unsupported"
    assert studio.read(path) == data


@pytest.mark.parametrize("process", [0xC0, 0xC1, 0xC2])
def test_usual_jpeg(studio, process):
    """Baseline, extended and progressive ones are read."""
    path = studio.put(jpeg_of(process), "scan.jpg")

    assert resize_image(path, 8).width == 8


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
    """A symbolic link is not followed, to an image no more than to anything else."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    before = studio.read(path)
    link = os.fspath(studio.folder / "link.jpg")
    os.symlink(path, link)

    assert studio.refused(link)[0] == "not_a_file"
    assert os.path.islink(link)
    assert studio.read(path) == before


def test_folder(studio):
    """A folder is refused."""
    assert studio.refused(studio.folder)[0] == "not_a_file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="There are no named pipes here.")
def test_pipe(studio):
    """A named pipe is refused, and does not hold the thread."""
    path = os.fspath(studio.folder / "pipe.jpg")
    os.mkfifo(path)

    assert studio.refused(path)[0] == "not_a_file"


def test_reason_travels():
    """The error can be pickled, for a worker in another process, and keeps its reason."""
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("It is damaged.", reason="damaged")))

    assert (str(error), error.reason) == ("It is damaged.", "damaged")


def test_pillow_comes_late():
    """Importing the package does not import Pillow."""
    code = "import sys, flask_asok.recipes.images; sys.exit('PIL' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
