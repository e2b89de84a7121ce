"""Nothing is replaced that was not made from the same image."""

import os
import shutil

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, atomic, make_renditions, resize_image

FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF", "tif": "TIFF", "bmp": "BMP"}


def plain(studio, name, colour, size=(300, 200)):
    """An original of one colour."""
    return studio.save(Image.new("RGB", size, colour), name)


def is_near(path, colour):
    with Image.open(path) as image:
        seen = image.convert("RGB").getpixel((5, 5))
    return all(abs(one - other) < 10 for one, other in zip(seen, colour, strict=True))


def taken(call):
    """Call, and return the text of the refusal."""
    with pytest.raises(ImageError) as caught:
        call()
    assert caught.value.reason == "taken"
    return str(caught.value)


def test_two_originals_of_one_stem(studio):
    """Of c.jpg and c.png the first one's renditions stay; the error names the file in the way and what to do."""
    first, second = plain(studio, "c.jpg", "red"), plain(studio, "c.png", "blue")
    [one] = make_renditions(first, {"t": 50}, ("webp",))
    before = studio.read(one.path)

    text = taken(lambda: make_renditions(second, {"t": 50}, ("webp",)))

    assert one.path in text
    assert "Remove it" in text
    assert studio.read(one.path) == before


@pytest.mark.parametrize("names", [("photo.jpg", "photo.jpeg"), ("a/photo.jpg", "b/photo.jpg"), ("x.png", "x.PNG")])
def test_two_originals_of_one_name(studio, tmp_path, names):
    """Originals whose files would get one name in a folder do not replace each other's."""
    for folder in "ab":
        (studio.folder / folder).mkdir()
    first, second = (plain(studio, name, colour) for name, colour in zip(names, ("red", "blue"), strict=True))
    made = resize_image(first, 50, to=tmp_path)

    taken(lambda: resize_image(second, 50, to=tmp_path))
    taken(lambda: make_renditions(second, {"t": 50}, ("keep",), folder=_renditions_of(first, tmp_path)))

    assert is_near(made.path, (255, 0, 0))


def _renditions_of(path, folder):
    make_renditions(path, {"t": 50}, ("keep",), folder=folder)
    return folder


@pytest.mark.parametrize("size", [50, 1000], ids=["shrunk", "as it is"])
def test_original_named_like_a_rendition(studio, size):
    """An original that is named like the rendition of another stays, and so does everything before it."""
    path, other = plain(studio, "holiday.jpg", "red"), plain(studio, "holiday-thumb.jpg", "blue")
    before = studio.read(other)

    text = taken(lambda: make_renditions(path, {"card": 100, "thumb": size}))

    assert other in text
    assert studio.read(other) == before
    assert studio.others(path) == ["holiday-thumb.jpg"]


def test_original_with_the_stem_of_a_rendition(studio):
    """The size "b-c" of a.jpg and the size "c" of a-b.jpg have one name; the second is refused."""
    first, second = plain(studio, "a.jpg", "red"), plain(studio, "a-b.jpg", "blue")
    [made] = make_renditions(first, {"b-c": 50}, ("keep",))

    taken(lambda: make_renditions(second, {"c": 50}, ("keep",)))

    assert is_near(made.path, (255, 0, 0))


def test_to_another_original(studio, tmp_path):
    """Written to a folder, an image does not replace one that was there."""
    path = plain(studio, "photo.jpg", "red")
    other = os.fspath(tmp_path / "photo.jpg")
    Image.new("RGB", (30, 20), "blue").save(other)
    before = studio.read(other)

    text = taken(lambda: resize_image(path, 50, to=tmp_path))

    assert other in text
    assert studio.read(other) == before


def test_to_a_file_that_is_no_picture(studio, tmp_path):
    """Nor does it replace a file that is no image, an empty one included."""
    path = plain(studio, "photo.jpg", "red")
    for content in (b"", b"my notes", b"x" * 5000):
        (tmp_path / "photo.jpg").write_bytes(content)

        taken(lambda: resize_image(path, 50, to=tmp_path))

        assert (tmp_path / "photo.jpg").read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="There are no named pipes here.")
def test_to_a_pipe(studio, tmp_path):
    """A named pipe or a folder in the way is left alone, and holds nobody up."""
    path = plain(studio, "photo.jpg", "red")
    (tmp_path / "sub" / "photo-t.jpg").mkdir(parents=True)
    os.mkfifo(tmp_path / "sub" / "photo.jpg")
    taken(lambda: resize_image(path, 50, to=tmp_path / "sub"))
    taken(lambda: make_renditions(path, {"t": 50}, ("keep",), folder=tmp_path / "sub"))

    assert sorted(os.listdir(tmp_path / "sub")) == ["photo-t.jpg", "photo.jpg"]


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("box", [50, 1000], ids=["shrunk", "as it is"])
def test_updated(studio, extension, box):
    """When another picture comes in the place of an original, its renditions are made anew, in every format."""
    path = plain(studio, f"photo.{extension}", "red")
    [before] = make_renditions(path, {"t": box}, ("keep",))
    plain(studio, f"photo.{extension}", "blue", (240, 180))

    [after] = make_renditions(path, {"t": box}, ("keep",))

    assert after.path == before.path
    assert is_near(after.path, (0, 0, 255))
    assert studio.others(after.path) == [f"photo.{extension}"]


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("box", [50, 1000], ids=["shrunk", "as it is"])
def test_updated_elsewhere(studio, tmp_path, extension, box):
    """So is what was written with `to`."""
    path = plain(studio, f"photo.{extension}", "red")
    resize_image(path, box, to=tmp_path)
    plain(studio, f"photo.{extension}", "blue")

    made = resize_image(path, box, to=tmp_path)

    assert is_near(made.path, (0, 0, 255))


def test_updated_after_a_move(studio, tmp_path):
    """Images and renditions may be moved together, and be reached by another way."""
    path = plain(studio, "photo.jpg", "red")
    make_renditions(path, {"t": 50}, ("keep",))
    shutil.copytree(studio.folder, tmp_path / "moved")
    os.symlink(tmp_path / "moved", tmp_path / "current")

    [made] = make_renditions(tmp_path / "current" / "photo.jpg", {"t": 60}, ("keep",))

    assert made.width == 60
    assert taken(lambda: make_renditions(plain(studio, "photo.png", "blue"), {"t": 50}, ("jpeg",)))


@pytest.mark.parametrize("extension", FORMATS)
def test_rendition_resized_in_place(studio, extension):
    """A rendition that is fine is left alone in place, and one that was shrunk in place is still a rendition."""
    path = plain(studio, f"photo.{extension}", "red")
    [made] = make_renditions(path, {"t": 50}, ("keep",))

    same = resize_image(made.path)
    resize_image(made.path, 20)
    [again] = make_renditions(path, {"t": 50}, ("keep",))

    assert not same.changed
    assert again.width == 50


@pytest.mark.parametrize("extension", FORMATS)
def test_rendition_of_a_rendition(studio, extension):
    """What is made from a rendition belongs to that, whichever way it is written."""
    path = plain(studio, f"photo.{extension}", "red")
    [made] = make_renditions(path, {"t": 50}, ("keep",))

    [second] = make_renditions(made.path, {"u": 1000}, ("keep",))
    [again] = make_renditions(made.path, {"u": 1000}, ("keep",))

    assert second.bytes == again.bytes == made.bytes
    taken(lambda: make_renditions(path, {"t-u": 50}, ("keep",)))


def test_mark_says_nothing(studio, tmp_path):
    """A published file tells no path and no name."""
    path = plain(studio, "secret-name.jpg", "red")

    [picture] = make_renditions(path, {"t": 50}, ("keep",), folder=tmp_path)

    data = studio.read(picture.path)
    assert b"secret" not in data
    assert os.fsencode(studio.folder.name) not in data
    assert not studio.metadata(picture.path)


@pytest.mark.parametrize("extension", FORMATS)
def test_mark_is_no_picture(studio, tmp_path, extension):
    """An image that is fine is published as it is, byte for byte, with no more than the mark behind it."""
    path = studio.save(studio.photo((90, 60)), f"photo.{extension}")

    picture = resize_image(path, to=tmp_path)

    assert not picture.changed
    assert studio.read(picture.path).startswith(studio.read(path))
    assert picture.bytes == os.path.getsize(picture.path) <= picture.original_bytes + 60
    with Image.open(picture.path) as image, Image.open(path) as original:
        assert image.convert("RGB").tobytes() == original.convert("RGB").tobytes()


def test_to_a_file_that_was_named(studio, tmp_path):
    """A file that the caller names is replaced, whatever it was made from: an avatar by the next upload."""
    other = os.fspath(tmp_path / "avatar.jpg")
    Image.new("RGB", (30, 20), "blue").save(other)
    first, second = plain(studio, "one.jpg", "red"), plain(studio, "two.jpg", "lime")

    resize_image(first, 50, to=other)
    picture = resize_image(second, 50, to=other)

    assert is_near(picture.path, (0, 255, 0))


def test_at_the_call(studio, make_app):
    """What is in the way is told where background() is called, before anything is queued."""
    from flask_asok import background

    path, _ = plain(studio, "holiday.jpg", "red"), plain(studio, "holiday-thumb.jpg", "blue")
    with make_app().app_context():
        taken(lambda: background(make_renditions, path, {"thumb": 50}))


def test_names_that_differ_in_case(studio):
    """Sizes whose names differ in case only would be one file on some disks."""
    with pytest.raises(ValueError, match="case"):
        make_renditions(plain(studio, "photo.jpg", "red"), {"thumb": 10, "Thumb": 20})


def test_without_hard_links(studio, tmp_path, monkeypatch):
    """On a disk without hard links the same holds."""

    def refuse(one, other):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, second = plain(studio, "c.jpg", "red"), plain(studio, "c.png", "blue")

    for _ in range(2):
        made = resize_image(first, 50, to=tmp_path, format="webp")
    monkeypatch.setattr(atomic.origin, "may_replace", _blind_once(atomic.origin.may_replace))
    taken(lambda: resize_image(second, 50, to=tmp_path, format="webp"))

    assert is_near(made.path, (255, 0, 0))
    assert sorted(os.listdir(tmp_path)) == ["c.webp", "pictures"]


def _blind_once(may_replace):
    """The first look, before the work, sees nothing yet."""
    looks = []

    def look(file, mark):
        looks.append(file)
        if len(looks) == 1:
            raise FileNotFoundError(file)
        return may_replace(file, mark)

    return look


def test_gone_meanwhile(studio, tmp_path, monkeypatch):
    """A file in the way that is removed just then is in nobody's way."""
    path = plain(studio, "photo.jpg", "red")
    resize_image(path, 50, to=tmp_path)
    may_replace = atomic.origin.may_replace

    def vanish(file, mark):
        if os.path.exists(file) and vanish.looks:
            os.unlink(file)
        vanish.looks += 1
        return may_replace(file, mark)

    vanish.looks = 0
    monkeypatch.setattr(atomic.origin, "may_replace", vanish)

    picture = resize_image(path, 60, to=tmp_path)

    assert is_near(picture.path, (255, 0, 0))
    assert picture.width == 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="It needs fork.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_several_processes(studio):
    """Of several processes that publish under one name at once one wins, and the others are refused."""
    colours = {"jpg": (255, 0, 0), "png": (0, 255, 0), "bmp": (0, 0, 255), "tif": (255, 255, 0)}
    paths = {ending: plain(studio, f"c.{ending}", colour) for ending, colour in colours.items()}
    for number in range(5):
        ready, go = os.pipe()
        children = {}
        for ending, path in paths.items():
            child = os.fork()
            if child == 0:
                status = 2
                try:
                    # All of them start when the parent closes the pipe.
                    os.close(go)
                    os.read(ready, 1)
                    make_renditions(path, {f"t{number}": 50}, ("webp",))
                    status = 0
                except ImageError as error:
                    status = 1 if error.reason == "taken" else 2
                finally:
                    os._exit(status)
            children[ending] = child
        os.close(go)
        os.close(ready)

        codes = {ending: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for ending, child in children.items()}

        assert sorted(codes.values()) == [0, 1, 1, 1]
        [winner] = [ending for ending, code in codes.items() if code == 0]
        assert is_near(os.fspath(studio.folder / f"c-t{number}.webp"), colours[winner])
    assert not [name for name in os.listdir(studio.folder) if name.startswith(".asok")]
