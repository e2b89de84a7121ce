"""What would be uploaded: `nox -s release` builds it, and runs this on it."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]

DIST = os.environ.get("ASOK_DIST")
"""The folder with the wheel and the sdist."""

built = pytest.mark.skipif(DIST is None, reason="`nox -s release` builds what this looks at")


def only(pattern):
    (found,) = Path(DIST).glob(pattern)
    return found


@pytest.fixture
def wheel():
    with zipfile.ZipFile(only("*.whl")) as opened:
        yield opened


@pytest.fixture
def sdist():
    """The names in the source distribution, without its folder."""
    with tarfile.open(only("*.tar.gz")) as opened:
        return {name.partition("/")[2] for name in opened.getnames()}


def tracked(*folders):
    """Return the files that git knows below these folders."""
    if not (ROOT / ".git").exists():
        pytest.skip("This is no repository: what belongs to it cannot be told.")
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


# The version


def test_version_is_written_once():
    """The version is in pyproject.toml; code and documentation ask for it, and the changelog begins with it."""
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    files = [*ROOT.glob("flask_asok/**/*.py"), ROOT / "docs/conf.py", ROOT / "noxfile.py"]

    assert heading in ("Unreleased", VERSION)
    assert [file for file in files if f'"{VERSION}"' in file.read_text(encoding="utf-8")] == []


def test_upgrade_notes():
    """The upgrade notes have a section for this release."""
    minor = ".".join(VERSION.split(".")[:2])

    assert f"\n## {minor}\n" in (ROOT / "docs/upgrading.md").read_text(encoding="utf-8")


# The wheel


@built
def test_wheel_has_the_package(wheel):
    """The wheel has every file of the package, templates, styles, SQL and py.typed among them, and nothing else."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert names == tracked("flask_asok")
    assert "flask_asok/py.typed" in names
    assert any(name.startswith("flask_asok/dashboard/templates/") for name in names)
    assert any(name.startswith("flask_asok/status/assets/") for name in names)


@built
def test_wheel_has_the_licence(wheel):
    """The licence and the entry points are there, and the version is that of pyproject.toml."""
    (folder,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}

    metadata = message_from_string(wheel.read(f"{folder}/METADATA").decode())

    assert f"{folder}/licenses/LICENSE" in wheel.namelist()
    assert "flask_asok.testing" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], VERSION)
    assert metadata["License-Expression"] == PROJECT["license"]
    assert set(metadata.get_all("Provides-Extra")) == PROJECT["optional-dependencies"].keys()


@built
def test_description_shows_pictures_and_links(wheel):
    """What an index shows of the README has no relative link, and no relative picture."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    text = wheel.read(metadata).decode()

    targets = re.findall(r'\]\(([^)]+)\)|(?:src|srcset|href)="([^"]+)"', text)

    assert len(targets) > 10
    assert [target for pair in targets for target in pair if target and not target.startswith("https://")] == []


# The source distribution


@built
def test_sdist_has_what_tests_and_docs_need(sdist):
    """From the source distribution the tests can be run, and the documentation and the wheel be built."""
    folders = ("flask_asok", "tests", "example_app", "docs", "benchmarks")

    files = tracked(*folders, ":(glob)*.md", "noxfile.py", "LICENSE", "pyproject.toml")

    assert files - sdist == set()
    assert sdist - files <= {"PKG-INFO", ".gitignore"}


@built
def test_sdist_builds_the_same_wheel(tmp_path, wheel):
    """A wheel that is built from the source distribution has the same files as that of the repository."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]

    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True, timeout=110)

    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as own:
        assert {one.filename: one.CRC for one in own.infolist()} == {one.filename: one.CRC for one in wheel.infolist()}
