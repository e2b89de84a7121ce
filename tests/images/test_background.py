"""Images in the background."""

import os

import pytest
from PIL import Image

from flask_asok import background, make_renditions, resize_image
from flask_asok.recipes.images import ImageError


def test_in_place(app, studio):
    """The call of the page works: in place, to fit 800 x 800, on the queue of images."""
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
    text = studio.put(b"no image", "text.jpg")

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


def test_checked_once(app, studio, asok_tasks):
    """The task gets what was checked at the call, as plain values: options and absolute paths."""
    path = studio.save(studio.photo((400, 300)), "photo.jpg")

    asok_tasks.capture(resize_image, make_renditions)

    with app.app_context():
        background(resize_image, path, 50, to=studio.folder, background="red")
        background(make_renditions, path, {"thumb": 40})

    [resize] = asok_tasks.assert_called(resize_image).args
    [renditions] = asok_tasks.assert_called(make_renditions).args
    assert (resize.path, resize.to) == (path, os.fspath(studio.folder))
    assert (resize.target.size, resize.target.background) == ((50, 50), (255, 0, 0))
    assert (renditions.folder, renditions.targets[0].name) == (os.fspath(studio.folder), "thumb")


def test_changed_before_the_task_runs(app, studio, asok_tasks, tmp_path):
    """What another program did to the files between the call and the task is noticed when the task runs."""
    path = studio.save(studio.photo((400, 300)), "photo.jpg")
    folder = tmp_path / "public"
    folder.mkdir()
    asok_tasks.capture(resize_image, make_renditions)
    with app.app_context():
        resize = background(resize_image, path, 50, to=folder)
        renditions = background(make_renditions, path, {"t": 9}, folder=folder)
    studio.save(studio.photo((40, 30)), folder / "photo.jpg")
    studio.save(studio.photo((40, 30)), folder / "photo-t.jpg")

    with asok_tasks.expect_error(ImageError):
        asok_tasks.run()

    assert [task.exception().reason for task in (resize, renditions)] == ["taken", "taken"]


@pytest.mark.parametrize("fn", [resize_image, make_renditions])
def test_called_by_its_arguments(app, studio, fn):
    """A worker may call the functions with arguments and options, too: so do messages of earlier versions."""
    path = studio.save(studio.photo((400, 300)), "photo.jpg")
    common = {"fit": "contain", "focus": (0.5, 0.5), "quality": None, "background": None}
    common |= {"animated": True, "keep_copyright": False}
    own = {"size": (80, 80), "format": "keep", "to": None}
    if fn is make_renditions:
        own = {"sizes": {"thumb": 80}, "formats": ("keep",), "folder": None}

    made = fn(path, **own, **common)

    assert (made if fn is resize_image else made["thumb"]).width == 80


def test_damaged(app, studio, caplog):
    """Damage that shows only in the pixels fails the task with an ImageError."""
    data = studio.encoded(studio.photo((900, 900)), "JPEG")
    path = studio.put(data[: len(data) // 2], "photo.jpg")

    with app.app_context():
        error = background(resize_image, path).exception(timeout=30)

    assert isinstance(error, ImageError)
    assert error.reason == "damaged"
    assert "resize_image failed" in caplog.text
