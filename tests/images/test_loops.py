"""An animation is played as often as it was, in whatever format."""

import pytest
from PIL import Image

from flask_asok.recipes.images import resize_image
from flask_asok.recipes.images.avif_loops import plays, with_plays

TIMES = {0: "for ever", 1: "once", 2: "twice", 4: "four times", 60_000: "often"}


def loop_of(format, times):
    """What a file in this format says, to be played so often."""
    if format != "GIF":
        return times
    return {0: 0, 1: None}.get(times, times - 1)


def moving(studio, format, times, name="moving"):
    frames = [Image.new("RGB", (60, 40), one) for one in ("red", "lime", "blue")]
    options = {} if (loop := loop_of(format, times)) is None or format == "AVIF" else {"loop": loop}
    path = studio.save(frames[0], name, format, save_all=True, append_images=frames[1:], duration=100, **options)
    if format == "AVIF":
        studio.put(with_plays(studio.read(path), times), name)
    return path


def played(studio, path):
    """How often a file is played, 0 being for ever."""
    with Image.open(path) as image:
        loop = image.info.get("loop")
        if image.format == "AVIF":
            return plays(studio.read(path))
        if image.format == "GIF":
            return 1 if loop is None else loop + 1 if loop else 0
        return loop


@pytest.mark.parametrize("times", TIMES, ids=TIMES.values())
@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("format", ["webp", "png", "avif"])
def test_converted(studio, source, format, times):
    """In another format it is played as often, though the formats count differently."""
    path = moving(studio, source, times)

    picture = resize_image(path, 30, to=f"{path}.{format}", format=format)

    assert played(studio, picture.path) == times


@pytest.mark.parametrize("times", TIMES, ids=TIMES.values())
@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_kept(studio, format, times):
    """In its own format, too."""
    path = moving(studio, format, times)

    resize_image(path, 30)

    assert played(studio, path) == times


def test_as_often_as_it_can_say(studio):
    """A GIF that says 65,535 is played once more than a WebP can say."""
    path = moving(studio, "GIF", 65_536)

    picture = resize_image(path, 30, to=f"{path}.webp", format="webp")

    assert played(studio, picture.path) == 65_535


def test_loop_after_the_first_frame(studio):
    """A GIF that says it late says it, as browsers have it."""
    path = moving(studio, "GIF", 1)
    data = studio.read(path)
    studio.put(data[:-1] + b"!\xff\x0bNETSCAPE2.0\x03\x01\x04\0\0;", "moving")

    picture = resize_image(path, 30, to=f"{path}.webp", format="webp")

    assert played(studio, picture.path) == 5


def test_layout_of_avif(studio):
    """What is patched in an AVIF is where Pillow's encoder of this version puts it."""
    path = moving(studio, "AVIF", 0)
    data = studio.read(path)

    patched = with_plays(data, 3)

    assert (plays(data), plays(patched)) == (0, 3)
    assert len(patched) == len(data)
    with Image.open(path) as image:
        before = image.n_frames
    studio.put(patched, "moving")
    with Image.open(path) as image:
        image.seek(before - 1)
        image.load()


def test_avif_with_short_boxes():
    """Other encoders write shorter boxes, or say nothing: that is for ever."""
    assert plays(short_avif(300, 100, 1)) == 3
    assert plays(short_avif(0xFFFFFFFF, 100, 1)) == 0
    assert plays(short_avif(100, 100, 0)) == 1
    assert plays(b"") == 0
    assert plays(box(b"moov", box(b"trak", tkhd(100)))) == 0


def box(kind, body):
    return (len(body) + 8).to_bytes(4, "big") + kind + body


def tkhd(duration):
    return box(b"tkhd", bytes(20) + duration.to_bytes(4, "big") + bytes(60))


def short_avif(whole, once, flags):
    elst = box(b"elst", bytes((0, 0, 0, flags)) + b"\0\0\0\1" + once.to_bytes(4, "big") + bytes(8))
    track = box(b"trak", tkhd(whole) + box(b"edts", elst))
    # One box says its length in 64 bits.
    long = b"\0\0\0\1free" + (24).to_bytes(8, "big") + bytes(8)
    return long + box(b"moov", track)
