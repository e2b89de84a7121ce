"""The promises that ship with the package, on the backends that need no server."""

import pytest

from flask_asok.testing.promises import BackendPromises


class TestThreads(BackendPromises):
    @pytest.fixture
    def make_app(self, make_app):
        return lambda **config: make_app(**config)


class TestImmediate(BackendPromises):
    @pytest.fixture
    def make_app(self, make_app):
        return lambda **config: make_app(ASOK_BACKEND="immediate", **config)
