"""From a form to a path that is safe to work on."""

import io
import os
import stat

import pytest
from flask import request
from werkzeug.datastructures import FileStorage

from flask_asok import save_upload
from flask_asok.recipes.images import ImageError


def upload(data, name="photo.jpg"):
    return FileStorage(io.BytesIO(data), name, content_type="image/jpeg")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "private"


def test_form(make_app, studio, folder):
    """What a form sends is saved as it is, under a name that is made here."""
    app = make_app()
    data = studio.encoded(studio.photo((90, 60)), "JPEG", exif=studio.exif(6))

    @app.post("/photos")
    def photos():
        return save_upload(request.files["photo"], folder)

    path = app.test_client().post("/photos", data={"photo": (io.BytesIO(data), "../../evil.php")}).text

    assert os.path.dirname(path) == os.fspath(folder)
    assert os.path.splitext(path)[1] == ".jpg"
    assert "evil" not in path
    assert studio.read(path) == data


@pytest.mark.parametrize(
    ("format", "extension"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp"), ("AVIF", ".avif")],
)
def test_extension(studio, folder, format, extension):
    """The content decides on the extension, whatever the client says."""
    path = save_upload(upload(studio.encoded(studio.photo((30, 20)), format), "page.html"), folder)

    assert os.path.splitext(path)[1] == extension


def test_private(studio, folder):
    """A folder that is made, and the file in it, are for this user only."""
    path = save_upload(upload(studio.encoded(studio.photo((30, 20)), "PNG")), folder)

    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_same_name_twice(studio, folder):
    """Two uploads of one name are two files."""
    data = studio.encoded(studio.photo((30, 20)), "PNG")

    paths = {save_upload(upload(data), folder) for _ in range(2)}

    assert len(paths) == 2


def test_read_before(studio, folder):
    """A file that another program has looked into is saved whole."""
    data = studio.encoded(studio.photo((30, 20)), "PNG")
    file = upload(data)
    file.read(10)

    assert studio.read(save_upload(file, folder)) == data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "", "no_file"),
        (b"", "photo.jpg", "no_file"),
        (b"<svg onload='alert(1)'/>", "photo.jpg", "unknown_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "photo.eps", "unknown_format"),
        (b"x" * 2000, "photo.jpg", "too_many_bytes"),
    ],
    ids=["no choice", "empty", "svg", "eps", "long"],
)
def test_refused(folder, data, name, reason):
    """What is no image or too long is refused, and nothing of it is left."""
    with pytest.raises(ImageError) as caught:
        save_upload(upload(data, name), folder, max_bytes=1999)

    assert caught.value.reason == reason
    assert not folder.exists() or os.listdir(folder) == []


def test_limits_of_the_app(make_app, studio, folder):
    """Bytes and pixels are limited by the configuration."""
    data = studio.encoded(studio.photo((100, 100)), "PNG")

    for config, reason in (
        ({"ASOK_IMAGE_MAX_BYTES": 100}, "too_many_bytes"),
        ({"ASOK_IMAGE_MAX_PIXELS": 9_999}, "too_many_pixels"),
    ):
        with make_app(**config).app_context(), pytest.raises(ImageError) as caught:
            save_upload(upload(data), folder)
        assert caught.value.reason == reason


def test_not_for_the_web(studio, folder):
    """A TIFF is not accepted unless that is asked for: no browser shows it."""
    data = studio.encoded(studio.photo((30, 20)), "TIFF")

    with pytest.raises(ImageError) as caught:
        save_upload(upload(data), folder)

    assert caught.value.reason == "unknown_format"
    assert "The uploaded file is not an image" in str(caught.value)
    assert save_upload(upload(data), folder, formats=("jpeg", "tiff")).endswith(".tif")


def test_mistakes(folder):
    """A path instead of a file, or a format that there is none of, is the caller's mistake."""
    with pytest.raises(TypeError, match=r"request\.files"):
        save_upload("photo.jpg", folder)
    with pytest.raises(ValueError, match="formats"):
        save_upload(upload(b"x"), folder, formats=("svg",))
