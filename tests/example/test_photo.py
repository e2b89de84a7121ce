"""The card "A photo"."""

import contextlib
import io
import re

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

import example_app
from flask_asok import ImageError


def jpeg(exif=None):
    file = io.BytesIO()
    Image.new("RGB", (900, 600), "teal").save(file, "JPEG", quality=95, exif=exif or Image.Exif())
    file.seek(0)
    return file


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_phone_photo(visitor, tasks, mode):
    """A photo on its side, with GPS, is shown before and after, with its renditions and what was removed."""
    visitor.press("/photo", mode, bundled="lake.jpg")
    tasks.wait(60)

    card = visitor.read("photo")

    assert re.search(r"Before, on its side 4032 x 3024 · \d+ KB", card)
    assert re.search(r"After 600 x 800 · \d+ KB · [\d.,]+ ms", card)
    assert "Removed: GPS, EXIF. It revealed where it was taken: 46.3636, 14.0947." in card
    assert re.findall(r"(\w+) (\d+ x \d+) jpeg \d+ KB webp \d+ KB", card) == [
        ("thumb", "120 x 160"), ("small", "240 x 320"), ("card", "480 x 640"),
    ]  # fmt: skip


def test_pictures_are_served(visitor, tasks):
    """Every picture that the card names is there, upright and without metadata; so is the original."""
    visitor.press("/photo", "background", photo=(jpeg(), "holiday.jpg"))
    tasks.wait(60)
    page = visitor.client.get("/").get_data(as_text=True)
    published = set(re.findall(r"/media/[\w.-]+", page))
    (original,) = set(re.findall(r"/uploads/[\w.-]+", page))

    for url in published:
        with visitor.client.get(url) as answer, Image.open(io.BytesIO(answer.data)) as picture:
            assert not picture.getexif()
    with visitor.client.get(original) as answer:
        assert answer.status_code == 200

    assert len(published) == 7
    assert "holiday" not in page


def test_srcset(visitor, tasks):
    """The browser chooses among the widths, and among the formats that it knows; the gallery shows each width."""
    visitor.press("/photo", "blocking", photo=(jpeg(), "photo.jpg"))
    page = visitor.client.get("/").get_data(as_text=True)

    assert re.search(r'<source type="image/webp" srcset="\S+\.webp 160w, \S+\.webp 320w, \S+\.webp 640w"', page)
    assert re.search(r'srcset="\S+\.jpg 160w, \S+\.jpg 320w, \S+\.jpg 640w"', page)
    assert [re.search(rf'<img [^>]*sizes="{width}px"', page) is not None for width in (160, 320, 640)] == [True] * 3


def test_answers_before_it_is_worked_on(visitor, tasks):
    """In the background the page answers before the photo was touched."""
    tasks.capture()

    visitor.press("/photo", "background", photo=(jpeg(), "photo.jpg"))

    assert "The photo is being worked on" in visitor.read("photo")
    assert visitor.figure("photo", "background") > 0

    tasks.run()

    assert "After 800 x 533" in visitor.read("photo")


def test_no_picture(visitor, tasks):
    """A file that is no picture is refused, and the card says so."""
    visitor.press("/photo", "background", photo=(io.BytesIO(b"<script>alert(1)</script>"), "photo.jpg"))

    assert "That did not work. The uploaded file is not an image in an accepted format" in visitor.read("photo-outcome")
    assert visitor.figure("photo", "background") is None
    tasks.assert_not_called()


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_broken_picture(visitor, tasks, mode):
    """A picture of which the half is missing is refused where it is worked on, and the card says so."""
    half = jpeg().read()
    half = half[: len(half) // 2]

    with contextlib.nullcontext() if mode == "blocking" else tasks.expect_error(ImageError):
        visitor.press("/photo", mode, photo=(io.BytesIO(half), "photo.jpg"))

    assert "That did not work. The photo is damaged" in visitor.read("photo-outcome")


@pytest.mark.parametrize("latitude", [(91, 0, 0), (IFDRational(0, 0), 0, 0)], ids=["too much", "nan"])
def test_no_such_place(visitor, tasks, latitude):
    """A place that there is not is not shown as one."""
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: latitude, 3: "E", 4: (14.0, 5.0, 40.0)}

    visitor.press("/photo", "background", photo=(jpeg(exif), "photo.jpg"))
    tasks.wait(60)

    card = visitor.read("photo-outcome")
    assert "Removed: GPS" in card
    assert "where it was taken" not in card


def test_too_large(visitor, tasks):
    """What is larger than the page takes is refused, in words for a visitor."""
    answer = visitor.client.post(
        "/photo", content_type="multipart/form-data; boundary=x", environ_overrides={"CONTENT_LENGTH": "30000000"}
    )

    assert answer.status_code == 413
    assert "this page takes up to 25 MB at once" in answer.get_data(as_text=True)
    tasks.assert_not_called()


def test_nothing_chosen(visitor, tasks):
    """Without a photo nothing happens, and the card says why."""
    visitor.press("/photo", "background")
    assert "Choose a photo first." in visitor.read("photo-outcome")

    visitor.press("/photo", "background", bundled="../../secret.jpg")
    assert "Choose a photo first." in visitor.read("photo-outcome")
    tasks.assert_not_called()


def test_not_done(app, visitor, tasks):
    """After a restart, a photo that was not done is not said to be worked on for ever."""
    tasks.capture()
    visitor.press("/photo", "background", photo=(jpeg(), "photo.jpg"))
    cookie = visitor.client.get_cookie(app.config["SESSION_COOKIE_NAME"])

    example_app.close(app)
    restarted = example_app.create_app({"EXAMPLE_FOLDER": app.config["EXAMPLE_FOLDER"]})
    same = type(visitor)(restarted)
    same.client.set_cookie(cookie.key, cookie.value)
    card = same.read("photo-outcome")
    example_app.close(restarted)

    assert "The photo is not done" in card


def test_outside_of_the_folder(visitor):
    """No URL leads out of the folders of the pictures."""
    for folder in ("media", "uploads"):
        assert visitor.client.get(f"/{folder}/../example.sqlite").status_code == 404
        assert visitor.client.get(f"/{folder}/%2e%2e/example.sqlite").status_code == 404
