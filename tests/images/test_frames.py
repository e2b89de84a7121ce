"""Every frame of an animation is drawn as browsers draw it, whatever kind of pixels it has."""

import struct
import zlib

import pytest
from PIL import Image

from flask_asok.recipes.images import resize_image

RED, GREEN, BLUE, YELLOW = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 0, 255)
GREY, NOTHING = (128, 128, 128, 255), (0, 0, 0, 0)
SIZE = (64, 48)
KEEP, BACKGROUND, PREVIOUS = 0, 1, 2
"""The ways in which a frame of a PNG leaves."""
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pixels_of(value, size, bits, interlaced):
    """The data of a frame of one colour, whose pixel is `value`, of so many bits."""
    width, height = size
    passes = PASSES if interlaced else [(0, 0, 1, 1)]
    rows = b""
    for left, top, across, down in passes:
        wide, high = -(-(width - left) // across), -(-(height - top) // down)
        if wide > 0 and high > 0:
            row = value * wide
            if bits < 8:
                row = bytes([int(f"{value[0]:0{bits}b}" * (8 // bits), 2)]) * -(-wide * bits // 8)
            rows += (b"\0" + row) * high
    return zlib.compress(rows)


def apng(frames, kind, bits=8, *, palette=b"", transparency=b"", stand_in=None, interlaced=0, loop=0, channels=1):
    """An animated PNG, packed by hand. A frame is a pixel, and perhaps a box, a way to leave, a way to be drawn."""
    size = bits * channels
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, bits, kind, 0, 0, interlaced))
    out += chunk(b"acTL", struct.pack(">II", len(frames), loop))
    out += (chunk(b"PLTE", palette) if palette else b"") + (chunk(b"tRNS", transparency) if transparency else b"")
    number = 0
    if stand_in is not None:
        out += chunk(b"IDAT", pixels_of(stand_in, SIZE, size, interlaced))
    for index, (pixel, *rest) in enumerate(frames):
        box, disposal, blend = [*(rest or [(0, 0, *SIZE)]), KEEP, 0, 0][:3]
        left, top, right, bottom = box
        place = (right - left, bottom - top, left, top)
        out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *place, 1, 10, disposal, blend))
        number += 1
        data = pixels_of(pixel, place[:2], size, interlaced)
        if index or stand_in is not None:
            out += chunk(b"fdAT", struct.pack(">I", number) + data)
            number += 1
        else:
            out += chunk(b"IDAT", data)
    return out + chunk(b"IEND", b"")


def gif(frames, palette=None, loop=b"", screen=SIZE):
    """A GIF, packed by hand. A frame is a number in a palette, and perhaps a box, a palette, a way to leave."""
    flags = 0x80 | (len(palette) // 3 - 1).bit_length() - 1 if palette else 0
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, 0, 0) + (palette or b"") + loop
    for index, box, own, disposal, clear, hundredths in frames:
        control = disposal << 2 | (clear is not None)
        out += struct.pack("<BBBBHBB", 0x21, 0xF9, 4, control, hundredths, clear or 0, 0)
        left, top, right, bottom = box
        place = (left, top, right - left, bottom - top)
        out += struct.pack("<BHHHHB", 0x2C, *place, 0x80 | (len(own) // 3 - 1).bit_length() - 1 if own else 0) + own
        image = Image.new("P", place[2:], index)
        out += b"\x08" + image.tobytes("gif", ("P", 8, 0)) + b"\0"
    return out + b";"


def colour(*colours):
    return b"".join(bytes(one[:3]) for one in colours)


def seen(path, *points):
    """The colour in the middle of each frame, or at other points, in parts of its size."""
    found = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frame = image.convert("RGBA")
            pixels = [frame.getpixel((int(x * frame.width), int(y * frame.height))) for x, y in points or [(0.5, 0.5)]]
            found.append([pixel if pixel[3] > 8 else NOTHING for pixel in pixels])
    return found if points else [pixel for [pixel] in found]


def near(found, meant, bound=12):
    """Whether colours are those that are meant, as far as formats with loss show them."""
    return len(found) == len(meant) and all(
        abs(one - other) <= bound for pair in zip(found, meant, strict=True) for one, other in zip(*pair, strict=True)
    )


WALK = [RED, GREEN, BLUE, YELLOW, RED, GREEN]
PALETTE = colour(RED, GREEN, BLUE, YELLOW)
STEPS = [bytes([index]) for index in (0, 1, 2, 3, 0, 1)]
GREYS = [(value, value, value, 255) for value in (0, 85, 170, 255)]
KINDS = {
    "palette": (apng([[step] for step in STEPS], 3, palette=PALETTE), WALK),
    "palette of 2 bits": (apng([[step] for step in STEPS], 3, 2, palette=PALETTE), WALK),
    "palette, interlaced": (apng([[step] for step in STEPS], 3, palette=PALETTE, interlaced=1), WALK),
    "palette with transparency": (
        apng([[step] for step in STEPS[:4]], 3, palette=PALETTE, transparency=b"\xff\0\xff\x80"),
        [RED, NOTHING, BLUE, (255, 255, 0, 128)],
    ),
    "palette, stand-in": (apng([[step] for step in STEPS], 3, palette=PALETTE, stand_in=b"\3"), WALK),
    "colours": (apng([[bytes(one[:3])] for one in WALK], 2, channels=3), WALK),
    "colours, one clear": (
        apng([[bytes(one[:3])] for one in WALK[:3]], 2, channels=3, transparency=struct.pack(">HHH", 0, 255, 0)),
        [RED, NOTHING, BLUE],
    ),
    "colours of 16 bits": (
        apng([[struct.pack(">HHH", *(value * 257 for value in one[:3]))] for one in WALK], 2, 16, channels=3),
        WALK,
    ),
    "16 bits, one clear": (
        apng(
            [[struct.pack(">HHH", 0x1234, 0, 0)], [struct.pack(">HHH", 0x1235, 0, 0)]],
            2, 16, channels=3, transparency=struct.pack(">HHH", 0x1234, 0, 0),
        ),
        [NOTHING, (0x12, 0, 0, 255)],
    ),
    "colours and alpha": (
        apng([[bytes(one)] for one in (*WALK[:3], (0, 0, 255, 128))], 6, channels=4),
        [*WALK[:3], (0, 0, 255, 128)],
    ),
    "grey": (apng([[bytes(one[:1])] for one in GREYS], 0), GREYS),
    "grey of 2 bits": (apng([[bytes([value])] for value in range(4)], 0, 2), GREYS),
    "grey of 2 bits, one clear": (
        apng([[bytes([value])] for value in range(4)], 0, 2, transparency=b"\0\2"),
        [*GREYS[:2], NOTHING, GREYS[3]],
    ),
    "black and white": (apng([[b"\0"], [b"\1"], [b"\0"]], 0, 1), [GREYS[0], GREYS[3], GREYS[0]]),
    "grey of 16 bits": (apng([[bytes(one[:2])] for one in GREYS], 0, 16), GREYS),
    "grey of 16 bits, one clear": (
        apng([[b"\x55\x55"], [b"\x55\x56"], [b"\xff\xff"]], 0, 16, transparency=b"\x55\x55"),
        [NOTHING, GREYS[1], GREYS[3]],
    ),
    "grey and alpha": (
        apng([[b"\x80\xff"], [b"\x80\x40"], [b"\0\xff"]], 4, channels=2),
        [GREY, (128, 128, 128, 64), GREYS[0]],
    ),
    "grey and alpha of 16 bits": (
        apng([[b"\x80\0\xff\xff"], [b"\x80\0\x40\0"], [b"\0\0\xff\xff"]], 4, 16, channels=2),
        [GREY, (128, 128, 128, 64), GREYS[0]],
    ),
    "gif": (gif([(step[0], (0, 0, *SIZE), b"", 1, None, 10) for step in STEPS], PALETTE), WALK),
    "gif of local palettes": (gif([(0, (0, 0, *SIZE), colour(one, NOTHING), 1, None, 10) for one in WALK]), WALK),
    "gif of local palettes, clear": (
        gif([(0, (0, 0, *SIZE), colour(one, NOTHING), 2, None if one != BLUE else 0, 10) for one in WALK]),
        [RED, GREEN, NOTHING, YELLOW, RED, GREEN],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", ["keep", "webp", "png", "avif"])
def test_kinds(studio, kind, written):
    """Whatever kind of pixels it has, each frame of a smaller animation has the colour it had."""
    data, meant = KINDS[kind]
    path = studio.put(data, "moving")

    picture = resize_image(path, 32, to=_named(studio, kind, written), format=written)

    assert near(seen(picture.path), meant)
    assert picture.frames == len(meant)


def _named(studio, kind, written):
    own = "gif" if kind.startswith("gif") else "png"
    return studio.folder / f"out.{own if written == 'keep' else written}"


@pytest.mark.parametrize("kind", KINDS)
def test_in_place(studio, kind):
    """In place, too, and asked for in another shape."""
    data, meant = KINDS[kind]
    path = studio.put(data, "moving")

    resize_image(path, (32, 32), fit="cover")

    assert near(seen(path), meant)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "stand-in" not in kind])
def test_first_frame(studio, kind):
    """A still image of it has the colour of its first frame."""
    data, meant = KINDS[kind]
    path = studio.put(data, "moving")

    picture = resize_image(path, 32, to=studio.folder / "still.png", format="png", animated=False)

    assert near(seen(picture.path), meant[:1])


LEFT, RIGHT = (0.25, 0.5), (0.75, 0.5)
HALF = (32, 0, 64, 48)
WHOLE = (0, 0, *SIZE)


def rgba(*frames):
    return apng([[bytes(pixel), *rest] for pixel, *rest in frames], 6, channels=4)


MOVES = {
    "stays": (rgba([RED], [BLUE, HALF, KEEP], [GREEN, (0, 0, 32, 48)]), [[RED, RED], [RED, BLUE], [GREEN, BLUE]]),
    "goes": (
        rgba([RED, WHOLE, KEEP], [BLUE, HALF, BACKGROUND], [GREEN, (0, 0, 8, 8)]),
        [[RED, RED], [RED, BLUE], [RED, NOTHING]],
    ),
    "goes, in a palette": (
        apng([[b"\0"], [b"\2", HALF, BACKGROUND], [b"\1", (0, 0, 8, 8)]], 3, palette=PALETTE),
        [[RED, RED], [RED, BLUE], [RED, NOTHING]],
    ),
    "goes, without transparency": (
        apng([[colour(RED)], [colour(BLUE), HALF, BACKGROUND], [colour(GREEN), (0, 0, 8, 8)]], 2, channels=3),
        [[RED, RED], [RED, BLUE], [RED, NOTHING]],
    ),
    "gives back": (
        rgba([RED], [BLUE, HALF, PREVIOUS], [GREEN, (0, 0, 8, 8)]),
        [[RED, RED], [RED, BLUE], [RED, RED]],
    ),
    "first gives back": (
        rgba([RED, WHOLE, PREVIOUS], [BLUE, HALF]),
        [[RED, RED], [NOTHING, BLUE]],
    ),
    "shines through": (
        rgba([RED], [(0, 0, 255, 128), HALF, KEEP, 1], [NOTHING, WHOLE, KEEP, 1]),
        [[RED, RED], [RED, (127, 0, 128, 255)], [RED, (127, 0, 128, 255)]],
    ),
    "half clear on nothing": (
        rgba([NOTHING], [(0, 0, 255, 128), HALF, KEEP, 1]),
        [[NOTHING, NOTHING], [NOTHING, (0, 0, 255, 128)]],
    ),
    "replaces": (
        rgba([RED], [NOTHING, HALF, KEEP, 0]),
        [[RED, RED], [RED, NOTHING]],
    ),
    "shines through, one colour clear": (
        apng(
            [[colour(RED)], [colour(GREEN), HALF, KEEP, 1], [colour(BLUE), HALF, KEEP, 1]],
            2, channels=3, transparency=struct.pack(">HHH", 0, 255, 0),
        ),
        [[RED, RED], [RED, RED], [RED, BLUE]],
    ),
    "shines through, in a palette": (
        apng(
            [[b"\0"], [b"\1", HALF, KEEP, 1], [b"\2", HALF, KEEP, 1]],
            3, palette=PALETTE, transparency=b"\xff\0\xff",
        ),
        [[RED, RED], [RED, RED], [RED, BLUE]],
    ),
    "nothing of the stand-in": (
        apng([[bytes(RED), HALF], [bytes(GREEN), HALF]], 6, channels=4, stand_in=bytes(BLUE)),
        [[NOTHING, RED], [NOTHING, GREEN]],
    ),
    "gif gives back": (
        gif([(0, WHOLE, b"", 1, None, 10), (2, HALF, b"", 3, None, 10), (1, (0, 0, 8, 8), b"", 1, None, 10)], PALETTE),
        [[RED, RED], [RED, BLUE], [RED, RED]],
    ),
    "gif goes": (
        gif([(0, WHOLE, b"", 1, None, 10), (2, HALF, b"", 2, None, 10), (1, (0, 0, 8, 8), b"", 1, None, 10)], PALETTE),
        [[RED, RED], [RED, BLUE], [RED, NOTHING]],
    ),
    "gif gives back and goes outside": (
        gif(
            [
                (0, WHOLE, b"", 1, None, 10), (2, (32, 0, 300, 200), b"", 3, None, 10),
                (1, (99, 99, 140, 140), b"", 2, None, 10), (2, WHOLE, b"", 1, None, 10),
                (0, (32, 9, 300, 200), b"", 3, None, 10), (1, (99, 9, 140, 14), b"", 3, None, 10),
                (0, WHOLE, b"", 1, None, 10),
            ],
            PALETTE,
        ),
        [[RED, RED], [RED, BLUE], [RED, RED], [BLUE, BLUE], [BLUE, RED], [BLUE, BLUE], [RED, RED]],
    ),
    "gif draws a part first": (
        gif([(0, HALF, b"", 1, None, 10), (2, (48, 0, 64, 48), b"", 1, None, 10)], PALETTE),
        [[NOTHING, RED], [NOTHING, BLUE]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("written", ["keep", "webp", "png"])
def test_moves(studio, move, written):
    """Each frame leaves, and lets the one before shine through, as its file says."""
    data, meant = MOVES[move]
    path = studio.put(data, "moving")

    picture = resize_image(path, 32, to=_named(studio, move, written), format=written)

    frames = seen(picture.path, LEFT, (0.9, 0.5))
    # An encoder may make one of two that are equal.
    once = [frame for number, frame in enumerate(meant) if not number or frame != meant[number - 1]]
    assert near([pixel for frame in frames for pixel in frame], [pixel for frame in once for pixel in frame])


@pytest.mark.parametrize("clear", [None, 3])
def test_undrawn(studio, clear):
    """What no frame of a GIF has drawn is transparent, and white in a JPEG, whether a clear colour is named or not."""
    data = gif([(0, (32, 24, 64, 48), b"", 1, clear, 0)], PALETTE)
    path = studio.put(data, "part.gif")

    jpeg = resize_image(path, 32, to=f"{path}.jpg", format="jpeg")
    webp = resize_image(path, 32, to=f"{path}.webp", format="webp")
    resize_image(path, 32)

    corners = [(0.2, 0.2), (0.8, 0.8)]
    assert near(seen(jpeg.path, *corners)[0], [(255, 255, 255, 255), RED])
    assert near(seen(webp.path, *corners)[0], [NOTHING, RED])
    assert near(seen(path, *corners)[0], [NOTHING, RED])


def test_undrawn_in_all_colours(studio):
    """Also where an image has all of 256 colours, and none is left to mean that nothing is there."""
    rainbow = b"".join(bytes((index, 255 - index, 0)) for index in range(256))
    head = b"GIF89a" + struct.pack("<HHBBB", *SIZE, 0xF7, 0, 0) + rainbow
    part = Image.new("P", (32, 32))
    part.putdata([index % 256 for index in range(1024)])
    block = struct.pack("<BHHHHB", 0x2C, 32, 16, 32, 32, 0) + b"\x08" + part.tobytes("gif", ("P", 8, 0)) + b"\0"
    path = studio.put(head + block + b";", "part.gif")

    picture = resize_image(path, 32, to=f"{path}.webp", format="webp")

    assert seen(picture.path, (0.2, 0.2))[0] == [NOTHING]
