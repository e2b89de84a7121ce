"""What a photo says about its maker and where it was made is gone, but for what was asked to stay."""

import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from flask_asok.recipes.images import resize_image

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="http://ns.adobe.com/secret"/></x:xmpmeta>'


def talkative(studio, format, size=(150, 100)):
    """A photo with everything that its format can hold."""
    image = studio.photo(size)
    options = {"exif": studio.exif(1, artist="Ada", copyright="(c) Ada")}
    if format in ("JPEG", "GIF"):
        options["comment"] = b"secret remark"
    if format in ("JPEG", "WEBP", "AVIF"):
        options["xmp"] = XMP
    if format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "secret remark")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    if format == "TIFF":
        tags = ImageFileDirectory_v2()
        tags[270] = "secret remark"
        tags[0x010F] = "Phone Maker"
        tags[700] = XMP
        options = {"tiffinfo": tags}
    return studio.save(image, "photo", format, **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("box", [800, 100], ids=["fits", "shrunk"])
def test_gone(studio, format, box):
    """GPS, EXIF, XMP and comments are gone from every format, whether the image was shrunk or not."""
    path = talkative(studio, format)
    assert studio.metadata(path)

    picture = resize_image(path, box)

    assert not studio.metadata(path)
    assert picture.removed


def test_says_what(studio):
    """The image tells what was removed."""
    path = talkative(studio, "JPEG")

    picture = resize_image(path, 100)

    assert picture.removed == ("gps", "exif", "xmp", "comment")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("box", [800, 100], ids=["fits", "shrunk"])
def test_copyright(studio, format, box):
    """The artist and the copyright notice stay where that is asked for, and nothing else does."""
    exif = studio.exif(1, artist="Ada", copyright="(c) Ada")
    path = studio.save(studio.photo((300, 200)), "photo", format, exif=exif)

    picture = resize_image(path, box, keep_copyright=True)
    again = resize_image(path, box, keep_copyright=True)

    with Image.open(path) as image:
        kept = image.getexif()
        assert (kept[0x013B], kept[0x8298]) == ("Ada", "(c) Ada")
        assert 0x010F not in kept
        assert not kept.get_ifd(0x8825)
    assert picture.changed
    assert not again.changed


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("box", [800, 100], ids=["fits", "shrunk"])
def test_copyright_sign(studio, format, box):
    """A notice stays as it was written, its sign too, in whichever encoding."""
    for written in (b"\xa9 Ren\xe9", "\xa9 Ren\xe9".encode()):
        exif = studio.exif(1, copyright=written)
        path = studio.save(studio.photo((300, 200)), "photo", format, exif=exif)

        resize_image(path, box, keep_copyright=True)

        assert written in studio.read(path)
        with Image.open(path) as image:
            assert image.getexif()[0x8298].encode("latin-1") == written


def test_small_picture_of_a_jpeg(studio):
    """The small image that JFIF allows for goes: it may show what was cut off the large one."""
    data = studio.encoded(studio.photo((90, 60)), "JPEG")
    hidden = b"\xff\xe0" + struct.pack(">H", 16 + 12) + data[6:18] + b"\2\2" + b"twelve bytes"
    path = studio.put(data[:2] + hidden + data[20:], "photo.jpg")

    resize_image(path)

    assert studio.read(path) == data


@pytest.mark.parametrize("flaw", [b"\xff\x01", b"\xff\x7a\0\x09"], ids=["marker", "unknown marker"])
def test_flawed_jpeg(studio, flaw):
    """A JPEG whose flaws a decoder finds its way through keeps all that is seen, when its metadata is cut out."""
    image = studio.photo((160, 120))
    data = studio.encoded(image, "JPEG", exif=studio.exif(1), restart_marker_rows=1, quality=95)
    scan = data.index(b"\xff\xd1")
    path = studio.put(data[: scan + 20] + flaw + data[scan + 20 :], "photo.jpg")
    with Image.open(path) as before:
        seen = before.convert("L").tobytes()

    resize_image(path)

    assert not studio.metadata(path)
    with Image.open(path) as after:
        apart = [abs(a - b) for a, b in zip(seen, after.convert("L").tobytes(), strict=True)]
    assert sum(apart) / len(apart) < 1


def test_hidden_item_of_an_avif(studio):
    """EXIF data that Pillow does not find in an AVIF goes as well."""
    data = studio.encoded(studio.photo((90, 60)), "AVIF", exif=studio.exif(1))
    path = studio.put(data.replace(b"cdsc", b"free", 1), "photo.avif")
    with Image.open(path) as image:
        assert "exif" not in image.info

    resize_image(path)

    assert b"Phone Maker" not in studio.read(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_nothing_after_the_end(studio, format):
    """What another program hid behind an image is no part of it."""
    clean = studio.encoded(studio.photo((90, 60)), format)
    path = studio.put(clean + b"PK\x03\x04 an archive, or a script", "photo")

    picture = resize_image(path)

    assert picture.changed
    assert studio.read(path) == clean


def test_unknown_chunks(studio):
    """Chunks that nobody needs to show the image go too."""
    data = studio.encoded(studio.photo((90, 60)), "PNG")
    body = b"teSt" + b"hidden"
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    path = studio.put(data[:33] + chunk + data[33:], "photo.png")

    resize_image(path)

    assert studio.read(path) == data


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("box", [800, 50], ids=["fits", "shrunk"])
def test_animation(studio, format, box):
    """An animation says no more than a photo does."""
    frames = [studio.photo((150, 100)).rotate(turn) for turn in (0, 90, 180)]
    options = {"comment": b"secret remark"} if format == "GIF" else {"exif": studio.exif(1)}
    path = studio.save(frames[0], "moving", format, save_all=True, append_images=frames[1:], duration=50, **options)

    picture = resize_image(path, box)

    assert picture.removed
    assert not studio.metadata(path)
    with Image.open(path) as image:
        assert image.n_frames == 3


def test_multi_picture(studio):
    """A JPEG with further images behind it, as phones write them, is one JPEG afterwards."""
    images = [studio.photo((900, 600)), studio.photo((90, 60))]
    path = studio.save(images[0], "photo.jpg", "MPO", save_all=True, append_images=images[1:])

    picture = resize_image(path)

    assert (picture.format, picture.removed) == ("jpeg", ("images",))
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert image.size == (800, 533)


@pytest.mark.parametrize("size", [(900, 600), (90, 60)], ids=["made smaller", "that fits"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["google", "ending like a JPEG"])
def test_motion_photo(studio, size, end):
    """The video that phones append to a photo is cut off, and named."""
    video = b"MotionPhoto_Data\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(500) + end
    path = studio.put(studio.encoded(studio.photo(size), "JPEG") + video, "photo.jpg")

    picture = resize_image(path)

    assert picture.removed == ("video",)
    assert b"ftyp" not in studio.read(path)


def test_no_motion_photo(studio):
    """What else follows an image is no video, and neither is such a word in its comment."""
    data = studio.encoded(studio.photo((90, 60)), "JPEG", comment=b"\0\0\0\x18ftypmp42")
    path = studio.put(data + b"an archive", "photo.jpg")

    assert resize_image(path).removed == ("comment",)


def test_multi_picture_that_fits(studio):
    """The further images are cut off without touching the first."""
    images = [studio.photo((90, 60)), studio.photo((30, 20))]
    path = studio.save(images[0], "photo.jpg", "MPO", save_all=True, append_images=images[1:])
    with Image.open(path) as before:
        pixels = before.tobytes()

    assert resize_image(path).removed == ("images",)

    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert image.tobytes() == pixels
