"""Animations move as they did."""

import pytest
from PIL import Image, ImageDraw

from flask_asok.recipes.images import ImageError, resize_image

DURATIONS = [100, 200, 50, 400]
ANIMATED = ["GIF", "WEBP", "PNG", "AVIF"]


def frames_of(count=4, size=(200, 120), mode="RGB"):
    """Something red that moves from left to right."""
    frames = []
    for number in range(count):
        frame = Image.new(mode, size, (20, 40, 200) if mode == "RGB" else (0, 0, 0, 0))
        left = number * size[0] // count
        shape = ImageDraw.Draw(frame).ellipse if mode == "RGBA" else ImageDraw.Draw(frame).rectangle
        shape((left, 40, left + 40, 80), fill=(250, 30, 30))
        frames.append(frame)
    return frames


def animation(studio, format, mode="RGB", size=(200, 120), **options):
    first, *rest = frames_of(mode=mode, size=size)
    options = {"duration": DURATIONS, "loop": 0, **options}
    if format == "GIF" and mode == "RGBA":
        options["disposal"] = 2
    if format == "WEBP":
        options["lossless"] = True
    return studio.save(first, "moving", format, save_all=True, append_images=rest, **options)


def look(path):
    """The frames, their durations and the number of loops."""
    with Image.open(path) as image:
        frames, durations = [], []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            frames.append(image.convert("RGBA"))
            durations.append(image.info.get("duration"))
        return frames, durations, image.info.get("loop")


def place_of(frame):
    """The left edge of the red square, as a part of the width."""
    red = [x for x in range(frame.width) if frame.getpixel((x, frame.height // 2))[0] > 150]
    return min(red) / frame.width


@pytest.mark.parametrize("format", ANIMATED)
def test_kept(studio, format):
    """A shrunk animation has all its frames, each at its place and for its time."""
    path = animation(studio, format)

    picture = resize_image(path, 100)

    frames, durations, loop = look(path)
    assert (picture.format, picture.frames) == (format.lower(), 4)
    assert [frame.size for frame in frames] == [(100, 60)] * 4
    assert durations == DURATIONS
    assert loop == (None if format == "AVIF" else 0)
    for number, frame in enumerate(frames):
        assert place_of(frame) == pytest.approx(number / 4, abs=0.04)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_transparent(studio, format):
    """What was transparent is so in every frame: nothing of the one before shines through."""
    path = animation(studio, format, mode="RGBA")

    resize_image(path, 100)

    frames, durations, _ = look(path)
    assert sum(durations) == sum(DURATIONS)
    for number, frame in enumerate(frames):
        assert place_of(frame) == pytest.approx(number / 4, abs=0.04)
        other = (number + 2) % 4
        assert frame.getpixel((other * 25 + 10, 30))[3] == 0


def test_transparent_around_a_square(studio):
    """All around an opaque thing that moves is transparent in a WebP, too."""
    first, *rest = (Image.new("RGBA", (200, 100), (0, 0, 0, 0)) for _ in range(3))
    for number, frame in enumerate((first, *rest)):
        frame.paste((250, 30, 30, 255), (number * 40, 40, number * 40 + 40, 80))
    path = studio.save(first, "moving.png", save_all=True, append_images=rest, duration=100)

    picture = resize_image(path, to=f"{path}.webp", format="webp")

    for frame in look(picture.path)[0]:
        assert frame.getpixel((190, 5))[3] == 0


@pytest.mark.parametrize("loop", [0, 3])
@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_loop(studio, format, loop):
    """It repeats as often as before."""
    path = animation(studio, format, loop=loop)

    resize_image(path, 100)

    assert look(path)[2] == loop


def test_gif_that_plays_once(studio):
    """A GIF that plays once does so still, also as a WebP."""
    path = animation(studio, "GIF", loop=None)

    picture = resize_image(path, 100, to=f"{path}.webp", format="webp")
    resize_image(path, 100)

    assert look(path)[2] is None
    assert look(picture.path)[2] == 1


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
@pytest.mark.parametrize("format", ["webp", "png", "avif"])
def test_converted(studio, source, format):
    """An animation stays one in another format that can move."""
    path = animation(studio, source)

    picture = resize_image(path, 100, to=f"{path}.{format}", format=format)

    frames, durations, _ = look(picture.path)
    assert durations == DURATIONS
    assert place_of(frames[3]) == pytest.approx(0.75, abs=0.04)


def test_stand_in(studio):
    """The stand-in that an animated PNG has for old programs is no frame of it."""
    first, *rest = frames_of()
    path = studio.save(
        Image.new("RGB", (200, 120), "white"),
        "moving.png",
        save_all=True,
        append_images=[first, *rest],
        duration=DURATIONS,
        default_image=True,
    )

    picture = resize_image(path, 100)

    frames, durations, _ = look(path)
    assert picture.frames == len(frames) == 4
    assert durations == DURATIONS
    assert place_of(frames[0]) < 0.04


def test_to_jpeg(studio):
    """A JPEG cannot move: it gets the first frame."""
    path = animation(studio, "GIF")

    picture = resize_image(path, 100, to=f"{path}.jpg", format="jpeg")

    frames, _, _ = look(picture.path)
    assert picture.frames == len(frames) == 1
    assert place_of(frames[0]) < 0.04


def test_not_animated(studio):
    """Only the first frame is kept where that is asked for."""
    path = animation(studio, "WEBP")

    picture = resize_image(path, animated=False)

    assert picture.frames == len(look(path)[0]) == 1


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_left_alone(studio, format):
    """An animation that fits keeps its bytes."""
    path = animation(studio, format)
    before = studio.read(path)

    picture = resize_image(path)

    assert (picture.changed, picture.frames) == (False, 4)
    assert studio.read(path) == before


def test_comment_of_a_gif(studio):
    """A comment is cut out of an animation without touching a frame."""
    path = animation(studio, "GIF", comment=b"secret remark")
    before = look(path)

    picture = resize_image(path)

    assert picture.removed == ("comment",)
    assert b"secret" not in studio.read(path)
    assert look(path)[1:] == before[1:]
    assert [frame.tobytes() for frame in look(path)[0]] == [frame.tobytes() for frame in before[0]]


def test_fit(studio):
    """Every frame is cropped alike."""
    path = animation(studio, "GIF")

    resize_image(path, (60, 60), fit="cover", focus=(0, 0.5))

    frames, durations, _ = look(path)
    assert {frame.size for frame in frames} == {(60, 60)}
    assert sum(durations) == sum(DURATIONS)
    assert place_of(frames[0]) < 0.04


def test_turned(studio):
    """An orientation holds for every frame."""
    first, *rest = (frame.transpose(studio.turns[6]) for frame in frames_of())
    path = studio.save(
        first, "moving.webp", save_all=True, append_images=rest, duration=DURATIONS, exif=studio.exif(6), lossless=True
    )

    picture = resize_image(path, 100)

    frames, durations, _ = look(path)
    assert (picture.width, picture.height) == (100, 60)
    assert durations == DURATIONS
    assert place_of(frames[2]) == pytest.approx(0.5, abs=0.04)


def test_what_leaves_the_screen(studio):
    """A frame of a GIF that is larger than its screen is cut off, as browsers do, and distorts nothing."""
    data = studio.encoded(frames_of(1)[0], "GIF")
    large = studio.encoded(Image.new("RGB", (400, 240), (20, 40, 200)), "GIF")
    path = studio.put(data[:-1] + large[large.index(b",") :], "moving.gif")

    picture = resize_image(path, 100)

    frames, _, _ = look(path)
    assert (picture.width, picture.height) == (100, 60)
    assert {frame.size for frame in frames} == {(100, 60)}


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("box", [800, 100], ids=["fits", "shrunk"])
def test_cut_off(studio, format, box):
    """An animation that breaks off is refused and not shortened."""
    path = animation(studio, format)
    data = studio.read(path)
    studio.put(data[: len(data) * 3 // 4], "moving")

    with pytest.raises(ImageError) as caught:
        resize_image(path, box)

    assert caught.value.reason == "damaged"
    assert len(studio.read(path)) == len(data) * 3 // 4
    assert studio.others(path) == []
