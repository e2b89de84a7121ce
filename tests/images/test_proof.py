"""What was written is read back: an original is not replaced by anything but what was meant."""

import os

import pytest
from PIL import Image

from flask_asok.recipes.images import (
    ImageError,
    animation,
    atomic,
    encode,
    frames,
    make_renditions,
    metadata,
    pipeline,
    resize_image,
)

ANIMATED = ["GIF", "WEBP", "PNG", "AVIF"]


def moving(studio, format, mode="RGB", **options):
    colours = ["red", "lime", "blue", "yellow", "red"]
    made = [Image.new("RGB", (120, 80), one) for one in colours]
    if mode == "RGBA":
        for frame in made:
            frame.putalpha(Image.new("L", frame.size, 255))
            frame.paste((0, 0, 0, 0), (60, 0, 120, 80))
    if mode == "P":
        made = [frame.quantize(palette=_palette()) for frame in made]
    return studio.save(
        made[0], "moving", format, save_all=True, append_images=made[1:], **{"duration": 100, "loop": 0, **options}
    )


def _palette():
    image = Image.new("P", (1, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
    return image


def refusal(studio, path, *arguments, **options):
    """Try to resize, see that everything is as it was, and return what was said."""
    files = {name: studio.read(studio.folder / name) for name in os.listdir(studio.folder)}

    with pytest.raises(ImageError) as caught:
        resize_image(path, *arguments, **options)

    assert caught.value.reason == "wrong_result"
    assert {name: studio.read(studio.folder / name) for name in os.listdir(studio.folder)} == files
    return str(caught.value)


def test_decoder_that_forgets(studio, monkeypatch):
    """A decoder that shows other frames once it went back to the start is noticed, and the animation kept."""

    def drawn(source):
        for number in range(source.frames):
            source.image.seek(number)
            source.image.load()
            yield source.image, source.image.info["duration"]

    path = moving(studio, "PNG", "P")
    monkeypatch.setattr(frames, "_drawn", drawn)

    said = refusal(studio, path, 60)

    assert "of its frames differ, of 5 that should" in said


@pytest.mark.parametrize("format", ANIMATED)
@pytest.mark.parametrize("fault", ["first only", "last is first", "one missing", "other colours"])
def test_wrong_frames(studio, monkeypatch, format, fault):
    """An animation whose frames are not those of the original is not published."""
    path = moving(studio, format)
    real, passes = frames.shown, []

    def shown(source):
        made = [(image.copy(), duration) for image, duration in real(source)]
        passes.append(source.path)
        # The first pass sees what there is; the others are for what is written.
        if len(passes) >= 2:
            if fault == "first only":
                made = [(made[0][0], duration) for _, duration in made]
            elif fault == "last is first":
                made[-2:] = [made[0], made[0]]
            elif fault == "one missing":
                made[2] = made[1]
            else:
                made = [(Image.eval(image.convert("RGB"), lambda value: value // 2), time) for image, time in made]
        return iter(made)

    monkeypatch.setattr(animation, "shown", shown)

    assert "frames differ" in refusal(studio, path, 60) or fault in ("last is first", "other colours")


@pytest.mark.parametrize("format", ["WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("option", ["duration", "loop"])
def test_wrong_times(studio, monkeypatch, format, option):
    """Nor one that lasts longer, or is played more often."""
    path = moving(studio, format)
    real = animation.save
    wrong = {"duration": 400, "loop": 7}[option]
    monkeypatch.setattr(animation, "save", lambda image, form, given: real(image, form, {**given, option: wrong}))
    if (format, option) == ("AVIF", "loop"):
        monkeypatch.setattr(animation.avif_loops, "with_plays", lambda data, times: animation_once(studio, path))

    said = refusal(studio, path, 60)

    assert {"duration": "it lasts", "loop": "it is played"}[option] in said


def animation_once(studio, path):
    from flask_asok.recipes.images.avif_loops import plays

    first = [Image.new("RGB", (60, 40), one) for one in ("red", "lime", "blue", "yellow", "red")]
    data = studio.encoded(first[0], "AVIF", save_all=True, append_images=first[1:], duration=100)
    start = data.index(b"elst") + 4
    data = data[: start + 3] + b"\0" + data[start + 4 :]
    assert plays(data) == 1
    return data


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_lost_transparency_of_frames(studio, monkeypatch, format):
    """Nor one whose transparent part got a colour."""
    path = moving(studio, "GIF", "RGBA", disposal=2) if format == "GIF" else moving(studio, "PNG", "RGBA")
    options = {"to": f"{path}.webp", "format": "webp"} if format == "WEBP" else {}
    real, passes = frames.shown, []

    def shown(source):
        passes.append(source)
        for image, duration in real(source):
            yield (image if len(passes) == 1 else image.convert("RGBA").convert("RGB")), duration

    monkeypatch.setattr(animation, "shown", shown)

    assert "transparent" in refusal(studio, path, 60, **options)


PICTURES = ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"]


@pytest.mark.parametrize("format", PICTURES)
@pytest.mark.parametrize("fault", ["black", "size", "format", "cut off", "mirrored", "nothing"])
def test_wrong_still(studio, monkeypatch, format, fault):
    """A still image that is another one, or half of one, is not published."""
    path = studio.save(studio.corners((240, 160)), "photo", format)
    real = encode.encode

    def encoded(image, form, **options):
        if fault == "black":
            image = Image.new(image.mode, image.size)
        elif fault == "size":
            image = image.crop((0, 0, image.width - 1, image.height))
        elif fault == "mirrored":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        data = real(image, "png" if fault == "format" and form != "png" else form, **options)
        if fault == "format" and form == "png":
            data = real(image, "jpeg", **options)
        return {"cut off": data[: len(data) // 2], "nothing": b""}.get(fault, data)

    monkeypatch.setattr(pipeline, "encode", encoded)
    monkeypatch.setattr(pipeline, "encode_small", lambda *args, **options: None)

    refusal(studio, path, 120)


def test_lost_transparency(studio, monkeypatch):
    """Nor is one without the transparency that it had."""
    image = Image.new("RGBA", (240, 160), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 120, 160))
    path = studio.save(image, "photo.png")
    real = encode.encode
    monkeypatch.setattr(pipeline, "encode", lambda image, form, **options: real(image.convert("RGB"), form, **options))

    assert "transparent" in refusal(studio, path, 120)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("fault", ["cut off", "another", "turned over"])
def test_wrong_strip(studio, monkeypatch, format, fault):
    """What is only to lose its metadata is not replaced by something that lost more."""
    options = {"comment": b"secret remark"} if format in ("JPEG", "GIF") else {"exif": studio.exif(1)}
    path = studio.save(studio.corners((240, 160)), "photo", format, **options)
    other = studio.corners((240, 160)).transpose(Image.Transpose.ROTATE_180)
    data = {
        "cut off": studio.read(path)[: -os.path.getsize(path) // 2],
        "another": studio.encoded(studio.photo((240, 160)), format),
        "turned over": studio.encoded(other, format),
    }[fault]
    monkeypatch.setattr(metadata, "strip", lambda *args: data)

    refusal(studio, path)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_wrong_strip_of_an_animation(studio, monkeypatch, format):
    """The same for an animation, that lost a frame."""
    path = moving(studio, format)
    shorter = [Image.new("RGB", (120, 80), one) for one in ("red", "lime", "blue")]
    data = studio.encoded(shorter[0], format, save_all=True, append_images=shorter[1:], duration=100, loop=0)
    monkeypatch.setattr(metadata, "strip", lambda *args: data)

    assert "3 of its frames differ, of 5" in refusal(studio, path)


def test_broken_on_the_disk(studio, monkeypatch):
    """It is the file that is read back, and not what was to be written to it."""
    path = studio.save(studio.photo((300, 200)), "photo.jpg")
    real = atomic.flush_to_disk

    def flush_to_disk(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        real(descriptor)

    monkeypatch.setattr(atomic, "flush_to_disk", flush_to_disk)

    assert "it cannot be read" in refusal(studio, path, 200)


def test_elsewhere(studio, monkeypatch):
    """A file that was written to before is kept in the same way."""
    path = studio.save(studio.corners((240, 160)), "photo.png")
    there = resize_image(path, 120, to=studio.folder / "small.webp", format="webp").path
    made = make_renditions(path, {"thumb": 60}, ("webp",))
    before = studio.read(there), studio.read(made["thumb"].path)
    real = encode.encode

    def black(image, form, **options):
        return real(Image.new("RGB", image.size), form, **options)

    monkeypatch.setattr(pipeline, "encode", black)

    refusal(studio, path, 120, to=there, format="webp")
    with pytest.raises(ImageError, match="another picture"):
        make_renditions(path, {"thumb": 60}, ("webp",))
    assert (studio.read(there), studio.read(made["thumb"].path)) == before


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("quality", [1, 10, 40, 100])
@pytest.mark.parametrize("size", [1, 7, 33, 200])
def test_low_quality_is_no_fault(studio, format, quality, size):
    """An image in the lowest quality that was asked for, however small, is published."""
    path = studio.save(studio.corners((400, 300)), "photo.png")

    picture = resize_image(path, size, to=f"{path}.{format}", format=format, quality=quality)

    assert max(picture.width, picture.height) == size


RED, LIME, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def chequered(size, *colours):
    """Return an image whose pixels have these colours in turn."""
    image = Image.new("RGB", size)
    image.putdata([colours[(x + y) % len(colours)] for y in range(size[1]) for x in range(size[0])])
    return image


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize(
    "colours", [(RED, BLUE), (LIME, BLUE), (RED, BLACK), (BLUE, WHITE), (RED, LIME, BLUE)], ids=str
)
@pytest.mark.parametrize("size", [(64, 64), (300, 200)])
def test_fine_patterns_are_no_fault(studio, format, colours, size):
    """
    Nor is it a fault that a format smooths colours that change from pixel to pixel.

    Where it shares them among pixels, and their mean becomes another one, each pixel gets its own.
    """
    path = studio.save(chequered(size, *colours), "photo.png")

    made = make_renditions(path, {"full": 300}, (format,))["full"]
    picture = resize_image(path, to=f"{path}.{format}", format=format)

    for file in (made, picture):
        assert (file.format, file.width, file.bytes) == (format, size[0], os.path.getsize(file.path))


def test_fine_pattern_in_place(studio):
    """So it is in place, where a rendition stays one."""
    original = studio.save(chequered((64, 64), BLUE, WHITE), "photo.png")
    path = make_renditions(original, {"full": 64}, ("jpeg",))["full"].path

    picture = resize_image(path, quality=70)

    assert (picture.changed, picture.bytes) == (True, os.path.getsize(path))
    assert make_renditions(original, {"full": 64}, ("jpeg",))["full"].path == path


def test_animation_of_equal_frames(studio):
    """An animation in which nothing moves may become a still image."""
    same = [Image.new("RGB", (120, 80), "red") for _ in range(4)]
    data = studio.encoded(same[0], "GIF")
    start = data.index(b",", 13)
    path = studio.put(data[:start] + data[start:-1] * 4 + b";", "still.gif")

    for format in ("webp", "png", "avif"):
        resize_image(path, 60, to=f"{path}.{format}", format=format)
    resize_image(path, 60)

    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["gif", "webp", "png", "avif"])
@pytest.mark.parametrize("original", ["GIF", "PNG"])
def test_a_fade_is_no_fault(studio, original, format):
    """Nor that of small steps from one image to another a format shows several at once."""
    ends = []
    for colour, box in (("red", (20, 10, 90, 60)), ("gold", (60, 40, 130, 100))):
        ends.append(Image.new("RGB", (150, 110), "linen"))
        ends[-1].paste(colour, box)
    steps = [Image.blend(*ends, step / 30) for step in range(31)]
    path = studio.save(steps[0], "fade", original, save_all=True, append_images=steps[1:], duration=40, loop=0)
    options = {} if format == original.lower() else {"to": f"{path}.{format}", "format": format}
    if format == "gif" and options:
        pytest.skip("No other format becomes a GIF.")

    assert resize_image(path, 60, **options).frames == 31
