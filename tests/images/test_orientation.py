"""Photos come out upright, once."""

import pytest
from PIL import Image

from flask_asok.recipes.images import resize_image

UPRIGHT = ["red", "green", "blue", "white"]
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


def stored(studio, orientation, size=(96, 64)):
    image = studio.corners(size)
    turn = studio.turns[orientation]
    return image if turn is None else image.transpose(turn)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("box", [(800, 800), (48, 48)], ids=["fits", "shrunk"])
def test_upright(studio, format, orientation, box):
    """Each orientation, in each format that has one, comes out upright, of the right shape, and stays so."""
    path = studio.save(stored(studio, orientation), "photo", format, exif=studio.exif(orientation))

    picture = resize_image(path, box)
    resize_image(path, box)

    with Image.open(path) as image:
        assert image.size == (picture.width, picture.height) == ((96, 64) if box[0] == 800 else (48, 32))
        assert image.getexif().get(0x0112, 1) == 1
    assert studio.read_corners(path) == UPRIGHT
    assert (picture.original_width, picture.original_height) == (96, 64)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("exif", [False, True], ids=["no EXIF", "EXIF without it"])
@pytest.mark.parametrize("box", [800, 48], ids=["fits", "shrunk"])
def test_xmp(studio, format, exif, box):
    """An orientation that only XMP tells turns nothing: no browser heeds it, and editors forget it there."""
    options = {"exif": studio.exif()} if exif else {}
    options |= {"tiffinfo": {700: XMP}} if format == "TIFF" else {"xmp": XMP}
    if format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options |= {"pnginfo": text}
    path = studio.save(studio.corners((96, 64)), "photo", format, **options)

    picture = resize_image(path, box)

    assert (picture.width, picture.height) == ((96, 64) if box == 800 else (48, 32))
    assert "xmp" in picture.removed
    assert studio.read_corners(path) == UPRIGHT
    assert not studio.metadata(path)


def test_xmp_beside_exif(studio):
    """Where EXIF and XMP differ, EXIF is right."""
    path = studio.save(stored(studio, 3), "photo.jpg", exif=studio.exif(3), xmp=XMP)

    resize_image(path, 48)

    assert studio.read_corners(path) == UPRIGHT


def test_exif_of_an_avif(studio):
    """An AVIF is turned as its container says; what its EXIF data say besides was true before that."""
    exif = Image.Exif()
    # Pillow would make the true tag a turn of the container.
    exif[0x0113] = 6
    plain = studio.encoded(studio.corners((96, 64)), "AVIF", exif=exif)
    plain = plain.replace(b"\x01\x13\0\x03", b"\x01\x12\0\x03").replace(b"\x13\x01\x03\0", b"\x12\x01\x03\0")
    assert b"irot" not in plain
    path = studio.put(plain, "photo.avif")

    resize_image(path, 48)

    assert studio.read_corners(path) == UPRIGHT


@pytest.mark.parametrize("orientation", [0, 9, 600])
def test_no_orientation(studio, orientation):
    """A number that is no orientation turns nothing."""
    path = studio.save(studio.corners((96, 64)), "photo.jpg", exif=studio.exif(orientation))

    resize_image(path, 48)

    assert studio.read_corners(path) == UPRIGHT


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif(studio):
    """EXIF data that cannot be read keeps nobody from the image."""
    path = studio.save(studio.corners((96, 64)), "photo.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")

    picture = resize_image(path, 48)

    assert picture.width == 48
    assert studio.read_corners(path) == UPRIGHT


def test_turned_without_growing(studio):
    """A photo that only has to be turned is written in the quality that it had, and is no larger for it."""
    photo = studio.photo((400, 300)).transpose(studio.turns[6])
    path = studio.save(photo, "photo.jpg", quality=60, exif=studio.exif(6))

    picture = resize_image(path)

    assert (picture.width, picture.height) == (400, 300)
    assert picture.bytes <= picture.original_bytes


def test_padded_upright(studio):
    """Bars are added to the photo as it is seen."""
    path = studio.save(stored(studio, 8), "photo.png", exif=studio.exif(8))

    picture = resize_image(path, (60, 60), fit="pad", background="white")

    assert (picture.width, picture.height) == (60, 60)
    with Image.open(path) as image:
        assert image.crop((0, 12, 60, 48)).getpixel((10, 5)) == (255, 0, 0)
