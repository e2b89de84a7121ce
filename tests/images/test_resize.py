"""The name, format and bytes of an image that was resized."""

import os

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, resize_image


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"])
def test_left_alone(studio, format):
    """An image that fits and holds nothing private keeps its bytes, and is not even written."""
    path = studio.save(studio.photo((90, 60)), "photo", format)
    before, stat = studio.read(path), os.stat(path)

    picture = resize_image(path)

    assert not picture.changed
    assert studio.read(path) == before
    assert os.stat(path).st_ino == stat.st_ino


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"])
def test_twice(studio, format):
    """Doing it again changes nothing more."""
    path = studio.save(studio.photo((300, 200)), "photo", format)
    resize_image(path, 100)
    before = studio.read(path)

    again = resize_image(path, 100)

    assert not again.changed
    assert studio.read(path) == before


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_metadata_without_loss(studio, format):
    """Where only metadata is too much the pixels stay as they are, to the bit."""
    path = studio.save(studio.photo((90, 60)), "photo", format, exif=studio.exif(1))
    with Image.open(path) as before:
        pixels = before.tobytes()

    picture = resize_image(path)

    assert picture.changed
    with Image.open(path) as after:
        assert after.tobytes() == pixels
    assert not studio.metadata(path)


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "AVIF", "TIFF"])
def test_name_that_lies(studio, format):
    """An image that another program named photo.jpg keeps its true format, its pixels and its transparency."""
    image = studio.photo((1000, 500), "RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((0, 0, 0, 0), (0, 0, 500, 500))
    path = studio.save(image, "photo.jpg", format)

    picture = resize_image(path)

    assert picture.format == format.lower()
    with Image.open(path) as seen:
        assert seen.format == format
        assert seen.size == (800, 400)
        assert seen.convert("RGBA").getpixel((100, 200))[3] == 0
        assert seen.convert("RGBA").getpixel((700, 200))[3] == 255


def test_to_folder(studio, tmp_path):
    """Written to a folder it gets the extension of its format, and the original stays."""
    path = studio.save(studio.photo((1000, 1000)), "photo.jpeg")
    before = studio.read(path)
    (tmp_path / "public").mkdir()

    picture = resize_image(path, to=tmp_path / "public", format="webp")

    assert picture.path == os.fspath(tmp_path / "public" / "photo.webp")
    assert picture.format == "webp"
    assert size_of(picture.path) == (800, 800)
    assert studio.read(path) == before


def test_to_file(studio, tmp_path):
    """Written to a path it gets that name."""
    path = studio.save(studio.photo((200, 200)), "photo.png")

    picture = resize_image(path, 100, to=tmp_path / "other.avif", format="avif")

    assert picture.path == os.fspath(tmp_path / "other.avif")
    with Image.open(picture.path) as image:
        assert image.format == "AVIF"


def test_to_unchanged(studio, tmp_path):
    """An image that is fine is published as it is, byte for byte."""
    path = studio.save(studio.photo((90, 60)), "photo.jpg")

    picture = resize_image(path, to=tmp_path / "copy.jpg")

    assert not picture.changed
    assert studio.read(picture.path) == studio.read(path)


def test_format_needs_to(studio):
    """In place an image does not change its format under its name; the error says what to do."""
    path = studio.save(studio.photo((90, 60)), "photo.jpg")

    with pytest.raises(ValueError, match=r'Pass to="folder/"'):
        resize_image(path, format="webp")


def test_extension_that_would_lie(studio, tmp_path):
    """A name that does not fit the format is refused."""
    path = studio.save(studio.photo((90, 60)), "photo.png")

    with pytest.raises(ValueError, match=r"must end in \.png"):
        resize_image(path, to=tmp_path / "photo.jpg")


def test_to_itself(studio):
    """Written to its own path, or to the folder that it is in, is in place: the name stays, and so does the format."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")

    assert resize_image(path, 400, to=path).path == path
    assert resize_image(path, 200, to=studio.folder).path == path
    with pytest.raises(ValueError, match=r"must end in \.webp"):
        resize_image(path, to=path, format="webp")
    assert size_of(path) == (200, 200)
    assert studio.others(path) == []


def test_to_itself_in_its_true_format(studio):
    """A PNG named photo.jpg can be made what its name says."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg", "PNG")

    picture = resize_image(path, to=path, format="jpeg")

    assert picture.path == path
    with Image.open(path) as image:
        assert image.format == "JPEG"


def test_small_palette_stays_small(studio):
    """A drawing in few colours has a palette again when it was shrunk: its smoothed edges would cost much else."""
    image = Image.new("P", (1200, 1200))
    image.putpalette([0, 0, 0, 255, 255, 255, 200, 30, 30])
    for number in range(0, 1200, 60):
        image.paste(number // 60 % 3, (number, 0, number + 30, 1200))
        image.paste((number // 60 + 1) % 3, (0, number + 10, 1200, number + 20))
    path = studio.save(image, "drawing.png")

    picture = resize_image(path)

    with Image.open(path) as seen:
        assert seen.size == (800, 800)
        assert seen.mode == "P"
        assert picture.bytes < len(studio.encoded(seen.convert("RGB"), "PNG"))


def test_noise(studio):
    """The hardest image to compress, in the highest quality, is written too."""
    noise = Image.merge("RGB", [Image.effect_noise((300, 300), 200) for _ in range(3)])
    path = studio.save(noise, "noise.png")

    picture = resize_image(path, 299, to=f"{path}.jpg", format="jpeg", quality=94)

    assert size_of(picture.path) == (299, 299)


def test_quality(studio):
    """A lower quality gives a smaller file."""
    path = studio.save(studio.photo(), "photo.jpg")
    sizes = [resize_image(path, to=f"{path}-{quality}.jpg", quality=quality).bytes for quality in (30, 60, 90)]

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": "800"}, TypeError),
        ({"size": (800,)}, TypeError),
        ({"size": (800, 1.5)}, TypeError),
        ({"size": True}, TypeError),
        ({"size": 0}, ValueError),
        ({"size": 99_999}, ValueError),
        ({"fit": "squeeze"}, ValueError),
        ({"size": (800, None), "fit": "pad"}, ValueError),
        ({"focus": 0.5}, TypeError),
        ({"focus": ("left", 0)}, TypeError),
        ({"focus": (0, 2)}, ValueError),
        ({"format": "bmp", "to": "x.bmp"}, ValueError),
        ({"quality": 0}, ValueError),
        ({"quality": 101}, ValueError),
        ({"quality": "high"}, TypeError),
        ({"background": "no colour"}, ValueError),
        ({"background": (0, 0, 256)}, ValueError),
        ({"background": 7}, ValueError),
        ({"animated": "yes"}, TypeError),
        ({"keep_copyright": 1}, TypeError),
        ({"to": b"bytes"}, TypeError),
        ({"to": ""}, ValueError),
        ({"to": "/no/such/folder/photo.jpg"}, FileNotFoundError),
    ],
    ids=str,
)
def test_bad_options(studio, options, error):
    """An option that is no good is refused, and the image is as it was."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    before = studio.read(path)

    with pytest.raises(error):
        resize_image(path, **options)

    assert studio.read(path) == before


def scan(studio, size, name="scan.tif", **options):
    pages = [Image.new("RGB", size, colour) for colour in ("red", "blue")]
    return studio.save(pages[0], name, save_all=True, append_images=pages[1:], **options)


@pytest.mark.parametrize("to", [None, "scan.tif", "", "link/scan.tif"], ids=["in place", "itself", "folder", "link"])
def test_pages(studio, tmp_path, to):
    """A document of several pages is not reduced to its first one in place, by whichever way it is named."""
    path = scan(studio, (900, 900))
    before = studio.read(path)
    os.symlink(studio.folder, studio.folder / "link")

    with pytest.raises(ImageError) as caught:
        resize_image(path, to=None if to is None else studio.folder / to)

    assert caught.value.reason == "several_pages"
    assert studio.read(path) == before


@pytest.mark.parametrize("size", [(900, 900), (90, 90)], ids=["shrunk", "fits"])
def test_first_page(studio, tmp_path, size):
    """Elsewhere the first page is written, and nothing of the others, in which another program's name may be."""
    path = scan(studio, size)

    picture = resize_image(path, to=tmp_path / "first.tif")

    assert (picture.frames, picture.changed) == (1, True)
    with Image.open(picture.path) as image:
        assert image.n_frames == 1
        assert image.getpixel((5, 5)) == (255, 0, 0)
