"""Colours look as they did, in sRGB, however they were written down."""

import io

import pytest
from PIL import Image, ImageCms

from flask_asok.recipes.images import resize_image

SQUARE = (200, 200)


def pixel(path, at=(20, 20)):
    with Image.open(path) as image:
        return image.convert("RGB").getpixel(at)


def near(one, other, by=4):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def managed(image, icc):
    """What a colour-managed program shows."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return converted.getpixel((20, 20))


@pytest.mark.parametrize("profile", ["P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
def test_wide_colours(studio, profile, format, box):
    """A photo in a wider colour space is converted, and does not look pale without its profile."""
    image = Image.new("RGB", SQUARE, (200, 90, 60))
    icc = studio.rgb_profile(profile)
    path = studio.save(image, "photo", format, icc_profile=icc, quality=95)
    with Image.open(path) as stored:
        expected = managed(stored.convert("RGB"), icc)

    resize_image(path, box)

    assert not near(expected, (200, 90, 60), 10)
    assert near(pixel(path), expected)
    assert "icc_profile" not in studio.metadata(path)


@pytest.mark.parametrize("profile", ["P3", "Adobe RGB", "ProPhoto"])
def test_chart(studio, profile):
    """A chart keeps all of its colours, though converted and with smoothed edges it is larger than it was."""
    lights = (10, 60, 120, 180, 240)
    chart = Image.new("RGB", (1000, 200))
    for number in range(125):
        left, top = number % 25 * 40, number // 25 * 40
        colour = lights[number // 25], lights[number // 5 % 5], lights[number % 5]
        chart.paste(colour, (left, top, left + 40, top + 40))
    icc = studio.rgb_profile(profile)
    path = studio.save(chart, "chart.png", icc_profile=icc)
    there = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    expected = ImageCms.profileToProfile(chart, there, ImageCms.createProfile("sRGB"), outputMode="RGB")

    resize_image(path, 500)

    with Image.open(path) as seen:
        seen = seen.convert("RGB")
        for number in range(125):
            at = number % 25 * 20 + 10, number // 25 * 20 + 10
            assert near(seen.getpixel(at), expected.getpixel((at[0] * 2, at[1] * 2)), 1)


def test_wide_colours_with_transparency(studio):
    """Transparency goes along when colours are converted."""
    image = Image.new("RGBA", SQUARE, (200, 90, 60, 255))
    image.paste((0, 0, 0, 0), (100, 0, 200, 200))
    icc = studio.rgb_profile("ProPhoto")
    path = studio.save(image, "drawing.png", icc_profile=icc)

    resize_image(path, 50)

    assert near(pixel(path), managed(image.convert("RGB"), icc))
    with Image.open(path) as seen:
        assert seen.getpixel((40, 20))[3] == 0


def test_srgb_by_any_name(studio):
    """A profile that says sRGB in other words is no reason to write a photo anew."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = studio.save(studio.photo((90, 60)), "photo.jpg", icc_profile=icc)
    before = studio.read(path)

    picture = resize_image(path)

    assert not picture.changed
    assert studio.read(path) == before


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(studio, format):
    """Printing colours without a profile become those of a screen."""
    path = studio.save(Image.new("CMYK", SQUARE, (0, 255, 255, 0)), "print", format)

    resize_image(path, 50)

    with Image.open(path) as image:
        assert image.mode == "RGB"
    assert near(pixel(path), (255, 0, 0), 8)


def test_cmyk_with_profile(studio):
    """Printing colours with a profile are converted by it, also where the image fits already."""
    icc = studio.cmyk_profile()
    image = Image.new("CMYK", SQUARE, (255, 0, 0, 0))
    path = studio.save(image, "print.tif", "TIFF", icc_profile=icc)
    expected = managed(image, icc)

    resize_image(path)

    with Image.open(path) as seen:
        assert seen.mode == "RGB"
    assert near(pixel(path), expected)
    assert not near(expected, (0, 255, 255), 60)


def test_lab(studio):
    """LAB becomes sRGB."""
    image = Image.new("LAB", SQUARE, (137, 208, 195))
    path = studio.save(image, "lab.tif", "TIFF")

    resize_image(path, 50)

    red, green, blue = pixel(path)
    assert red > 200
    assert green < 60
    assert blue < 60


def test_grey_profile_of_a_colour_picture(studio):
    """A profile that is not for these colours, or broken, is ignored."""
    for icc in (studio.cmyk_profile(), b"no profile at all", b""):
        path = studio.save(Image.new("RGB", SQUARE, (200, 90, 60)), "photo.png", icc_profile=icc)

        resize_image(path, 50)

        assert near(pixel(path), (200, 90, 60), 1)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits(studio, mode, format):
    """16 bits are scaled to 8; cutting them off would make almost all of it white."""
    if mode == "I;16B" and format == "PNG":
        pytest.skip("PNG has one order of bytes only.")
    image = Image.new("I", SQUARE, 32896)
    image.paste(4096, (100, 0, 200, 200))
    image = image.convert("I;16")
    if mode == "I;16B":
        raw = image.tobytes("raw", "I;16B")
        image = Image.frombytes("I;16B", SQUARE, raw)
    path = studio.save(image, "scan", format)

    resize_image(path, 50)

    assert near(pixel(path), (128, 128, 128), 1)
    assert near(pixel(path, (40, 20)), (16, 16, 16), 1)


@pytest.mark.parametrize(("mode", "white"), [("F", 1.0), ("F", 255.0), ("F", 65535.0), ("I", 65535)])
def test_numbers(studio, mode, white):
    """An image in numbers of any size is shown from black to white."""
    image = Image.new(mode, SQUARE, 0)
    image.paste(white, (0, 0, 100, 200))
    path = studio.save(image, "numbers.tif")

    resize_image(path, 50, to=f"{path}.png", format="png")

    assert near(pixel(f"{path}.png"), (255, 255, 255), 1)
    assert near(pixel(f"{path}.png", (40, 20)), (0, 0, 0), 1)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_smooth_edges(studio, mode):
    """Edges of an image in black and white, or with a palette, are smoothed."""
    image = Image.new("L", (400, 400), 255)
    for number in range(0, 400, 8):
        image.paste(0, (number, 0, number + 3, 400))
    path = studio.save(image.convert(mode), "lines.png")

    resize_image(path, 130)

    with Image.open(path) as seen:
        greys = set(seen.convert("L").tobytes())
    assert any(40 < grey < 215 for grey in greys)


def test_palette_with_transparency(studio):
    """A transparent colour of a palette stays transparent, and does not bleed into its neighbours."""
    image = Image.new("P", SQUARE, 0)
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.paste(1, (0, 0, 101, 200))
    path = studio.save(image, "drawing.png", transparency=0)

    resize_image(path, 50)

    with Image.open(path) as seen:
        seen = seen.convert("RGBA")
        assert seen.getpixel((40, 20))[3] == 0
        assert near(seen.getpixel((10, 20)), (255, 0, 0, 255), 1)
        red, green, *_ = seen.getpixel((25, 20))
        assert green < 30 or seen.getpixel((25, 20))[3] == 0
        assert red > 200 or seen.getpixel((25, 20))[3] == 0


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparent_colour(studio, mode):
    """A colour that stands for transparency does so in the result."""
    clear = (255, 0, 255) if mode == "RGB" else 7
    image = Image.new(mode, SQUARE, clear)
    image.paste(128 if mode == "L" else (10, 20, 30), (0, 0, 100, 200))
    path = studio.save(image, "drawing.png", transparency=clear)

    resize_image(path, 50)

    with Image.open(path) as seen:
        seen = seen.convert("RGBA")
        assert seen.getpixel((40, 20))[3] == 0
        assert seen.getpixel((10, 20))[3] == 255


@pytest.mark.parametrize(("background", "colour"), [(None, (255, 255, 255)), ("#102030", (16, 32, 48))])
def test_transparency_to_jpeg(studio, background, colour):
    """For a JPEG transparent parts are laid on a background."""
    image = Image.new("RGBA", SQUARE, (0, 0, 0, 0))
    path = studio.save(image, "drawing.png")

    picture = resize_image(path, 50, to=f"{path}.jpg", format="jpeg", background=background)

    assert near(pixel(picture.path), colour, 3)


def test_grey_stays_grey(studio):
    """A grey photo is not written in three channels."""
    path = studio.save(studio.photo((400, 300), "L"), "grey.jpg")

    resize_image(path, 100)

    with Image.open(path) as image:
        assert image.mode == "L"


def test_bands_match(studio):
    """Averaged band by band, a large drawing is the same as in one go."""
    image = studio.photo((2100, 1900), "RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    path = studio.save(image, "large.png", compress_level=1)
    expected = image.resize((210, 190), Image.Resampling.LANCZOS)

    resize_image(path, 210)

    with Image.open(path) as seen:
        assert seen.size == expected.size
        apart = [abs(a - b) for a, b in zip(seen.tobytes(), expected.tobytes(), strict=True)]
    assert sum(apart) / len(apart) < 2
