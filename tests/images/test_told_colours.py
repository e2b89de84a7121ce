"""Colours that are told by numbers and not by a profile become sRGB too."""

import io
import struct
import zlib

import pytest
from PIL import Image, ImageCms

from flask_asok.recipes.images import ImageError, make_renditions, resize_image

SQUARE = (200, 200)
P3, BT2020, SRGB = (12, 13), (9, 14), (1, 13)
ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
TOLD = {
    # What Display P3 and the others are in sRGB, calculated by hand; BT.2020 is shown with the curve of sRGB.
    P3: ((200, 50, 50), (218, 24, 40)),
    BT2020: ((120, 140, 90), (108, 143, 82)),
    (1, 8): ((55, 55, 55), (128, 128, 128)),
    (1, 5): ((128, 128, 128), (107, 107, 107)),
    (1, 13): ((200, 50, 50), (200, 50, 50)),
    (1, 1): ((200, 50, 50), (200, 50, 50)),
    (2, 2): ((200, 50, 50), (200, 50, 50)),
    (12, 2): ((200, 50, 50), (218, 24, 40)),
}


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def cicp(primaries, transfer, matrix=0, full=1):
    return chunk(b"cICP", bytes((primaries, transfer, matrix, full)))


def gama(gamma):
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(*numbers):
    return chunk(b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in numbers)))


def png(studio, image, *chunks, name="photo.png", **options):
    """Save a PNG with these chunks in its head."""
    data = studio.encoded(image, "PNG", **options)
    return studio.put(data[:33] + b"".join(chunks) + data[33:], name)


def nclx(studio, image, primaries, transfer, **options):
    """Save an AVIF that tells these code points."""
    data = studio.encoded(image, "AVIF", quality=95, subsampling="4:4:4", **options)
    before = b"nclx" + struct.pack(">HH", *SRGB)
    assert data.count(before) == 1
    return studio.put(data.replace(before, b"nclx" + struct.pack(">HH", primaries, transfer)), "photo.avif")


def pixel(path, at=(5, 5)):
    with Image.open(path) as image:
        return image.convert("RGB").getpixel(at)


def near(one, other, by=3):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
@pytest.mark.parametrize("points", TOLD, ids=str)
def test_code_points(studio, points, box):
    """The code points in a PNG are heeded, also where the image fits already, and are gone afterwards."""
    colour, expected = TOLD[points]
    path = png(studio, Image.new("RGB", SQUARE, colour), cicp(*points))

    picture = resize_image(path, box)

    assert near(pixel(path), expected)
    assert picture.changed == (box == 50 or not near(colour, expected, 2))
    assert not picture.changed or b"cICP" not in studio.read(path)


@pytest.mark.parametrize("points", TOLD, ids=str)
def test_code_points_of_an_avif(studio, points):
    """So are those of an AVIF, written as whatever."""
    colour, expected = TOLD[points]
    path = nclx(studio, Image.new("RGB", SQUARE, colour), *points)

    renditions = make_renditions(path, {"t": 50}, ("keep", "png", "jpeg", "webp"))

    for picture in renditions:
        assert near(pixel(picture.path), expected, 5)


def test_in_every_kind_of_png(studio):
    """Whether grey, in 16 bits, with a palette or with transparency: the colours are converted, and nothing else."""
    red, expected = (200, 50, 50), (218, 24, 40)
    palette = Image.new("P", SQUARE, 1)
    palette.putpalette([0, 0, 0, *red])
    clear = Image.new("RGBA", SQUARE, (*red, 255))
    clear.paste((0, 0, 0, 0), (100, 0, 200, 200))
    for image in (Image.new("RGB", SQUARE, red), palette, clear):
        path = png(studio, image, cicp(*P3))

        resize_image(path, 50)

        assert near(pixel(path), expected)
    with Image.open(path) as seen:
        assert seen.getpixel((40, 20))[3] == 0
    row = b"\0" + struct.pack(">3H", *(part * 257 for part in red)) * 200
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *SQUARE, 16, 2, 0, 0, 0))
    deep = b"\x89PNG\r\n\x1a\n" + head + cicp(*P3) + chunk(b"IDAT", zlib.compress(row * 200)) + chunk(b"IEND", b"")
    path = studio.put(deep, "deep.png")

    resize_image(path, 50)

    assert near(pixel(path), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey(studio, mode):
    """Grey stays grey, by the curve alone."""
    grey = Image.new("L", SQUARE, 55)
    if mode == "I;16":
        grey = Image.frombytes("I;16", SQUARE, struct.pack("<H", 55 * 257) * 40_000)
    elif mode == "LA":
        grey = Image.merge("LA", (grey, Image.linear_gradient("L").resize(SQUARE)))
    for told in (gama(1.0), cicp(12, 8)):
        path = png(studio, grey, told)

        resize_image(path, 50)

        assert near(pixel(path), (128, 128, 128))
        with Image.open(path) as seen:
            assert seen.mode in ("L", "LA")


@pytest.mark.parametrize("format", ["keep", "jpeg", "webp", "avif"])
def test_gamma(studio, tmp_path, format):
    """A gamma of 1.0 is an image in linear light, written as whatever."""
    path = png(studio, Image.new("RGB", SQUARE, (55, 55, 55)), gama(1.0))

    picture = resize_image(path, 50, format=format, to=tmp_path)

    assert near(pixel(picture.path), (128, 128, 128))


def test_gamma_and_chromaticities(studio):
    """Adobe RGB by numbers looks like Adobe RGB by a profile."""
    colour = (200, 90, 60)
    by_profile = png(studio, Image.new("RGB", SQUARE, colour), icc_profile=studio.rgb_profile("Adobe RGB"))
    by_numbers = png(studio, Image.new("RGB", SQUARE, colour), gama(1 / 2.19921875), chrm(*ADOBE), name="numbers.png")

    resize_image(by_profile, 50)
    resize_image(by_numbers, 50)

    assert not near(pixel(by_numbers), colour, 20)
    assert near(pixel(by_numbers), pixel(by_profile))


@pytest.mark.parametrize(
    "chunks",
    [
        (gama(0.45455),),
        (gama(0.45455), chrm(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)),
        (chunk(b"sRGB", b"\0"), gama(1.0), chrm(*ADOBE)),
        (gama(0),),
        (chrm(0, 0, 0, 0, 0, 0, 0, 0),),
        (chrm(0.3127, 0.3290, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3),),
        (cicp(3, 3),),
        (cicp(*SRGB), gama(1.0)),
        (chunk(b"gAMA", b"\1"), chunk(b"cHRM", b"\1"), chunk(b"cICP", b"\1"), chunk(b"sRGB", b"")),
    ],
    ids=["gamma", "all of sRGB", "sRGB first", "gamma of 0", "zeros", "one colour", "unknown", "cICP first", "short"],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_srgb_after_all(studio, chunks, mode):
    """What says sRGB, or nothing that can be meant, changes nothing."""
    photo = studio.photo((90, 60), mode)
    path = png(studio, photo, *chunks)

    resize_image(path)

    assert pixel(path) == photo.convert("RGB").getpixel((5, 5))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_srgb_is_left_alone(studio, mode):
    """An image that says in any of these ways that it is sRGB is not written anew."""
    path = png(studio, studio.photo((90, 60), mode), cicp(*SRGB), chunk(b"sRGB", b"\0"), gama(0.45455))
    before = studio.read(path)

    picture = resize_image(path)

    assert not picture.changed
    assert studio.read(path) == before


def test_what_counts_first(studio):
    """Code points count before a profile, and a profile before gamma and chromaticities, unless it is broken."""
    image = Image.new("RGB", SQUARE, (200, 50, 50))
    icc = studio.rgb_profile("ProPhoto")
    there = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    by_profile = ImageCms.profileToProfile(image, there, ImageCms.createProfile("sRGB")).getpixel((5, 5))
    grey = Image.new("RGB", SQUARE, (55, 55, 55))

    code_points = png(studio, image, cicp(*P3), icc_profile=icc, name="points.png")
    profile = png(studio, image, gama(1.0), icc_profile=icc, name="profile.png")
    broken = png(studio, grey, gama(1.0), icc_profile=b"no profile at all", name="broken.png")
    for path in (code_points, profile, broken):
        resize_image(path, 50)

    assert near(pixel(code_points), (218, 24, 40))
    assert near(pixel(profile), by_profile)
    assert near(pixel(broken), (128, 128, 128))


def test_video_range(studio):
    """Values from 16 to 235, where the code points say so, are spread to all there are."""
    image = Image.new("RGB", SQUARE, (16, 126, 235))
    path = png(studio, image, cicp(*SRGB, full=0))

    resize_image(path)

    assert near(pixel(path), (0, 128, 255), 2)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range(studio, transfer, name):
    """What is brighter than sRGB is refused with a reason, and says what to do."""
    image = Image.new("RGB", SQUARE, (100, 50, 50))
    for path in (png(studio, image, cicp(9, transfer)), nclx(studio, image, 9, transfer)):
        before = studio.read(path)

        with pytest.raises(ImageError, match=name) as caught:
            resize_image(path, 50)

        assert caught.value.reason == "unsupported"
        assert studio.read(path) == before


def test_profile_of_an_avif_first(studio):
    """In an AVIF a profile counts before code points."""
    image = Image.new("RGB", SQUARE, (200, 90, 60))
    icc = studio.rgb_profile("ProPhoto")
    path = studio.save(image, "photo.avif", quality=95, icc_profile=icc)
    there = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    expected = ImageCms.profileToProfile(image, there, ImageCms.createProfile("sRGB")).getpixel((5, 5))

    resize_image(path, 50)

    assert near(pixel(path), expected, 5)


def test_animation(studio):
    """Each frame of an animation is converted."""
    frames = [Image.new("RGB", SQUARE, colour) for colour in ((200, 50, 50), (50, 50, 50))]
    path = png(studio, frames[0], cicp(*P3), save_all=True, append_images=frames[1:], duration=100)

    resize_image(path, 50)

    assert near(pixel(path), (218, 24, 40))
    with Image.open(path) as seen:
        assert seen.n_frames == 2


SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LARGE = {
    "profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB_PROFILE + bytes(1_200_000))),
    "huge profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB_PROFILE + bytes(20_000_000))),
    "broken profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 1_200_000)),
    "zTXt": chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1_200_000))),
    "iTXt": chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(b"x" * 1_200_000)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 30_000_000)),
    "many": chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1_000_000))) * 100,
    "plain": chunk(b"tEXt", b"note\0" + b"x" * 1_200_000),
}


@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
@pytest.mark.parametrize("at", ["head", "tail"])
@pytest.mark.parametrize("name", LARGE)
def test_large_chunks(studio, name, at, box):
    """A PNG with a large profile or text is written without it, wherever it stands."""
    if "profile" in name and at == "tail":
        pytest.skip("A profile stands before the pixels.")
    data = studio.encoded(Image.new("RGB", SQUARE, (200, 90, 60)), "PNG")
    place = 33 if at == "head" else len(data) - 12
    path = studio.put(data[:place] + LARGE[name] + data[place:], "photo.png")

    picture = resize_image(path, box)

    assert picture.changed
    assert picture.removed == (("xmp",) if name == "XMP" else () if "profile" in name else ("comment",))
    assert pixel(path) == (200, 90, 60)
    assert picture.bytes < 5000
    assert not studio.metadata(path)


def test_large_profile_is_used(studio):
    """A large profile that is no padding counts."""
    icc = studio.rgb_profile("ProPhoto")
    large = struct.pack(">I", len(icc) + 1_200_000) + icc[4:] + bytes(1_200_000)
    image = Image.new("RGB", SQUARE, (200, 90, 60))
    there = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    expected = ImageCms.profileToProfile(image, there, ImageCms.createProfile("sRGB")).getpixel((5, 5))
    path = png(studio, image, chunk(b"iCCP", b"p\0\0" + zlib.compress(large)))

    resize_image(path)

    assert near(pixel(path), expected)


def test_large_chunk_of_an_upload(studio, tmp_path):
    """Such an image can be uploaded."""
    from werkzeug.datastructures import FileStorage

    from flask_asok.recipes.images import save_upload

    path = png(studio, Image.new("RGB", SQUARE), LARGE["profile"])
    with open(path, "rb") as file:
        saved = save_upload(FileStorage(file, "photo.png"), tmp_path / "private")

    assert studio.read(saved) == studio.read(path)
