"""An animated GIF that was made smaller has its colours, its times and its loops."""

import struct

import pytest
from PIL import Image, ImageDraw

from flask_asok.recipes.images import resize_image

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}


def save(studio, frames, name="moving.gif", **options):
    first, *rest = frames
    return studio.save(first, name, save_all=True, append_images=rest, **{"duration": 100, "loop": 0, **options})


def seen(path, x=0.5, y=0.5):
    """The colour of one place and the milliseconds of each frame."""
    found = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frame = image.convert("RGB")
            pixel = frame.getpixel((int(x * frame.width), int(y * frame.height)))
            found.append((pixel, image.info.get("duration", 0)))
    return found


def are_near(one, other, bound=32):
    return all(abs(a - b) <= bound for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [3, 31, 32, 33, 48, 100, 257])
def test_colours_of_every_frame(studio, count):
    """However long it is, each of its frames keeps its colours."""
    meant = [list(COLOURS.values())[number % 3] for number in range(count)]
    path = save(studio, [Image.new("RGB", (120, 80), one) for one in meant])

    resize_image(path, 60)

    found = seen(path)
    assert len(found) == count
    assert all(are_near(one, other) for (one, _), other in zip(found, meant, strict=True))


def test_lamp(studio):
    """A small lamp that is lit in a frame now and then is red then, and not grey."""
    frames = []
    for number in range(40):
        frame = Image.linear_gradient("L").resize((240, 160)).convert("RGB")
        ImageDraw.Draw(frame).ellipse((100, 60, 140, 100), fill=(0, 255, 0) if number % 2 else (255, 0, 0))
        frames.append(frame)
    path = save(studio, frames)

    resize_image(path, 120)

    found = seen(path)
    assert len(found) == 40
    for number, (pixel, _) in enumerate(found):
        assert are_near(pixel, (0, 255, 0) if number % 2 else (255, 0, 0))


def test_more_colours_than_a_palette(studio):
    """Frames with more colours in all than one palette can hold get palettes of their own."""
    frames = []
    for number in range(40):
        frame = Image.new("RGB", (160, 160))
        for index in range(64):
            shade = (index * 4, (number * 37) % 256, (number * 91 + index) % 256)
            frame.paste(shade, (index % 8 * 20, index // 8 * 20, index % 8 * 20 + 20, index // 8 * 20 + 20))
        frames.append(frame)
    path = save(studio, frames)

    resize_image(path, 80)

    with Image.open(path) as image:
        assert image.n_frames == 40
        for number, frame in enumerate(frames):
            image.seek(number)
            small = image.convert("RGB")
            for index in (0, 27, 63):
                place = index % 8, index // 8
                meant = frame.getpixel((place[0] * 20 + 10, place[1] * 20 + 10))
                assert are_near(small.getpixel((place[0] * 10 + 5, place[1] * 10 + 5)), meant)


def test_rare_colour_of_one_frame(studio):
    """A few pixels that are red in one frame of hundreds are red."""
    frames = [Image.new("RGB", (120, 80), (number % 200, 90, 200 - number % 200)) for number in range(400)]
    frames[317].paste((255, 0, 0), (60, 40, 66, 46))
    path = save(studio, frames)

    resize_image(path, 60)

    # Neighbours of nearly the same colour may have become one.
    assert [are_near(pixel, (255, 0, 0), 48) for pixel, _ in seen(path, 0.53, 0.53)].count(True) == 1


def test_transparent_frames(studio):
    """Transparent ones keep the colours of every frame, too."""
    frames = []
    for number in range(64):
        frame = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
        frame.paste((*list(COLOURS.values())[number % 3], 255), (number, 20, number + 30, 50))
        frames.append(frame)
    path = save(studio, frames, disposal=2)

    resize_image(path, 50)

    with Image.open(path) as image:
        assert image.n_frames == 64
        for number in range(64):
            image.seek(number)
            small = image.convert("RGBA")
            assert are_near(small.getpixel((number // 2 + 7, 17))[:3], list(COLOURS.values())[number % 3])
            assert small.getpixel((48, 48))[3] == 0


def test_long_pause(studio):
    """Equal frames that last longer together than one frame can say stay two."""
    red, blue = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (200, 100), "blue")
    block = gif_block(0), gif_block(0), gif_block(1)
    head = b"GIF89a" + struct.pack("<HHBBB", 200, 100, 0x80, 0, 0) + b"\xff\0\0\0\0\xff"
    times = (40_000, 40_000, 100)
    data = head + b"".join(control(time) + one for time, one in zip(times, block, strict=True)) + b";"
    path = studio.put(data, "pause.gif")

    resize_image(path, 100)

    assert [time for _, time in seen(path)] == [400_000, 400_000, 1000]
    assert [pixel for pixel, _ in seen(path)] == [red.getpixel((0, 0))] * 2 + [blue.getpixel((0, 0))]


def control(hundredths):
    return struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 4, hundredths, 0, 0)


def gif_block(index):
    image = Image.new("P", (200, 100), index)
    return struct.pack("<BHHHHB", 0x2C, 0, 0, 200, 100, 0) + b"\x08" + image.tobytes("gif", ("P", 8, 0)) + b"\0"


@pytest.mark.parametrize("format", ["webp", "png", "avif"])
def test_long_pause_converted(studio, format):
    """So do they in the other formats, whose frames can last longer."""
    head = b"GIF89a" + struct.pack("<HHBBB", 200, 100, 0x80, 0, 0) + b"\xff\0\0\0\0\xff"
    data = head + (control(60_000) + gif_block(0)) * 120 + control(100) + gif_block(1) + b";"
    path = studio.put(data, "pause.gif")

    picture = resize_image(path, 100, to=f"{path}.{format}", format=format)

    assert sum(time for _, time in seen(picture.path)) == 120 * 600_000 + 1000


def test_frame_longer_than_the_format_can_say(studio):
    """A frame that lasts seven hours is written twice to a WebP, whose frames can last less than five."""
    frames = [Image.new("RGB", (100, 50), name) for name in COLOURS]
    path = save(studio, frames, "long.png", duration=[25_000_000, 100, 100])

    picture = resize_image(path, 50, to=f"{path}.webp", format="webp")

    assert sum(time for _, time in seen(picture.path)) == 25_000_200


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_fractions_add_up(studio, format):
    """Thirty frames of a thirtieth of a second last a second, though each is rounded."""
    frames = [Image.new("RGB", (100, 50), (number * 8, 0, 255 - number * 8)) for number in range(30)]
    path = save(studio, frames, "smooth.png", duration=1000 / 30)

    picture = resize_image(path, 50, to=f"{path}.{format}", format=format)

    assert sum(time for _, time in seen(picture.path)) == 1000


@pytest.mark.parametrize("colours", [2, 5, 150])
@pytest.mark.parametrize("size", [30, 60, 149])
def test_transparent_logo(studio, colours, size):
    """A still GIF of a few colours on a transparent ground keeps both at any size."""
    image = Image.new("RGBA", (150, 110), (0, 0, 0, 0))
    for number in range(colours):
        shade = (250 - number % 5 * 50, number * 13 % 256, number * 29 % 256, 255)
        ImageDraw.Draw(image).rectangle((20 + number // 4, 20, 129 - number // 4, 89), fill=shade)
    path = studio.save(image, "logo.gif")
    meant = image.resize((15, 11), Image.Resampling.BOX)

    resize_image(path, size)

    with Image.open(path) as written:
        found = written.convert("RGBA").resize((15, 11), Image.Resampling.BOX)
    assert max(written.size) == size
    for place in [(x, y) for x in range(4, 12) for y in range(4, 7)]:
        assert are_near(found.getpixel(place), meant.getpixel(place))
    assert found.getpixel((0, 0))[3] == found.getpixel((14, 10))[3] == 0
