"""What pytest finds: the fixture, and the hooks that judge its tasks."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from flask import Flask

from ..recipes import import_late
from ..validate import a_kind
from .fixture import AsokTasks

_WRITE_ONE = """\
Write it into conftest.py, for instance:

    @pytest.fixture
    def app():
        app = create_app()
        yield app
        asok.close(app)  # asok = FlaskAsok()
"""

_key = pytest.StashKey[AsokTasks]()


def pytest_collection_finish() -> None:
    """
    Import what the recipes import late, now and in one thread.

    pytest compiles every module of a package with a plugin by itself; in several worker threads at once that ends in a
    SystemError on Python 3.11.
    """
    import_late()


@pytest.fixture
def asok_tasks(request: pytest.FixtureRequest, app: Flask) -> Iterator[AsokTasks]:
    """See and steer the background tasks of the `app` fixture, which is yours; an unexpected error fails the test."""
    if not isinstance(app, Flask):
        pytest.fail(
            f"The fixture `app` returns {a_kind(type(app))}; asok_tasks needs the Flask app. {_WRITE_ONE}",
            pytrace=False,
        )
    tasks = AsokTasks(app)
    request.node.stash[_key] = tasks
    yield tasks
    tasks.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Say what to write where there is no `app` fixture: pytest's own text only says that it is not found."""
    try:
        return (yield)
    except pytest.FixtureLookupError as error:
        if error.argname != "app" or "asok_tasks" not in getattr(item, "fixturenames", ()):
            raise
    # Out here, so that it is shown without pytest's own text.
    pytest.fail(f"asok_tasks needs a fixture `app` of yours that returns the Flask app. {_WRITE_ONE}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge the tasks as part of the test, so that it fails, and not in the teardown, where it would be an error."""
    outcome = yield
    if _key in item.stash:
        item.stash[_key].check()
    return outcome
