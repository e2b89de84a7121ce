"""Files that a visitor uploads, and open files: what of them is attached."""

from __future__ import annotations

import io

import pytest
from werkzeug.datastructures import FileStorage

from flask_asok import Mail

TIMEOUT = 10


def test_upload(app, handler):
    """An upload can be attached as it is."""
    upload = FileStorage(io.BytesIO(b"GIF89a"), "a.gif", content_type="image/gif")
    Mail.send("user@example.com", "Hi", "See file", attachments=[upload]).join(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert (attached.get_filename(), attached.get_content_type()) == ("a.gif", "image/gif")


@pytest.mark.parametrize("attach", [lambda upload: upload, lambda upload: ("cv.pdf", upload)], ids=["alone", "named"])
def test_upload_that_is_saved(app, handler, tmp_path, attach):
    """An upload that the view saves, before or after, arrives whole, and is saved whole."""
    upload = FileStorage(io.BytesIO(b"%PDF-1.7"), "cv.pdf")
    upload.save(tmp_path / "before.pdf")
    Mail.send("user@example.com", "Hi", "See file", attachments=[attach(upload)]).join(TIMEOUT)
    upload.save(tmp_path / "after.pdf")

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_content() == b"%PDF-1.7"
    assert (tmp_path / "before.pdf").read_bytes() == (tmp_path / "after.pdf").read_bytes() == b"%PDF-1.7"


def test_upload_that_cannot_go_back(app, handler):
    """An upload from a stream that is read only once is attached too."""

    class Once(io.BytesIO):
        def seek(self, *args: int) -> int:
            raise io.UnsupportedOperation("seek")

    Mail.send("user@example.com", "Hi", "x", attachments=[FileStorage(Once(b"%PDF-1.7"), "cv.pdf")]).join(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_content() == b"%PDF-1.7"


def test_open_file_from_where_it_is(app, handler, tmp_path):
    """A file that the caller opened is read from where it is."""
    (tmp_path / "a.txt").write_text("head\nrest")

    with (tmp_path / "a.txt").open("rb") as file:
        file.readline()
        Mail.send("user@example.com", "Hi", "See file", attachments=[file]).join(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_content() == "rest"


@pytest.mark.parametrize("name", ["//[a.pdf", "http://a]b/c.pdf", "data:text/html,a.pdf"])
def test_name_that_is_an_address(app, handler, name):
    """The name of an upload is a name, also where it looks like a web address, or like a broken one."""
    upload = FileStorage(io.BytesIO(b"%PDF-1.7"), name, content_type="application/pdf")

    Mail.send("user@example.com", "Hi", "See file", attachments=[upload]).result(TIMEOUT)

    (attached,) = handler.take().message.iter_attachments()
    assert attached.get_content_type() == "application/pdf"
