"""
The test images of Pillow itself, over a thousand: the odd, the old and the broken.

They are in its source distribution only. `nox -s tests` fetches that and names their folder in ASOK_IMAGE_CORPUS. For
any other folder of images there is `python tests/images/corpus.py FOLDER`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="It needs fork."),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def folder():
    """Where the images are; without them these tests are skipped at home, and fail in CI."""
    path = Path(os.environ.get("ASOK_IMAGE_CORPUS", "/nowhere"))
    if not path.is_dir():
        why = "Pillow's test images are not here: `nox -s tests` fetches them, where PyPI can be reached."
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return path


@pytest.fixture(scope="module")
def corpus():
    path = Path(__file__).with_name("corpus.py")
    spec = importlib.util.spec_from_file_location("asok_corpus", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verdicts(corpus, folder, tmp_path_factory):
    """What became of each file, and of some under a name that lies."""
    # In a process of its own: the memory of a forked child is counted with that of the one it came from.
    out = tmp_path_factory.mktemp("corpus") / "verdicts.json"
    command = [sys.executable, corpus.__file__, str(folder), "--lie", "photo.jpg", "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def named(verdicts):
    return [(one["file"], one.get("error")) for one in verdicts]


def test_table(corpus, verdicts, capfd):
    """Most of them are images, and are worked on; the table of outcomes stands in the log."""
    lines = dict(corpus.table(verdicts))

    with capfd.disabled():
        print("", *(f"{name:45} {count:6}" for name, count in lines.items()), sep="\n", file=sys.stderr)
    assert lines["files"] > 1200
    assert lines["decodable, in an accepted format"] > 600
    assert lines["written"] + lines["unchanged"] > 600


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


def test_within_bounds(corpus, verdicts):
    """No file takes more than 256 MiB, or two seconds of a processor."""
    assert named(one for one in verdicts if one["mebibytes"] > corpus.MOST_MEBIBYTES or one["seconds"] > 2) == []
