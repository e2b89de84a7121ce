"""What is private to Pillow, and used here: checked with each new version."""

import PIL
import pytest
from PIL import Image, JpegImagePlugin

from flask_asok.recipes.images import jpeg, jpeg_decoder

CHECKED = "13.0"
"""The version of Pillow whose private parts were checked by hand."""


def test_version():
    """A new version of Pillow is noticed before its private parts are trusted."""
    assert PIL.__version__.startswith(f"{CHECKED}."), (
        "Look at the arguments of the tile in JpegImagePlugin (`draft`, `jpeg_open`), `Image.core.*_decoder` and "
        "`ImageFile.PyDecoder`, run the tests in this file and tests/images/test_corpus.py, and raise CHECKED."
    )


@pytest.mark.parametrize("eighths", [1, 2, 4])
def test_arguments_of_draft(studio, eighths):
    """A JPEG is decoded at a fraction with the very arguments that `Image.draft` gives to the decoder."""
    data = studio.encoded(studio.photo((320, 240)), "JPEG")
    path = studio.put(data, "photo.jpg")
    with Image.open(path) as image, Image.open(path) as other:
        image.draft(None, (320 * eighths // 8, 240 * eighths // 8))

        decoded = jpeg_decoder.decode(other, data, eighths)

        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert decoded.size == image.size
        assert decoded.tobytes() == image.tobytes()


def test_three_eighths(studio):
    """3/8, which `Image.draft` does not know, is decoded by libjpeg, and looks like the image."""
    data = studio.encoded(studio.corners((320, 240)), "JPEG")
    path = studio.put(data, "photo.jpg")
    with Image.open(path) as image:
        decoded = jpeg_decoder.decode(image, data, 3)

        assert decoded.size == (120, 90)
        near = decoded.resize((2, 2), Image.Resampling.BOX).tobytes()
        meant = image.resize((2, 2), Image.Resampling.BOX).tobytes()
    assert all(abs(one - other) <= 8 for one, other in zip(near, meant, strict=True))


def test_quality_is_not_traded(studio):
    """The last argument is 0: that of `draft` would let libjpeg decode faster, and less exactly."""
    data = studio.encoded(studio.photo((320, 240)), "JPEG")
    with Image.open(studio.put(data, "photo.jpg")) as image:
        decoded = jpeg_decoder.decode(image, data, 8)

        assert decoded.tobytes() == image.tobytes()
    assert jpeg.END == b"\xff\xd9"
