"""An image that has all of its pixels is whole, and one that lacks some is not, however it ends."""

import os

import pytest
from PIL import Image, ImageFile

from flask_asok.recipes.images import ImageError, resize_image, save_upload

SUBSAMPLINGS = {"4:4:4": 0, "4:2:0": 2}


@pytest.fixture(params=[False, True], ids=["strict", "LOAD_TRUNCATED_IMAGES"])
def switch(monkeypatch, request):
    """What the application has told Pillow about files that are cut off."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)


def jpeg_of(studio, progressive=False, size=(900, 600), **options):
    return studio.encoded(studio.photo(size), "JPEG", quality=90, progressive=progressive, **options)


@pytest.mark.usefixtures("switch")
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("box", [1000, 800, 100], ids=["fits", "shrunk", "small"])
@pytest.mark.parametrize("cut", [1, 2])
def test_end_is_missing(studio, progressive, subsampling, box, cut):
    """A JPEG without the mark of its end looks as it did, and gets one."""
    data = jpeg_of(studio, progressive, subsampling=SUBSAMPLINGS[subsampling])
    whole, path = studio.put(data, "whole.jpg"), studio.put(data[:-cut], "photo.jpg")

    resize_image(whole, box)
    picture = resize_image(path, box)

    assert picture.changed
    assert studio.read(path) == studio.read(whole)


@pytest.mark.usefixtures("switch")
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("box", [1000, 100], ids=["fits", "shrunk"])
@pytest.mark.parametrize("size", [(900, 600), (300, 3000)], ids=str)
def test_pixels_are_missing(studio, progressive, kept, box, size):
    """A JPEG that lacks pixels is damaged, whatever the application has told Pillow."""
    data = jpeg_of(studio, progressive, size)
    path = studio.put(data[: int(len(data) * kept)], "photo.jpg")
    before = studio.read(path)

    with pytest.raises(ImageError) as caught:
        resize_image(path, box)

    assert caught.value.reason == "damaged"
    assert studio.read(path) == before


@pytest.mark.usefixtures("switch")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("box", [1000, 500, 100], ids=["fits", "shrunk", "small"])
@pytest.mark.parametrize("behind", [b"", b"a trailer of a phone"], ids=["", "trailer"])
def test_pixels_are_missing_before_an_end(studio, mode, kept, box, behind):
    """A JPEG that lacks pixels is damaged even if a program put an end mark behind what is left."""
    data = studio.encoded(studio.photo((900, 600)).convert(mode), "JPEG", quality=90)
    path = studio.put(data[: int(len(data) * kept)] + b"\xff\xd9" + behind, "photo.jpg")

    with pytest.raises(ImageError) as caught:
        resize_image(path, box)

    assert caught.value.reason == "damaged"


def test_first_scan_is_cut_off(studio):
    """So is a progressive one whose first scan breaks off."""
    data = jpeg_of(studio, progressive=True)
    first = data.index(b"\xff\xda")
    path = studio.put(data[: data.index(b"\xff\xc4", first) - 500] + b"\xff\xd9", "photo.jpg")

    with pytest.raises(ImageError) as caught:
        resize_image(path, 100)

    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_grey_at_the_end(studio, progressive, mode):
    """An image whose last pixels are middle grey, the colour of missing ones, is whole."""
    image = studio.photo((900, 600))
    image.paste((128, 128, 128), (0, 300, 900, 600))
    data = studio.encoded(image.convert(mode), "JPEG", progressive=progressive)

    assert resize_image(studio.put(data + b"trailer", "photo.jpg"), 500).width == 500


def test_gif_without_its_trailer(studio):
    """A GIF says nowhere how many frames it has: without its trailer, it is whole if its last frame is."""
    frames = [studio.photo((60, 40)).rotate(90 * number) for number in range(3)]
    data = studio.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    path = studio.put(data[:-1], "moving.gif")
    second = data.index(b"!\xf9\4", data.index(b"!\xf9\4") + 1)
    between = studio.put(data[:second], "between.gif")
    announced = studio.put(data[: second + 8], "announced.gif")

    assert resize_image(path, 30).frames == 3
    assert resize_image(between, 30).frames == 1
    with pytest.raises(ImageError) as caught:
        resize_image(announced, 30)

    assert caught.value.reason == "damaged"


def test_something_behind(studio):
    """What is appended to a JPEG, whether its end is marked or not, is no part of it."""
    data = jpeg_of(studio)
    whole, path = studio.put(data, "whole.jpg"), studio.put(data + b"a trailer of a phone", "photo.jpg")

    resize_image(whole, 100)
    resize_image(path, 100)

    assert studio.read(path) == studio.read(whole)


def test_metadata_of_one_without_an_end(studio):
    """It is upright and private like any other."""
    data = studio.encoded(studio.corners((96, 64)).transpose(studio.turns[6]), "JPEG", exif=studio.exif(6))
    path = studio.put(data[:-2], "photo.jpg")

    picture = resize_image(path)

    assert picture.removed == ("gps", "exif")
    assert studio.read_corners(path) == ["red", "green", "blue", "white"]
    assert not studio.metadata(path)


def test_upload_without_an_end(studio, tmp_path):
    """It can be uploaded, and is kept as it came."""
    from werkzeug.datastructures import FileStorage

    path = studio.put(jpeg_of(studio)[:-2], "photo.jpg")

    with open(path, "rb") as file:
        saved = save_upload(FileStorage(file, "photo.jpg"), tmp_path / "private")

    assert studio.read(saved) == studio.read(path)


def test_large_one_in_scans(studio):
    """Of a large progressive JPEG without an end it would cost too much to find out whether it is whole."""
    data = studio.encoded(Image.new("L", (4000, 3001)), "JPEG", progressive=True)
    path = studio.put(data[:-2], "photo.jpg")

    with pytest.raises(ImageError, match="cut off"):
        resize_image(path)

    assert os.path.getsize(path) == len(data) - 2
