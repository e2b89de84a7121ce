"""How large an image becomes, and which part of it is kept."""

import os

import pytest
from PIL import Image, ImageChops, ImageStat

from flask_asok.recipes.images import Picture, resize_image
from flask_asok.recipes.images.limits import current_limits
from flask_asok.recipes.images.source import Source


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_fits(studio):
    """A photo is shrunk in place to fit 800 x 800, with its shape kept."""
    path = studio.save(studio.photo((1600, 1200)), "photo.jpg")

    picture = resize_image(path)

    assert size_of(path) == (800, 600)
    assert picture == Picture(
        path=path,
        format="jpeg",
        width=800,
        height=600,
        bytes=os.path.getsize(path),
        changed=True,
        original_width=1600,
        original_height=1200,
        original_bytes=picture.original_bytes,
    )


@pytest.mark.parametrize("size", [(1601, 1067), (999, 4000), (3000, 2), (1000, 800), (801, 801)])
def test_same_as_thumbnail(studio, size):
    """The size is the one that the recipe of the page gives, to the pixel."""
    image = Image.new("RGB", size)
    path = studio.save(image, "photo.png")
    image.thumbnail((800, 800))

    picture = resize_image(path)

    assert (picture.width, picture.height) == image.size == size_of(path)


@pytest.mark.parametrize(
    ("least", "decoded", "fraction"),
    [
        ((200, 150), (201, 151), 1 / 8),
        ((201, 151), (401, 301), 1 / 4),
        ((401, 1), (601, 451), 3 / 8),
        ((1, 451), (801, 601), 1 / 2),
        ((801, 1), (1601, 1201), 1),
    ],
    ids=["1/8", "1/4", "3/8", "1/2", "whole"],
)
def test_decoded_small(studio, least, decoded, fraction):
    """A large JPEG is decoded at the smallest fraction that is no smaller than what is wanted."""
    path = studio.save(studio.photo((1601, 1201)), "photo.jpg")

    with Source.open(path, current_limits()) as source:
        image, covered = source.shrink_on_load(least)

    assert image.size == decoded
    assert covered == (1601 * fraction, 1201 * fraction)


FRACTIONS = {"1/8": 100, "1/4": 200, "3/8": 300, "1/2": 500, "whole": 800}
JPEGS = {
    "4:2:0": ("RGB", {"subsampling": 2}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_blocks": 5}),
    "RGB": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
}


@pytest.mark.parametrize("box", FRACTIONS.values(), ids=FRACTIONS)
@pytest.mark.parametrize(("mode", "options"), JPEGS.values(), ids=JPEGS)
def test_nothing_shifts(studio, mode, options, box):
    """A JPEG that is decoded at a fraction of an odd size shows everything at its place."""
    image = Image.new("L", (1601, 1201))
    image.paste(255, (1500, 0, 1516, 1201))
    image.paste(255, (0, 1100, 1601, 1116))
    path = studio.save(image.convert(mode), "lines.jpg", quality=95, **options)

    picture = resize_image(path, box, to=f"{path}.png", format="png")

    with Image.open(picture.path) as seen:
        grey = seen.convert("L")
    scale = box / 1601
    row = [grey.getpixel((x, grey.height // 3)) for x in range(grey.width)]
    column = [grey.getpixel((grey.width // 3, y)) for y in range(grey.height)]
    for line, at in ((row, 1508), (column, 1108)):
        centre = sum((x + 0.5) * light for x, light in enumerate(line)) / sum(line)
        assert centre == pytest.approx(at * scale, abs=0.15)


@pytest.mark.parametrize("box", FRACTIONS.values(), ids=FRACTIONS)
@pytest.mark.parametrize(("mode", "options"), JPEGS.values(), ids=JPEGS)
def test_looks_the_same(studio, mode, options, box):
    """A JPEG that is decoded at a fraction of its size looks like one that was decoded whole."""
    path = studio.save(studio.photo((1601, 1201)).convert(mode), "photo.jpg", quality=90, **options)

    picture = resize_image(path, box, to=f"{path}.png", format="png")

    with Image.open(path) as whole, Image.open(picture.path) as seen:
        careful = whole.convert("RGB").resize(seen.size, Image.Resampling.LANCZOS)
        apart = ImageStat.Stat(ImageChops.difference(careful, seen.convert("RGB")))
    assert max(apart.rms) < 5


def test_path_object(studio):
    """The path may be a pathlib.Path."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")

    picture = resize_image(studio.folder / "photo.jpg", 100)

    assert picture.path == path
    assert size_of(path) == (100, 100)


def test_one_bound(studio):
    """None leaves a side free."""
    path = studio.save(studio.photo((400, 2000)), "long.jpg")

    resize_image(path, (200, None))

    assert size_of(path) == (200, 1000)


def test_cover(studio):
    """A covered size is filled, and what is too much is cut off around the middle."""
    path = studio.save(studio.corners((800, 400)), "corners.png")

    resize_image(path, (100, 100), fit="cover")

    assert size_of(path) == (100, 100)
    assert studio.read_corners(path) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize(("focus", "left"), [((0.0, 0.5), "red"), ((1.0, 0.5), "green")])
def test_focus(studio, focus, left):
    """What is in focus is not cut off."""
    path = studio.save(studio.corners((800, 400)), "corners.png")

    resize_image(path, (100, 100), fit="cover", focus=focus)

    seen = studio.read_corners(path)
    assert seen[0] == seen[1] == left


def test_focus_of_a_turned_photo(studio):
    """The focus is meant as the photo is seen, not as it is stored."""
    image = studio.corners((800, 400)).transpose(studio.turns[6])
    path = studio.save(image, "turned.jpg", exif=studio.exif(6))

    resize_image(path, (100, 100), fit="cover", focus=(0, 0))

    assert studio.read_corners(path) == ["red", "red", "blue", "blue"]


def test_cover_a_small_one(studio):
    """An image smaller than the size gets its shape and is not enlarged."""
    path = studio.save(studio.photo((60, 30)), "small.png")

    picture = resize_image(path, (400, 400), fit="cover")

    assert (picture.width, picture.height) == (30, 30)


def test_pad(studio):
    """A padded image has exactly the size, with bars in the colour that was asked for."""
    path = studio.save(Image.new("RGB", (400, 200), "red"), "red.png")

    resize_image(path, (100, 100), fit="pad", background="#0000ff")

    with Image.open(path) as image:
        assert image.size == (100, 100)
        assert image.convert("RGB").getpixel((50, 5)) == (0, 0, 255)
        assert image.convert("RGB").getpixel((50, 50)) == (255, 0, 0)


def test_pad_transparent(studio):
    """Without a colour the bars are transparent, where the format can."""
    path = studio.save(Image.new("RGB", (400, 200), "red"), "red.png")

    resize_image(path, (100, 100), fit="pad")

    with Image.open(path) as image:
        assert image.getpixel((50, 5))[3] == 0
        assert image.getpixel((50, 50)) == (255, 0, 0, 255)


def test_pad_jpeg(studio):
    """A JPEG, which knows no transparency, gets white bars."""
    path = studio.save(Image.new("RGB", (400, 200), "red"), "red.jpg")

    resize_image(path, (100, 100), fit="pad")

    with Image.open(path) as image:
        assert min(image.getpixel((50, 5))) > 250
