"""
The test images of Pillow itself: the odd, the old and the broken.

They are in its source distribution (`pip download --no-deps --no-binary pillow pillow`), in Tests/images. Name that
folder in ASOK_IMAGE_CORPUS. A sample is run here; all of it with ASOK_IMAGE_CORPUS_WHOLE=1, or as a table with
`python tests/images/corpus.py FOLDER`.
"""

import importlib.util
import os
from pathlib import Path

import pytest

FOLDER = os.environ.get("ASOK_IMAGE_CORPUS")
EVERY = 1 if os.environ.get("ASOK_IMAGE_CORPUS_WHOLE") else 25

pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="ASOK_IMAGE_CORPUS names no folder with Pillow's test images."),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="It needs fork."),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def corpus():
    path = Path(__file__).with_name("corpus.py")
    spec = importlib.util.spec_from_file_location("asok_corpus", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verdicts(corpus):
    """What became of each file, under its own name and under one that lies."""
    files = corpus.files(Path(FOLDER))[::EVERY]
    return [corpus.judge(path, name) for path in files for name in (None, "photo.jpg")]


def named(verdicts):
    return [(one["file"], one.get("error")) for one in verdicts]


def test_one_error(verdicts):
    """Whatever is wrong with a file, the error is an ImageError."""
    assert named(one for one in verdicts if one["outcome"] not in ("written", "unchanged", "refused")) == []


def test_nothing_destroyed(verdicts):
    """What was refused is as it was, what was written can be read, and nothing else is left in the folder."""
    assert named(one for one in verdicts if one["destroyed"] or one.get("broken") or one["left"]) == []


def test_nothing_refused_in_vain(verdicts):
    """What Pillow can decode is resized, but for documents of several pages and bombs."""
    allowed = ("several_pages", "too_many_pixels")
    refused = [one for one in verdicts if one["outcome"] == "refused" and one["reason"] not in allowed]

    assert named(one for one in refused if one["decodable"]) == []


def test_nothing_sideways(corpus, verdicts):
    """What was written is upright, has the right shape and looks as before."""
    assert named(one for one in verdicts if one.get("sideways") or corpus.looks_different(one)) == []


def test_nothing_private(verdicts):
    """No metadata is left."""
    assert named(one for one in verdicts if one.get("metadata")) == []


def test_nothing_stands_still(verdicts):
    """Animations last as long as before and repeat as often."""
    moving = [one for one in verdicts if one.get("loop")]

    assert named(one for one in verdicts if one.get("flattened")) == []
    assert named(one for one in moving if len(set(one["loop"])) > 1) == []


def test_within_bounds(verdicts):
    """No file takes more than 256 MiB, or longer than three times two seconds."""
    assert named(one for one in verdicts if one["mebibytes"] > 256 or one["seconds"] > 6) == []
