"""The application that the promises are proved with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from ...extension import FlaskAsok
from .jobs import WAIT

MakeApp = Callable[..., Flask]

asok: FlaskAsok = FlaskAsok()


class WithApp:
    """Fixtures: override `make_app`."""

    @pytest.fixture
    def make_app(self) -> MakeApp:
        """Return a function that makes an application for the test: `make_app(**config)`. To be overridden."""
        raise NotImplementedError("Override the fixture make_app: it returns a function that makes your application.")

    @pytest.fixture
    def app(self, make_app: MakeApp) -> Iterator[Flask]:
        """An application that `make_app` makes, closed after the test."""
        app = make_app()
        if "page" not in app.view_functions:
            app.add_url_rule("/page", "page", lambda: "page")
        yield app
        asok.close(app, WAIT)

    @pytest.fixture
    def ctx(self, app: Flask) -> Iterator[Flask]:
        """The same, in its context."""
        with app.app_context():
            yield app
