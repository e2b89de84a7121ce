"""The example application, quick, with its real servers inside."""

import html
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from jinja2 import FileSystemBytecodeCache

from flask_asok.testing import AsokTasks

ROOT = Path(__file__).parents[2]

if "example_app" not in sys.modules:
    # By its path: with the project on sys.path the package that is tested would no longer be the installed one.
    folder = ROOT / "example_app"
    spec = importlib.util.spec_from_file_location(
        "example_app", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["example_app"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["example_app"])

spec = importlib.util.spec_from_file_location("sites", Path(__file__).with_name("sites.py"))
sys.modules["sites"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["sites"])

import example_app  # noqa: E402


class Visitor:
    """Somebody at the page: presses its buttons and reads what the cards say."""

    def __init__(self, app):
        self.client = app.test_client()

    def press(self, path, mode, **data):
        """Press the button that posts to `path`, and return the answer to that."""
        return self.client.post(path, data={"mode": mode, **data})

    def read(self, card):
        """Return the text of a card, or of the page's element with this id, as one line."""
        page = self.client.get("/").get_data(as_text=True)
        _, found, rest = page.partition(f'id="{card}"')
        assert found, f"The page has no {card}."
        text = re.sub(r"<[^>]*>", " ", "<" + re.split(r"</article>|</section>", rest)[0])
        return " ".join(html.unescape(text).replace("\N{MULTIPLICATION SIGN}", "x").split())

    def figure(self, card, mode):
        """Return the large figure of a card, in milliseconds; None before the button was pressed."""
        page = self.client.get("/").get_data(as_text=True)
        figure = re.search(rf'id="{card}-figures".*?class="figure {mode}.*?class="digits">([^<]+)<', page, re.DOTALL)
        return None if figure[1] == "\N{EN DASH}" else float(figure[1].replace(",", ""))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The compiled templates: compiling them for each test would take most of the time of all."""
    return FileSystemBytecodeCache(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def app(tmp_path, compiled):
    """The example application."""
    app = example_app.create_app(
        {
            "EXAMPLE_FOLDER": str(tmp_path / "data"),
            "EXAMPLE_PAUSE": 0.05,
            "EXAMPLE_BACKOFF": (0.0, 0.0),
            "EXAMPLE_VISITS": 2_000,
            # By the clock nothing happens in the middle of a test.
            "ASOK_PERIODIC": "off",
        }
    )
    app.jinja_env.bytecode_cache = compiled
    yield app
    example_app.close(app)


@pytest.fixture
def tasks(app):
    """Its tasks. One that fails unexpectedly fails the test."""
    tasks = AsokTasks(app)
    yield tasks
    tasks.check()
    tasks.close()


@pytest.fixture
def visitor(app, tasks):
    """Somebody at its page."""
    return Visitor(app)
