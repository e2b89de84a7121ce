"""The card "A photo"."""

import io
import re

import pytest
from PIL import Image


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

    assert re.search(r"Before 4032 x 3024 · \d+ KB · on its side", card)
    assert re.search(r"After 600 x 800 · \d+ KB · [\d.,]+ ms", card)
    assert "Removed: GPS, EXIF. The photo told where it was taken: 46.3636, 14.0947." in card
    assert re.findall(r"(\w+) (jpeg|webp) (\d+ x \d+)", card) == [
        (name, kind, size)
        for name, size in [("thumb", "120 x 160"), ("small", "240 x 320"), ("card", "480 x 640")]
        for kind in ("jpeg", "webp")
    ]


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
    """The browser chooses among the widths, and among the formats that it knows."""
    visitor.press("/photo", "blocking", photo=(jpeg(), "photo.jpg"))
    page = visitor.client.get("/").get_data(as_text=True)

    assert re.search(r'<source type="image/webp" srcset="\S+\.webp 160w, \S+\.webp 320w, \S+\.webp 640w"', page)
    assert re.search(r'srcset="\S+\.jpg 160w, \S+\.jpg 320w, \S+\.jpg 640w"', page)


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

    assert "Before" not in visitor.read("photo-outcome")
    assert visitor.read("photo-outcome").strip()
    tasks.assert_not_called()


def test_nothing_chosen(visitor, tasks):
    """Without a photo nothing happens."""
    assert visitor.press("/photo", "background").status_code == 400
    assert visitor.press("/photo", "background", bundled="../../secret.jpg").status_code == 400


def test_outside_of_the_folder(visitor):
    """No URL leads out of the folders of the pictures."""
    for folder in ("media", "uploads"):
        assert visitor.client.get(f"/{folder}/../example.sqlite").status_code == 404
        assert visitor.client.get(f"/{folder}/%2e%2e/example.sqlite").status_code == 404
