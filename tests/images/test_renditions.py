"""Several sizes from one image."""

import json
import os

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, make_renditions
from flask_asok.recipes.images.source import Source

SIZES = {"thumb": 50, "card": (200, 200), "full": (400, 400)}


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_files(studio, tmp_path):
    """Each size is there in each format, with its real width and height, and the original stays."""
    path = studio.save(studio.photo((800, 600)), "photo.jpg")
    before = studio.read(path)

    renditions = make_renditions(path, SIZES, folder=tmp_path)

    assert [(one.name, one.format, one.width, one.height) for one in renditions] == [
        ("thumb", "jpeg", 50, 38),
        ("thumb", "webp", 50, 38),
        ("card", "jpeg", 200, 150),
        ("card", "webp", 200, 150),
        ("full", "jpeg", 400, 300),
        ("full", "webp", 400, 300),
    ]
    for one in renditions:
        assert size_of(one.path) == (one.width, one.height)
        assert os.path.getsize(one.path) == one.bytes
        assert os.path.dirname(one.path) == os.fspath(tmp_path)
    assert renditions["card"].path.endswith("photo-card.jpg")
    assert studio.read(path) == before


def test_beside(studio):
    """Without a folder they are written beside the original."""
    path = studio.save(studio.photo((80, 60)), "photo.png")

    make_renditions(path, {"thumb": 20}, ("keep",))

    assert studio.others(path) == ["photo-thumb.png"]


def test_srcset(studio):
    """The srcset names every width once, the narrowest first, and quotes its names."""
    path = studio.save(studio.photo((300, 200)), "my photo.jpg")

    renditions = make_renditions(path, {"full": 1600, "half": 800, "thumb": 100})

    assert renditions.srcset() == "my%20photo-thumb.jpg 100w, my%20photo-full.jpg 300w"
    assert renditions.srcset("webp", url="/m/").startswith("/m/my%20photo-thumb.webp 100w, ")
    assert renditions.srcset(url=lambda name: f"https://cdn/{len(name)}") == "https://cdn/18 100w, https://cdn/17 300w"
    assert renditions.formats == ("jpeg", "webp")


def test_unknown_names(studio):
    """A name or a format that there is none of is a KeyError."""
    renditions = make_renditions(studio.save(studio.photo((30, 20)), "photo.jpg"), {"thumb": 10}, ("keep",))

    with pytest.raises(KeyError):
        renditions["card"]
    with pytest.raises(KeyError):
        renditions.srcset("avif")


def test_plain_data(studio):
    """All of it can be stored as JSON."""
    renditions = make_renditions(studio.save(studio.photo((30, 20)), "photo.jpg"), {"thumb": 10})

    assert json.loads(json.dumps(renditions.as_dict()))["pictures"][0]["name"] == "thumb"
    assert len(renditions) == 2


def test_one_decode(studio, monkeypatch):
    """A photo is decoded once for all sizes and formats."""
    path = studio.save(studio.photo((800, 600)), "photo.jpg")
    decoded = []
    for name in ("load", "shrink_on_load"):
        real = getattr(Source, name)
        monkeypatch.setattr(
            Source, name, lambda *args, real=real, **options: (decoded.append(args), real(*args, **options))[1]
        )

    make_renditions(path, SIZES)

    # The others are looks at what was written.
    assert [source.path for source, *_ in decoded].count(path) == 1


def test_published_as_done(studio, monkeypatch):
    """What is done is published although a later one fails."""
    path = studio.save(studio.photo((800, 600)), "photo.jpg")
    from flask_asok.recipes.images import pipeline

    real = pipeline.encode

    def fail(image, *args, **kwargs):
        if image.width == 50:
            raise ImageError("It cannot be written.", reason="cannot_write")
        return real(image, *args, **kwargs)

    monkeypatch.setattr(pipeline, "encode", fail)

    with pytest.raises(ImageError):
        make_renditions(path, SIZES, ("keep",))

    assert studio.others(path) == ["photo-card.jpg", "photo-full.jpg"]


def test_upright_and_private(studio):
    """Every rendition is upright and says nothing about where it was made."""
    image = studio.corners((400, 300)).transpose(studio.turns[6])
    path = studio.save(image, "photo.jpg", exif=studio.exif(6))

    for one in make_renditions(path, {"thumb": 40, "full": 800}, ("keep", "webp", "png")):
        assert studio.read_corners(one.path) == ["red", "green", "blue", "white"]
        assert not studio.metadata(one.path)
        assert one.removed == ("gps", "exif")


def test_cover(studio):
    """Squares are cut from the whole image, and not from one another."""
    path = studio.save(studio.corners((800, 400)), "corners.png")

    for one in make_renditions(path, {"small": 20, "wide": (200, 50), "square": 100}, ("keep",), fit="cover"):
        assert studio.read_corners(one.path) == ["red", "green", "blue", "white"]


def test_animation(studio):
    """Every rendition of an animation moves."""
    frames = [Image.new("RGB", (200, 100), colour) for colour in ("red", "green", "blue")]
    path = studio.save(frames[0], "moving.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)

    for one in make_renditions(path, {"small": 20, "large": 100}):
        with Image.open(one.path) as image:
            assert image.n_frames == one.frames == 3


def test_close_to_one_careful_step(studio):
    """Sizes that are made from each other look like those made in one step from the original."""
    photo = studio.photo((1000, 750))
    path = studio.save(photo, "photo.png", compress_level=1)

    renditions = make_renditions(path, {"a": 500, "b": 250, "c": 64}, ("keep",))

    for one in renditions:
        expected = photo.resize((one.width, one.height), Image.Resampling.LANCZOS).tobytes()
        with Image.open(one.path) as seen:
            apart = [abs(a - b) for a, b in zip(seen.convert("RGB").tobytes(), expected, strict=True)]
        assert sum(apart) / len(apart) < 3


@pytest.mark.parametrize(
    ("sizes", "options", "error"),
    [
        (800, {}, TypeError),
        ({}, {}, ValueError),
        ({"../up": 100}, {}, ValueError),
        ({"": 100}, {}, ValueError),
        ({"thumb": "large"}, {}, TypeError),
        ({"thumb": 9}, {"formats": ()}, ValueError),
        ({"thumb": 9}, {"formats": ("gif",)}, ValueError),
        ({"thumb": 9}, {"folder": "/no/such/folder"}, FileNotFoundError),
    ],
    ids=str,
)
def test_bad_options(studio, sizes, options, error):
    """Options that are no good are refused before anything is written."""
    path = studio.save(studio.photo((30, 20)), "photo.jpg")

    with pytest.raises(error):
        make_renditions(path, sizes, **options)

    assert studio.others(path) == []
