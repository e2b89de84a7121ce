"""Pictures in the background."""

import os

import pytest
from PIL import Image

from flask_asok import background, make_renditions, resize_image
from flask_asok.recipes.images import ImageError


def test_in_place(app, studio):
    """The call of the page works: in place, to fit 800 x 800, on the queue of pictures."""
    path = studio.save(studio.photo((1000, 900)), "photo.jpg")

    with app.app_context():
        task = background(resize_image, path)
        picture = task.result(timeout=30)

    assert task.queue == "images"
    assert (picture.width, picture.height) == (800, 720)
    with Image.open(path) as image:
        assert image.size == (800, 720)


def test_relative_path(app, studio, monkeypatch):
    """A relative path means the folder of the caller."""
    studio.save(studio.photo((900, 900)), "photo.jpg")
    monkeypatch.chdir(studio.folder)

    with app.app_context():
        picture = background(resize_image, "photo.jpg", to="small.jpg").result(timeout=30)

    assert picture.path == os.fspath(studio.folder / "small.jpg")


def test_renditions(app, studio, tmp_path):
    """Renditions are made in the background, too."""
    path = studio.save(studio.photo((400, 300)), "photo.jpg")

    with app.app_context():
        task = background(make_renditions, path, {"thumb": 40}, folder=tmp_path)
        renditions = task.result(timeout=30)

    assert task.queue == "images"
    assert renditions["thumb"].width == 40


def test_errors_at_the_call(app, studio):
    """What can be known at the call is raised there: no task starts that must fail."""
    photo = studio.save(studio.photo((90, 60)), "photo.jpg")
    text = studio.put(b"no picture", "text.jpg")

    with app.app_context():
        for call, error in (
            (lambda: background(resize_image, studio.folder / "nothing.jpg"), FileNotFoundError),
            (lambda: background(resize_image, studio.folder), ImageError),
            (lambda: background(resize_image, text), ImageError),
            (lambda: background(resize_image, photo, "large"), TypeError),
            (lambda: background(resize_image, photo, format="webp"), ValueError),
            (lambda: background(resize_image, photo, wide=3), TypeError),
            (lambda: background(make_renditions, photo, {"a/b": 10}), ValueError),
            (lambda: background(make_renditions, text, {"thumb": 10}), ImageError),
        ):
            with pytest.raises(error):
                call()


def test_damaged(app, studio, caplog):
    """Damage that shows only in the pixels fails the task with an ImageError."""
    data = studio.encoded(studio.photo((900, 900)), "JPEG")
    path = studio.put(data[: len(data) // 2], "photo.jpg")

    with app.app_context():
        error = background(resize_image, path).exception(timeout=30)

    assert isinstance(error, ImageError)
    assert error.reason == "damaged"
    assert "resize_image failed" in caplog.text
